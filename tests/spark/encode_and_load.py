"""Encode a catalogue and load its vectors, in a process of its own that may end at any moment.

Arguments: Spark's master, a folder with `items.parquet` and the model `tiny`, a DSN with the table `item_vector`, and
where the process kills itself: `manifest` (the new vectors are written), `swap` (the old ones are put aside), or `-`.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

from pyspark.sql import SparkSession

from spark_jobs import encode_items as job
from spark_jobs.pgvector.source import PgvectorSource
from spark_jobs.session import spark_session
from spark_jobs.text_vectors import EncodeReport, TextModel, aside

ROWS_PER_TASK = 40


def encode(spark: SparkSession, folder: Path) -> EncodeReport:
    """Bring `vectors` in the folder up to date."""
    model = TextModel(str(folder / "tiny"), "int8", 16, folder / "models", "passage")
    return job.encode_items(folder / "items.parquet", folder / "vectors", model, lambda: nullcontext(spark), few=0)


def load(spark: SparkSession, folder: Path, dsn: str) -> None:
    """Replace what the table holds."""
    spark.dataSource.register(PgvectorSource)
    vectors = spark.read.parquet(str(folder / "vectors"), pathGlobFilter="*.parquet")
    rows = vectors.select("item_id", "text_hash", "terms", "vector").repartition(4)
    rows.write.format("pgvector").options(url=dsn, table="item_vector").mode("overwrite").save()


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _swap_by_half(unfinished: Path, vectors: Path) -> None:
    vectors.rename(aside(vectors))
    _die()


if __name__ == "__main__":
    master, place, url, point = sys.argv[1:]
    job.ROWS_PER_TASK = ROWS_PER_TASK
    if point == "manifest":
        job.write_manifest = _die
    if point == "swap":
        job.swap = _swap_by_half
    session = spark_session("souk-tests", master, Path(place))
    encode(session, Path(place))
    load(session, Path(place), url)
    session.stop()
