"""The Spark session of every job."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from souk.errors import SoukError
from souk.settings import REPOSITORY, Settings
from spark_jobs.java import java_home


def spark_session(app: str, master: str, home: Path | None = None) -> SparkSession:
    """Start a session, or return the one that this process has.

    A `local` master listens on loopback only and runs the workers with this Python; on a cluster, PYSPARK_PYTHON says
    which Python the executors have.

    Args:
        app: Name of the application.
        master: `local[N]`, `spark://…`, `yarn` or `k8s://…`.
        home: Where scratch files go; that of the settings by default.

    Raises:
        SoukError: There is no Java to run Spark with, or the master is a server of Spark Connect.
    """
    if master.startswith("sc://"):
        # Progress and the size of tasks come from the driver's own context, which Connect does not give.
        raise SoukError(f"Spark Connect ({master}) is not supported", "Set SOUK_SPARK_MASTER to the cluster's master.")
    if (active := SparkSession.getActiveSession()) is not None:
        return active
    home = Settings.from_env().home if home is None else home
    scratch = home / "spark"
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ["JAVA_HOME"] = str(java_home(home))
    inherited = os.environ.get("PYTHONPATH")
    options = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "WARN",
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
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
    else:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app).master(master)
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
