"""Which product follows which, counted by Spark from the event lake: `fct_item_transitions` on many machines."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as f
from pyspark.sql.pandas.types import from_arrow_schema

from ml.recommender.edges import DEGREE_EXPONENT, GAP_EXPONENT, MAX_GAP, NEIGHBOURS, REVERSE
from souk.errors import SoukError
from souk.event_lake import EVENTS, verified_files
from souk.settings import Settings
from spark_jobs.session import spark_session

CUTS = {"all": 0, "held": 1}


def item_transitions(spark: SparkSession, events: Path, target: Path) -> None:
    """Write the edges of both cuts: `all`, and `held`, without each shopper's last new product.

    The edges are those of `ml.recommender.edges.transitions`; every sum has the order that it has there, so that a
    second run writes the same. Of equally strong edges the lower id is kept, byte by byte.

    Args:
        spark: The session.
        events: Folder of the event lake; what its manifest names is read, once all of it has been checked.
        target: Parquet to replace, with the columns cut, item_id, next_item_id and val.

    Raises:
        SoukError: The manifest or a file is missing, or a file is not the one that the manifest names.
    """
    firsts = _first_liked(read_events(spark, events).where(f.col("signal") > 0))
    cuts = [
        firsts.where(f.col("position") <= f.col("item_count") - left_out).withColumn("cut", f.lit(cut))
        for cut, left_out in CUTS.items()
    ]
    sequences = reduce(DataFrame.unionByName, cuts)
    damping = sequences.groupBy("cut", "item_id").agg(
        f.pow(f.count("*") + f.lit(1.0), f.lit(DEGREE_EXPONENT)).alias("damping")
    )
    ahead = Window.partitionBy("cut", "user_key").orderBy("position")
    later = f.array(*(f.lead("item_id", gap).over(ahead) for gap in range(1, MAX_GAP + 1)))
    followed = (
        sequences.select("cut", "item_id", later.alias("later"))
        .select("cut", "item_id", f.posexplode("later").alias("before_gap", "next_item_id"))
        .where("next_item_id is not null")
    )
    forwards = followed.groupBy("cut", "item_id", "next_item_id").agg(_weight(f.col("before_gap")).alias("weight"))
    backwards = forwards.select(
        "cut",
        f.col("next_item_id").alias("item_id"),
        f.col("item_id").alias("next_item_id"),
        (f.lit(REVERSE) * f.col("weight")).alias("weight"),
    )
    pairs = (
        forwards.unionByName(backwards).groupBy("cut", "item_id", "next_item_id").agg(f.sum("weight").alias("weight"))
    )
    of_next = damping.select("cut", f.col("item_id").alias("next_item_id"), f.col("damping").alias("next_damping"))
    valued = pairs.join(damping, ["cut", "item_id"]).join(of_next, ["cut", "next_item_id"])
    val = (f.col("weight") * f.col("damping") * f.col("next_damping")).cast("float")
    strongest = Window.partitionBy("cut", "item_id").orderBy(f.desc("val"), "next_item_id")
    kept = valued.withColumn("val", val).withColumn("place", f.row_number().over(strongest))
    kept = kept.where(f.col("place") <= NEIGHBOURS).select("cut", "item_id", "next_item_id", "val")
    kept.write.mode("overwrite").parquet(str(target))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job by itself; returns the exit status."""
    settings = Settings.from_env()
    parser = argparse.ArgumentParser(
        prog="python -m spark_jobs.item_transitions", description="Count what follows what."
    )
    parser.add_argument("--events", type=Path, required=True, help="folder of the event lake")
    parser.add_argument("--target", type=Path, required=True, help="Parquet to write")
    parser.add_argument("--master", default=settings.spark_master, help="where Spark runs")
    options = parser.parse_args(argv)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    try:
        item_transitions(
            spark_session("souk-item-transitions", options.master, settings.home, is_heavy=True),
            options.events,
            options.target,
        )
    except SoukError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def read_events(spark: SparkSession, events: Path) -> DataFrame:
    """Return the events of a lake, of the columns `EVENTS`.

    Raises:
        SoukError: As `verified_files`.
    """
    files, schema = verified_files(events), from_arrow_schema(EVENTS)
    if not files:
        return spark.createDataFrame([], schema)
    # Without the option Spark may refuse times before 1900, which old calendars tell otherwise.
    return spark.read.schema(schema).option("datetimeRebaseMode", "CORRECTED").parquet(*map(str, files))


def _first_liked(events: DataFrame) -> DataFrame:
    """Return each product of each shopper once, with its position in time order."""
    in_time = ("event_at", "event_id")
    again = Window.partitionBy("user_key", "item_id").orderBy(*in_time)
    firsts = events.withColumn("occurrence", f.row_number().over(again)).where("occurrence = 1")
    return firsts.select(
        "user_key",
        "item_id",
        f.row_number().over(Window.partitionBy("user_key").orderBy(*in_time)).alias("position"),
        f.count("*").over(Window.partitionBy("user_key")).alias("item_count"),
    )


def _weight(before_gap: Column) -> Column:
    """Return what the distances of a pair sum to; they are counted first, as sums of fractions depend on the order."""
    return reduce(
        add, (f.count_if(before_gap == gap - 1) * f.lit(float(gap) ** GAP_EXPONENT) for gap in range(1, MAX_GAP + 1))
    )


if __name__ == "__main__":
    sys.exit(main())
