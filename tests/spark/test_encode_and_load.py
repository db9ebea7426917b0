"""Encoding and loading end the same wherever Spark runs, and whatever is killed: the process, an executor of a cluster."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest
from pyspark.sql import SparkSession

from souk.settings import REPOSITORY
from spark_jobs import encode_items as job
from tests.conftest import free_port
from tests.spark import encode_and_load
from tests.tiny_bert import write_tiny_bert

pytestmark = pytest.mark.slow

WORDS = ("dog", "cat", "cup", "big", "small", "query")
ITEMS, TEXTS = 400, 350
CREATE = "create table item_vector (item_id text primary key, text_hash text, terms text[], vector halfvec(16))"
Rows = list[tuple[Any, ...]]
CLIENT = """
import sys
from spark_jobs.session import slots, spark_session
spark = spark_session("connect", sys.argv[1])
print(type(spark).__module__, slots(spark))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue in which some texts are repeated, and its encoder."""
    folder = tmp_path_factory.mktemp("catalogue")
    write_tiny_bert(folder / "tiny")
    numbers = [number % TEXTS for number in range(ITEMS)]
    titles = [" ".join(WORDS[number // 6**place % 6] for place in range(4)) for number in numbers]
    columns = {
        "item_id": [f"item-{number}" for number in range(ITEMS)],
        "title": titles,
        "description": [f"no. {number}" for number in numbers],
        "brand": [None] * ITEMS,
        "categories": [["Things"]] * ITEMS,
    }
    columns["text_hash"] = [hashlib.md5(text.encode()).hexdigest() for text in columns["description"]]
    kinds = {"categories": pa.list_(pa.string())}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    pq.write_table(pa.table(columns, schema), folder / "items.parquet")
    return folder


@pytest.fixture
def connection(module_database: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(psycopg.connect(module_database, autocommit=True)) as connection:
        connection.execute("drop schema if exists pgvector_staging cascade; drop table if exists item_vector")
        connection.execute(CREATE)
        yield connection


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "ROWS_PER_TASK", encode_and_load.ROWS_PER_TASK)


def stored(connection: psycopg.Connection[Any]) -> Rows:
    return connection.execute("select item_id, text_hash, terms, vector::text from item_vector order by 1").fetchall()


def finish(spark: SparkSession, folder: Path, connection: psycopg.Connection[Any]) -> tuple[str, Rows]:
    """Run to the end; return the content hash and the rows that are stored."""
    report = encode_and_load.encode(spark, folder)
    encode_and_load.load(spark, folder, connection.info.dsn + f" password={connection.info.password}")
    left = connection.execute("select count(*) from pg_tables where tablename like 'stage%'").fetchone()
    assert left == (0,)
    return report.content_hash, stored(connection)


def forget(folder: Path) -> None:
    """Leave the catalogue and the models alone."""
    for path in folder.glob("*vectors*"):
        subprocess.run(["rm", "-rf", path], check=True)


@contextmanager
def running(
    master: str, folder: Path, connection: psycopg.Connection[Any], point: str = "-", **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Encode and load in a process group of its own, which is gone in the end."""
    dsn = connection.info.dsn + f" password={connection.info.password}"
    command = [sys.executable, "-m", "tests.spark.encode_and_load", master, str(folder), dsn, point]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(said: str, is_true: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while not is_true():
        assert process.poll() is None, f"it ended before {said}: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"not {said}: {log.read_text()[-3000:]}"
        time.sleep(0.02)


def test_whatever_is_killed_a_second_run_ends_the_same(spark, folder, connection, small_tasks):
    expected = finish(spark, folder, connection)
    assert len(expected[1]) == ITEMS
    assert len({row[1] for row in expected[1]}) == TEXTS
    assert len({row[3] for row in expected[1]}) > TEXTS / 2
    before = stored(connection)

    def copies() -> object:
        return connection.execute("select 1 from pg_tables where tablename like 'stage%'").fetchone()

    def moves() -> object:
        return connection.execute("select 1 from pg_stat_activity where wait_event = 'PgSleep'").fetchone()

    connection.execute("create function pause() returns trigger language plpgsql as 'begin perform pg_sleep(5); end'")
    pause = "create trigger pause after insert on item_vector for each statement execute function pause()"
    points: list[tuple[str, Callable[[], object] | None]] = [
        ("encode", lambda: next(folder.glob(".vectors-*/encoded/**/part-*.parquet"), None)),
        ("manifest", None),
        ("swap", None),
        ("copies", copies),
        ("moves", moves),
    ]
    for point, is_reached in points:
        if point in ("encode", "manifest"):
            forget(folder)
        if point == "swap":
            # So that there is an old data set to put aside.
            table = pq.read_table(sorted((folder / "vectors").glob("*.parquet"))).slice(0, 100)
            forget(folder)
            (folder / "vectors").mkdir()
            pq.write_table(table, folder / "vectors" / "part-0.parquet")
        if point == "moves":
            connection.execute(pause)
        with running("local[2]", folder, connection, point if is_reached is None else "-") as process:
            if is_reached is None:
                assert process.wait(240) == -signal.SIGKILL, (folder / "log").read_text()[-3000:]
            else:
                wait_for(point, is_reached, process, folder / "log")
        connection.execute("drop trigger if exists pause on item_vector")
        assert stored(connection) == before, f"killed at {point}, and readers saw it"
        assert finish(spark, folder, connection) == expected, f"killed at {point}"
        assert not list(folder.glob(".vectors-*/vectors")), "the files of the killed run are still there"


@contextmanager
def cluster(home: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A standalone master and two workers of one core on loopback."""
    port = free_port()
    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    environment = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m", "SPARK_NO_DAEMONIZE": "1"}
    listens = ["--host", "127.0.0.1", "--webui-port", "0"]
    url = f"spark://127.0.0.1:{port}"
    master = ["org.apache.spark.deploy.master.Master", *listens, "--port", str(port)]
    worker = ["org.apache.spark.deploy.worker.Worker", *listens, "--cores", "1", "--memory", "1g"]
    commands = [master, *([*worker, "--work-dir", str(home / f"work-{number}"), url] for number in range(2))]
    daemons: list[subprocess.Popen[bytes]] = []
    with (home / "cluster.log").open("wb") as log:
        try:
            for command in commands:
                daemons.append(
                    subprocess.Popen(
                        [spark_class, *command], env=environment, stdout=log, stderr=log, start_new_session=True
                    )
                )
            yield url, daemons
        finally:
            for daemon in daemons:
                os.killpg(daemon.pid, signal.SIGTERM)
            for daemon in daemons:
                daemon.wait(30)


def executors(daemons: list[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    found = []
    for daemon in daemons:
        for child in psutil.Process(daemon.pid).children(recursive=True):
            # A child may end while it is looked at.
            with suppress(psutil.NoSuchProcess):
                if "CoarseGrainedExecutorBackend" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def test_a_cluster_that_loses_an_executor_ends_as_one_process_does(spark, folder, connection, small_tasks, tmp_path):
    expected = finish(spark, folder, connection)
    assert len(expected[1]) == ITEMS
    forget(folder)
    connection.execute("truncate item_vector")
    with cluster(tmp_path) as (url, daemons):
        environment = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
        with running(url, folder, connection, **environment) as process:
            is_half_done = lambda: next(folder.glob(".vectors-*/encoded/**/part-*.parquet"), None)  # noqa: E731
            wait_for("encoding", is_half_done, process, folder / "log")
            lost = executors(daemons)[0]
            lost.kill()
            assert process.wait(240) == 0, (folder / "log").read_text()[-3000:]
        assert not lost.is_running()
    report = encode_and_load.encode(spark, folder)
    assert (report.encoded, report.content_hash, stored(connection)) == (0, *expected)


@contextmanager
def connect_server(home: Path) -> Iterator[str]:
    """A server of Spark Connect with two slots, on loopback."""
    port = free_port()
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    options = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.warehouse.dir": str(home / "warehouse"),
    }
    command = [
        str(submit),
        "--master",
        "local[2]",
        "--class",
        "org.apache.spark.sql.connect.service.SparkConnectServer",
    ]
    command += [part for name, value in options.items() for part in ("--conf", f"{name}={value}")]
    environment = os.environ | {
        "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "spark-internal"], env=environment, stdout=log, stderr=log, cwd=home, start_new_session=True
        )
        try:
            wait_for(
                "listening",
                lambda: b"Spark Connect server started" in (home / "log").read_bytes(),
                process,
                home / "log",
            )
            yield f"sc://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def test_a_server_of_spark_connect_ends_as_one_process_does(spark, folder, connection, small_tasks, tmp_path):
    expected = finish(spark, folder, connection)
    assert len(expected[1]) == ITEMS
    forget(folder)
    connection.execute("truncate item_vector")
    with connect_server(tmp_path) as url:
        asked = subprocess.run([sys.executable, "-c", CLIENT, url], cwd=REPOSITORY, capture_output=True, text=True)
        assert asked.stdout == "pyspark.sql.connect.session 2\n", asked.stderr
        with running(url, folder, connection) as process:
            assert process.wait(240) == 0, (folder / "log").read_text()[-3000:]
    report = encode_and_load.encode(spark, folder)
    assert (report.encoded, report.content_hash, stored(connection)) == (0, *expected)
