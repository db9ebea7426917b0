"""Spark writes to Postgres and reads from it: round trips, failing tasks, attempts at the same partition, a killed job."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from pyspark import TaskContext, cloudpickle
from pyspark.sql import DataFrame, SparkSession

from spark_jobs.pgvector import writes
from spark_jobs.pgvector.source import Committed, PgvectorSource, PgvectorWriter

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
# The workers of Spark cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class MarkedSource(PgvectorSource):
    """A source that fails once, or does its work twice, as long as the file `/<folder>/<mark>` says so."""

    mark = ""

    def writer(self, schema, overwrite):
        return MarkedWriter(super().writer(schema, overwrite)._write, self.mark)


class MarkedWriter(PgvectorWriter):
    def __init__(self, write, mark):
        super().__init__(write)
        self.mark = mark

    def write(self, iterator):
        batches = list(iterator)
        context = TaskContext.get()
        if self.mark.endswith("duplicate"):
            writes.copy(self._write, context.partitionId(), context.taskAttemptId() + 1_000_000, batches)
        done = Committed(writes.copy(self._write, context.partitionId(), context.taskAttemptId(), batches))
        if self.mark.endswith("fail") and context.partitionId() == 1 and not context.attemptNumber():
            Path(self.mark).touch()
            raise RuntimeError("lost after its COPY")
        return done


@pytest.fixture(scope="module")
def source(spark: SparkSession) -> None:
    spark.dataSource.register(PgvectorSource)


@pytest.fixture
def connection(module_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(module_database, autocommit=True) as connection:
        connection.execute("drop schema if exists pgvector_staging, app cascade; create schema app")
        connection.execute("create table app.item (item_id int primary key, title text, vec halfvec(4))")
        yield connection


@pytest.fixture
def items(spark: SparkSession, source: None) -> DataFrame:
    return spark.range(40, numPartitions=4).selectExpr(
        "cast(id as int) as item_id",
        "concat('title ', id) as title",
        "transform(array(1, 2, 3, 4), n -> cast(n / (id + 1) as float)) as vec",
    )


def write(frame: DataFrame, dsn: str, mode: str = "append", source: str = "pgvector", **options: str) -> None:
    frame.write.format(source).options(url=dsn, table="app.item", **options).mode(mode).save()


def content_hash(connection: psycopg.Connection) -> str:
    rows = connection.execute("select item_id, title, vec::text from app.item order by 1, 2, 3").fetchall()
    assert rows
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def left_over(connection: psycopg.Connection) -> list[str]:
    query = (
        "select tablename from pg_tables where schemaname = 'pgvector_staging' and tablename <> 'write'"
        " union all select write_id from pgvector_staging.write"
    )
    return [row[0] for row in connection.execute(query).fetchall()]


def test_every_type_comes_back_as_it_was_written(spark, source, connection, module_database):
    connection.execute(
        'create table app."All types" (n int primary key, b bool, i2 int2, i8 int8, f4 float4, f8 float8, p numeric(12,3),'
        ' "the text" text, v varchar(9), j json, jb jsonb, d date, ts timestamp, tz timestamptz, raw bytea, h halfvec(2),'
        ' e vector(2), ai int[], al bigint[], af real[], ad double precision[], "at" text[])'
    )
    schema = (
        "n int, b boolean, i2 smallint, i8 bigint, f4 float, f8 double, p decimal(12,3), `the text` string, v string, j string,"
        " jb string, d date, ts timestamp_ntz, tz timestamp, raw binary, h array<float>, e array<float>, ai array<int>,"
        " al array<bigint>, af array<float>, ad array<double>, at array<string>"
    )
    full = (
        *(1, True, -2, 2**40, 0.5, -1e-9, Decimal("-123456789.125"), "茶 'x'\n", "", '{"a":1}', '{"a": [1, 2]}'),
        *(
            date(1969, 12, 31),
            datetime(1999, 1, 1, 12, 30, 0, 7),
            datetime(2026, 5, 1, tzinfo=UTC).replace(tzinfo=None),
        ),
        *(
            b"\0\xff",
            [0.5, -2.0],
            [1.25, 2.0**100],
            [1, None, -3],
            [2**40],
            [float("inf")],
            [None, 0.1],
            ["", "茶", None],
        ),
    )
    empty = (*full[:17], [], [], [], [], [])
    rows = [full, (2, *[None] * 21), (3, *empty[1:])]
    options = {"url": module_database, "table": 'app."All types"'}
    spark.createDataFrame(rows, schema).repartition(2).write.format("pgvector").options(**options).mode("append").save()
    back = spark.read.format("pgvector").options(**options).load()
    assert back.dtypes == spark.createDataFrame([], schema).dtypes
    assert [tuple(row) for row in back.orderBy("n").collect()] == rows
    some = spark.read.format("pgvector").options(**options, where="n > 1").schema("h array<float>, n int").load()
    assert [tuple(row) for row in some.orderBy("n").collect()] == [(None, 2), ([0.5, -2.0], 3)]


def test_packed_vectors_are_stored_as_lists_are(spark, source, connection, module_database):
    rows = [(n, f"title {n}", struct.pack("<4f", n, -0.5, 2.0, 1 / 3)) for n in range(9)]
    frame = spark.createDataFrame(rows, "item_id int, title string, vec binary").repartition(2)
    write(frame, module_database)
    packed = content_hash(connection)
    lists = [(n, title, list(struct.unpack("<4f", vec))) for n, title, vec in rows]
    write(spark.createDataFrame(lists, "item_id int, title string, vec array<float>"), module_database, "overwrite")
    assert content_hash(connection) == packed
    with pytest.raises(Exception, match="item_id 4: vec has 15 bytes, not 16"):
        write(frame.selectExpr("item_id", "title", "substr(vec, 1, if(item_id = 4, 15, 16)) as vec"), module_database)


def test_a_table_of_parts_is_read_once_whole_and_a_view_too(spark, source, connection, module_database, items):
    connection.execute(
        "create table app.release (item_id int, title text, vec halfvec(4)) partition by range (item_id);"
        "create table app.release_1 partition of app.release for values from (0) to (30);"
        "create table app.release_2 partition of app.release default;"
        "create view app.seen as select item_id from app.release where item_id < 7"
    )
    # Four rows a page.
    text = "array_join(transform(sequence(1, 30), n -> sha2(concat(item_id, '-', n), 256)), '')"
    big = items.selectExpr("item_id", f"{text} as title", "vec")
    big.write.format("pgvector").options(url=module_database, table="app.release").mode("append").save()
    read = spark.read.format("pgvector").options(url=module_database, table="app.release", partitions="3").load()
    assert read.rdd.getNumPartitions() > 2
    assert sorted(row.item_id for row in read.collect()) == list(range(40))
    seen = spark.read.format("pgvector").options(url=module_database, table="app.seen").load()
    assert sorted(row.item_id for row in seen.collect()) == list(range(7))
    connection.execute(
        "alter table app.release_1 enable row level security, force row level security; create role reader role current_user;"
        "grant usage on schema app to reader; grant select on app.release, app.release_1, app.release_2 to reader"
    )
    guarded = spark.read.format("pgvector").options(
        url=module_database + " options='-c role=reader'", table="app.release"
    )
    try:
        assert guarded.load().count() == 40
    finally:
        connection.execute("drop owned by reader; drop role reader")


def test_a_failing_partition_leaves_nothing_and_names_the_row(connection, module_database, items):
    write(items, module_database)
    before = content_hash(connection)
    poisoned = items.selectExpr(
        "item_id + 100 as item_id", "title", "if(item_id = 33, array(float('nan'), 0f, 0f, 0f), vec) as vec"
    )
    with pytest.raises(Exception, match="item_id 133: vec holds NaN or null"):
        write(poisoned, module_database)
    assert content_hash(connection) == before
    assert left_over(connection) == []


@pytest.mark.parametrize("fault", ["fail", "duplicate"])
def test_attempts_at_one_partition_count_once(spark, connection, module_database, items, tmp_path, fault):
    mark = str(tmp_path / fault)
    spark.dataSource.register(type("Marked", (MarkedSource,), {"name": classmethod(lambda cls: fault), "mark": mark}))
    write(items, module_database, source=fault)
    assert Path(mark).exists() == (fault == "fail")
    assert connection.execute("select count(*), count(distinct item_id) from app.item").fetchone() == (40, 40)
    assert left_over(connection) == []


def test_overwriting_and_appending(connection, module_database, items):
    write(items, module_database)
    write(items.selectExpr("item_id + 1000 as item_id", "title", "vec"), module_database)
    assert connection.execute("select count(*) from app.item").fetchone() == (80,)
    write(items.where("item_id < 5"), module_database, "overwrite")
    assert connection.execute("select count(*) from app.item").fetchone() == (5,)
    write(items.where("item_id < 0"), module_database, "overwrite")
    assert connection.execute("select count(*) from app.item").fetchone() == (0,)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ("item_id, title as name, vec", {}, "there is no column name"),
        ("item_id, title, title as vec", {}, r"vec is halfvec\(4\), which string does not fit"),
        ("title, vec", {}, "item_id is missing"),
        ("item_id, title, vec", {"table": "app.items"}, "there is no table app.items"),
        ("item_id, title, vec", {"tabel": "app.item"}, "there is no option tabel"),
        ("item_id, title, vec", {"key": "name"}, "the key name is no column"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(
    connection, module_database, items, change, options, said
):
    frame = items.selectExpr(*change.split(", "))
    with pytest.raises(Exception, match=said):
        frame.write.format("pgvector").options(**{"url": module_database, "table": "app.item", **options}).mode(
            "append"
        ).save()
    assert connection.execute("select count(*) from app.item").fetchone() == (0,)
    assert connection.execute("select to_regclass('pgvector_staging.write')").fetchone() == (None,)


KILLED = """
import sys, time
from pathlib import Path
from spark_jobs.pgvector.source import PgvectorSource, PgvectorWriter
from spark_jobs.session import spark_session

