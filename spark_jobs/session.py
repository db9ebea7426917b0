"""The Spark session of every job."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from pyspark.sql.utils import is_remote

from souk.errors import SoukError
from souk.settings import REPOSITORY, Settings
from spark_jobs.java import java_home

# What a session may set on a server that is running.
OF_SESSION = {
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "4",
}
CONNECT_PORT, PATIENCE = 15002, 10.0
# More ranges than any cluster has slots.
MANY = 1_000_000


def spark_session(app: str, master: str, home: Path | None = None, is_heavy: bool = False) -> SparkSession:
    """Start a session, or return the one that this process has.

    A `local` master listens on loopback only and runs the workers with this Python; on a cluster, PYSPARK_PYTHON says
    which Python the executors have. A server of Spark Connect is used as it runs: its workers must import this
    repository, and see the same files.

    Args:
        app: Name of the application.
        master: `local[N]`, `spark://…`, `yarn`, `k8s://…` or `sc://host:port`.
        home: Where scratch files go; that of the settings by default.
        is_heavy: Whether Spark itself computes for minutes, and not the Python workers. A `local` master that does not
            compiles its code quickly rather than well: a job of some seconds takes half the processor's time, while
            windows over two million rows would take 1.5 times as long.

    Raises:
        SoukError: There is no Java to run Spark with, or the server of Spark Connect does not answer.
    """
    if master.startswith("sc://"):
        return _connect(app, master)
    if (active := SparkSession.getActiveSession()) is not None:
        return active
    home = Settings.from_env().home if home is None else home
    scratch = home / "spark"
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ["JAVA_HOME"] = str(java_home(home))
    inherited = os.environ.get("PYTHONPATH")
    options = {
        **OF_SESSION,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "WARN",
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.executorEnv.PYTHONPATH": f"{REPOSITORY}{os.pathsep}{inherited}" if inherited else str(REPOSITORY),
        # One thread for each task: Spark already runs a task on every core.
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.executorEnv.TOKENIZERS_PARALLELISM": "false",
    }
    if master.startswith("local"):
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
        os.environ["SPARK_LOCAL_DIRS"] = str(scratch)
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
        options |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
        if not is_heavy:
            options["spark.driver.extraJavaOptions"] = "-XX:TieredStopAtLevel=1"
    else:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app).master(master)
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


@contextmanager
def session(app: str, settings: Settings, is_heavy: bool = False) -> Iterator[SparkSession]:
    """Give the session that the settings ask for, and stop it."""
    spark = spark_session(app, settings.spark_master, settings.home, is_heavy)
    try:
        yield spark
    finally:
        spark.stop()


def slots(spark: SparkSession) -> int:
    """Return how many tasks run at a time, as far as Spark knows."""
    if is_remote():
        # A server says it only by what it does.
        return spark.range(MANY).select(f.spark_partition_id()).distinct().count()
    return spark.sparkContext.defaultParallelism


def _connect(app: str, server: str) -> SparkSession:
    address = urlsplit(server)
    try:
        # The client itself would try for ten minutes.
        socket.create_connection((address.hostname or "", address.port or CONNECT_PORT), PATIENCE).close()
    except (OSError, ValueError) as error:
        raise SoukError(
            f"No server of Spark Connect answers at {server}", "Start it, or correct SOUK_SPARK_MASTER."
        ) from error
    builder = SparkSession.builder.appName(app).remote(server)
    for name, value in OF_SESSION.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
