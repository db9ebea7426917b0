"""How fast Spark loads vectors, next to a bare COPY and to Spark's own JDBC writer: `make bench-load`.

Every arm reads the same generated rows from Parquet and ends when they are committed in a table without indexes. The
file holds vectors as lists of numbers; a second one holds them packed, as `binary`, for the source and the bare loop.
JDBC needs Postgres' driver, a jar that no package of the lock carries: Debian has it as libpostgresql-jdbc-java.
Without it psycopg's executemany is measured instead, under its own name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import set_json_dumps
from pyspark import TaskContext
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from souk.postgres import EmbeddedPostgres, create_database
from souk.settings import Settings
from spark_jobs.pgvector import copy_binary, rows, writes
from spark_jobs.pgvector.kinds import Column, find_table, match_writing
from spark_jobs.pgvector.source import Committed, PgvectorSource, PgvectorWriter
from spark_jobs.session import spark_session

DIMENSION = 384
# As many as slots, of as many groups of rows: every task has as much to do.
TASKS = 2
ROWS_PER_GROUP = 10_000
JARS = ("/usr/share/java/postgresql.jar",)
TABLE = "item"
CREATE = (
    f"drop table if exists {TABLE}; create table {TABLE} (item_no int, item_id text, title text, categories text[],"
    f" attributes jsonb, popularity real, text_vector halfvec({DIMENSION}))"
)
TYPES = ["int4", "text", "text", "text[]", "jsonb", "float4", "halfvec"]
FIELDS = list(
    zip(
        ["item_no", "item_id", "title", "categories", "attributes", "popularity", "text_vector"],
        ["int", "string", "string", "array<string>", "string", "float", "array<float>"],
        strict=True,
    )
)
BARE, BARE_PACKED, COLUMNS, PAUSED, OURS, PACKED, JDBC, FAST_JDBC, MANY = (
    "bare psycopg COPY BINARY loop",
    "bare psycopg COPY BINARY loop, packed",
    "our encoder, one connection, no Spark",
    "pgvector source, after a pause",
    "pgvector source",
    "pgvector source, packed",
    "Spark JDBC",
    "Spark JDBC, rewritten batches of 10,000",
    "psycopg executemany",
)
TARGETS = ((BARE, 0.8), (JDBC, 10.0), (FAST_JDBC, 10.0))
FRAMES = (OURS, PACKED)
# Java compiles what it has seen often enough. Python workers end after a minute without work: the first of two turns
# may start them anew.
WARMING_TURNS = 3
Arm = Callable[[], object]


def main() -> None:
    """Measure, print and write var/bench/load.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="rows to load")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each arm, one after the other")
    parser.add_argument("--jdbc-jar", type=Path, help="Postgres' JDBC driver")
    arguments = parser.parse_args()
    jar = arguments.jdbc_jar or next((Path(jar) for jar in JARS if Path(jar).exists()), None)
    settings = Settings.from_env()
    home = settings.home / "bench" / "load"
    server = EmbeddedPostgres(home, settings.postgres_port + 1)
    shutil.rmtree(server.root, ignore_errors=True)
    try:
        server.start()
        create_database(server.dsn("postgres"), "bench")
        with psycopg.connect(server.dsn("bench")) as connection:
            connection.execute("create extension vector")
        result = _bench(server.dsn("bench"), home, jar, arguments)
    finally:
        server.stop()
        shutil.rmtree(server.root, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
    target = settings.home / "bench" / "load.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{target}: {({True: 'met', False: 'MISSED', None: 'not all measured'})[result['met']]}")