class Slow(PgvectorSource):
    def writer(self, schema, overwrite):
        return SlowWriter(super().writer(schema, overwrite)._write)

class SlowWriter(PgvectorWriter):
    def commit(self, messages):
        print("ready", flush=True)
        time.sleep(600)

spark = spark_session("killed", "local[2]", Path(sys.argv[1]))
spark.dataSource.register(Slow)
frame = spark.range(30, numPartitions=2).selectExpr("cast(id as int) as item_id", "'half' as title", "array(1f, 2f, 3f, 4f) as vec")
frame.write.format("pgvector").options(url=sys.argv[2], table="app.item").mode("append").save()
"""


def test_a_job_that_is_killed_before_its_commit_and_run_again_stores_the_same(
    connection, module_database, items, tmp_path
):
    write(items, module_database)
    expected = content_hash(connection)
    connection.execute("truncate app.item")
    job = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), module_database],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(left_over(connection)) < 3:
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert connection.execute("select count(*) from app.item").fetchone() == (0,)
    write(items, module_database)
    assert content_hash(connection) == expected
    assert left_over(connection) == []


def test_the_connection_string_is_not_in_the_plan(spark, source, connection, module_database):
    frame = spark.read.format("pgvector").options(url=module_database, table="app.item").load()
    password = psycopg.conninfo.conninfo_to_dict(module_database)["password"]
    assert "item_id" in frame._jdf.queryExecution().toString()
    assert password not in frame._jdf.queryExecution().toString()


def test_the_package_stands_on_its_own(tmp_path):
    shutil.copytree(
        REPOSITORY / "spark_jobs" / "pgvector", tmp_path / "elsewhere", ignore=shutil.ignore_patterns("__pycache__")
    )
    code = (
        "import sys, elsewhere.source as s; assert s.PgvectorSource.name() == 'pgvector'\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('souk', 'spark_jobs', 'ml')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