def write_rows(path: Path, count: int, *, is_packed: bool = False) -> None:
    """Write generated products: texts of a usual length and unit vectors, the same ones every time.

    Args:
        path: Parquet to write.
        count: How many.
        is_packed: Whether a vector is a list of numbers or their bytes.
    """
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5000)])
    schema = pa.schema(
        [
            ("item_no", pa.int32()),
            ("item_id", pa.string()),
            ("title", pa.string()),
            ("categories", pa.list_(pa.string())),
            ("attributes", pa.string()),
            ("popularity", pa.float32()),
            ("text_vector", pa.binary() if is_packed else pa.list_(pa.float32())),
        ]
    )
    # Vectors do not compress.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for first in range(0, count, ROWS_PER_GROUP):
            numbers = range(first, min(first + ROWS_PER_GROUP, count))
            vectors = rng.standard_normal((len(numbers), DIMENSION), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            bounds = np.arange(len(numbers) + 1, dtype=np.int32) * DIMENSION
            lists = pa.ListArray.from_arrays(pa.array(bounds), pa.array(vectors.ravel()))
            columns = [
                pa.array(numbers, pa.int32()),
                pa.array([f"item-{number}" for number in numbers]),
                pa.array([" ".join(row) for row in rng.choice(words, (len(numbers), 8))]),
                pa.array([row.tolist() for row in rng.choice(words[:200], (len(numbers), 3))]),
                pa.array([json.dumps({"colour": word, "size": 42}) for word in rng.choice(words, len(numbers))]),
                pa.array(rng.random(len(numbers), dtype=np.float32)),
                pa.array([vector.tobytes() for vector in vectors]) if is_packed else lists,
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _bench(dsn: str, home: Path, jar: Path | None, arguments: argparse.Namespace) -> dict[str, Any]:
    file, packed = home / "rows.parquet", home / "packed.parquet"
    write_rows(file, arguments.rows)
    write_rows(packed, arguments.rows, is_packed=True)
    print(f"{arguments.rows:,} generated rows, halfvec({DIMENSION}), {file.stat().st_size >> 20} MB", flush=True)
    if jar:
        os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-class-path {jar} pyspark-shell"
    spark = spark_session("souk-bench-load", f"local[{TASKS}]", home)
    spark.conf.set("spark.sql.files.maxPartitionBytes", file.stat().st_size // TASKS)
    timings = {name: home / f"timings-{number}" for number, name in enumerate((PAUSED, *FRAMES))}
    arms: dict[str, Arm] = {}
    if jar:
        arms[JDBC] = lambda: load_jdbc(spark, dsn, file)
        arms[FAST_JDBC] = lambda: load_jdbc(spark, dsn, file, "reWriteBatchedInserts=true&", batchsize="10000")
    else:
        print("there is no JDBC driver: executemany stands in; install libpostgresql-jdbc-java or pass --jdbc-jar")
        arms[MANY] = lambda: load_many(dsn, file)
    arms |= {
        BARE: lambda: load_bare(dsn, file),
        BARE_PACKED: lambda: load_bare(dsn, packed),
        COLUMNS: lambda: load_columns(dsn, file),
        PAUSED: lambda: load_source(spark, dsn, file, timings[PAUSED]),
        OURS: lambda: load_source(spark, dsn, file, timings[OURS]),
        PACKED: lambda: load_source(spark, dsn, packed, timings[PACKED]),
    }
    seconds = _measure(arms, dsn, arguments.rows, arguments.rounds, timings)
    spark.stop()
    return _report(seconds, {name: _stages(timings[name]) for name in FRAMES}, arguments.rows, jar)


def _measure(
    arms: dict[str, Arm], dsn: str, count: int, rounds: int, timings: dict[str, Path]
) -> dict[str, list[float]]:
    """Return the seconds of each turn of each arm."""
    for name in FRAMES * WARMING_TURNS:
        _time(dsn, arms[name])
    for folder in timings.values():
        shutil.rmtree(folder, ignore_errors=True)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    sums = set()
    for turn in range(rounds):
        for name, load in arms.items():
            seconds[name].append(_time(dsn, load))
            with psycopg.connect(dsn) as connection:
                query = f"select count(*), sum(hashtext({TABLE}::text)::numeric) from {TABLE}"
                sums.add(connection.execute(query).fetchone())
            print(f"  {turn + 1}  {name:42}{count / seconds[name][-1]:10,.0f} rows/s", flush=True)
    assert len(sums) == 1, "the arms stored different rows"
    return seconds


def _time(dsn: str, load: Arm) -> float:
    """Return the seconds of loading into the empty table."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(CREATE)
        connection.execute("checkpoint")
    start = time.perf_counter()
    load()
    return time.perf_counter() - start


def _report(
    seconds: dict[str, list[float]], stages: dict[str, dict[str, float]], count: int, jar: Path | None
) -> dict[str, Any]:
    rate = {name: count / statistics.median(taken) for name, taken in seconds.items()}
    print(f"\n{'medians':44}{'rows/s':>10}{'source / it':>13}{'packed / it':>13}")
    for name, value in rate.items():
        print(f"{name:44}{value:10,.0f}{rate[OURS] / value:13.2f}{rate[PACKED] / value:13.2f}")
    print("\nstages of the source, seconds of one turn")
    for frame, spent in stages.items():
        for name, value in spent.items():
            print(f"{frame + ', ' + name:74}{value:10.2f}")
    checks = []
    for frame in FRAMES:
        for peer, target in TARGETS:
            ratio = rate[frame] / rate[peer] if peer in rate else None
            met = None if ratio is None else ratio >= target
            line = {"frame": frame, "peer": peer, "ratio": ratio and round(ratio, 3), "target": target, "met": met}
            checks.append(line)
            said = "not measured" if ratio is None else f"{ratio:.2f} × it: {'met' if met else 'MISSED'}"
            print(f"{frame}, {peer}: target {target:g} ×, {said}")
    verdicts = [check["met"] for check in checks]
    return {
        "name": "load",
        "generated": True,
        "rows": count,
        "jdbc": jar.name if jar else None,
        "rows_per_second": {name: round(value) for name, value in rate.items()},
        "turns": {name: [round(value, 3) for value in taken] for name, taken in seconds.items()},
        "stages_s": {
            frame: {name: round(value, 3) for name, value in spent.items()} for frame, spent in stages.items()
        },
        "checks": checks,
        # None where nothing was missed and something was not measured.
        "met": False if False in verdicts else None if None in verdicts else True,
    }


def load_bare(dsn: str, file: Path) -> None:
    """Copy row by row, as psycopg's and pgvector's manuals do."""
    set_json_dumps(lambda text: text)
    with psycopg.connect(dsn) as connection:
        register_vector(connection)
        with connection.cursor().copy(f"copy {TABLE} from stdin (format binary)") as copy:
            copy.set_types(TYPES)
            for row in _python_rows(file):
                copy.write_row(row)


def load_many(dsn: str, file: Path) -> None:
    """Insert row by row in one batch."""
    with psycopg.connect(dsn) as connection:
        register_vector(connection)
        marks = ", ".join(["%s"] * len(TYPES))
        connection.cursor().executemany(f"insert into {TABLE} values ({marks})", _python_rows(file))


def load_columns(dsn: str, file: Path) -> None:
    """Copy what our encoder makes of each batch, straight into the table."""
    with psycopg.connect(dsn) as connection:
        columns = _columns(connection)
        with connection.cursor().copy(f"copy {TABLE} from stdin (format binary)") as copy:
            copy.write(copy_binary.SIGNATURE)
            for batch in pq.ParquetFile(file).iter_batches(10_000):
                copy.write(rows.encode(batch, columns, ["item_id"]))
            copy.write(copy_binary.TRAILER)


def load_source(spark: SparkSession, dsn: str, file: Path, timings: Path) -> None:
    """Load with the source; the folder gets a note of each of its parts."""
    timings.mkdir(exist_ok=True)
    spark.dataSource.register(type("Timed", (TimedSource,), {"folder": str(timings)}))
    options = {"url": dsn, "table": TABLE, "key": "item_id"}
    spark.read.parquet(str(file)).write.format("pgvector").options(**options).mode("append").save()


def load_jdbc(spark: SparkSession, dsn: str, file: Path, parameters: str = "", **options: str) -> None:
    """Load with Spark's JDBC writer."""
    place = psycopg.conninfo.conninfo_to_dict(dsn)
    options |= {
        # Without it text is no jsonb.
        "url": f"jdbc:postgresql://{place['host']}:{place['port']}/{place['dbname']}?{parameters}stringtype=unspecified",
        "driver": "org.postgresql.Driver",
        "dbtable": TABLE,
        "user": str(place["user"]),
        "password": str(place["password"]),
    }
    spark.read.parquet(str(file)).write.format("jdbc").options(**options).mode("append").save()


def _columns(connection: psycopg.Connection[Any]) -> tuple[Column, ...]:
    return match_writing(find_table(connection, TABLE), FIELDS)


def _python_rows(file: Path) -> Iterator[list[Any]]:
    for batch in pq.ParquetFile(file).iter_batches(10_000):
        *others, vectors = batch.columns
        if pa.types.is_binary(vectors.type):
            vectors = [np.frombuffer(vector, np.float32) for vector in vectors.to_pylist()]
        else:
            vectors = vectors.flatten().to_numpy().reshape(-1, DIMENSION)
        lists = [column.to_pylist() for column in others]
        for row, vector in zip(zip(*lists, strict=True), vectors, strict=True):
            yield [*row, HalfVector(vector)]


@dataclass
class Clock:
    """Seconds spent inside `wait`."""

    seconds: float = 0.0

    def wait(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield the items, and count how long each was waited for."""
        while True:
            start = time.perf_counter()
            item = next(items, None)
            self.seconds += time.perf_counter() - start
            if item is None:
                return
            yield item


class TimedSource(PgvectorSource):
    """The source, with a note of the time of each of its parts."""

    folder = ""

    def writer(self, schema: StructType, overwrite: bool) -> PgvectorWriter:
        """Begin a write."""
        return TimedWriter(super().writer(schema, overwrite)._write, self.folder)


class TimedWriter(PgvectorWriter):
    """Leaves a file for each task and each commit."""

    def __init__(self, write: writes.Write, folder: str) -> None:
        super().__init__(write)
        self._folder = folder

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Committed:
        """Copy a partition."""
        clock, start = Clock(), time.perf_counter()
        done = super().write(clock.wait(iterator))
        taken = time.perf_counter() - start
        context = TaskContext.get()
        assert context is not None
        note = {"tasks: Parquet to Arrow": clock.seconds, "tasks: encode and COPY into stages": taken - clock.seconds}
        self._note(f"{self._write.write_id}-{context.partitionId()}", note)
        return done

    def commit(self, messages: Any) -> None:  # noqa: ANN401
        """Move the stages."""
        start = time.perf_counter()
        super().commit(messages)
        self._note(f"{self._write.write_id}-commit", {"driver: move into the table": time.perf_counter() - start})

    def _note(self, name: str, seconds: dict[str, float]) -> None:
        Path(self._folder, f"{name}.json").write_text(json.dumps(seconds))


def _stages(timings: Path) -> dict[str, float]:
    """Return the median seconds of each part of a write; those of parallel tasks are added up."""
    by_write: dict[str, dict[str, float]] = {}
    for note in timings.glob("*.json"):
        sums = by_write.setdefault(note.name.split("-")[0], {})
        for name, seconds in json.loads(note.read_text()).items():
            sums[name] = sums.get(name, 0.0) + seconds
    names = sorted({name for sums in by_write.values() for name in sums}, reverse=True)
    return {name: statistics.median(sums.get(name, 0.0) for sums in by_write.values()) for name in names}


if __name__ == "__main__":
    main()
