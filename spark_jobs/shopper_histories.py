"""What each shopper did, in time order, put together by Spark from the event lake: what training learns from."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from spark_jobs.item_transitions import read_events


def shopper_histories(spark: SparkSession, events: Path, target: Path) -> None:
    """Write a row for each shopper; the files, by name, hold them in the order of their pseudonyms, byte by byte.

    Args:
        spark: The session.
        events: Folder of the event lake; what its manifest names is read, once all of it has been checked.
        target: Parquet to replace, with the columns user_key, item_ids, signals (as `souk.shoppers.SIGNAL`) and
            instants (microseconds since 1970), these three in time order; of one instant the lower event id is first.

    Raises:
        SoukError: The manifest or a file is missing, or a file is not the one that the manifest names.
    """
    # An array of structs is sorted by their fields, from the first.
    event = f.struct(f.unix_micros("event_at").alias("instant"), "event_id", "item_id", "signal")
    shoppers = (
        read_events(spark, events)
        .groupBy("user_key")
        .agg(f.array_sort(f.collect_list(event)).alias("events"))
        .orderBy("user_key")
    )
    columns = {"item_ids": "item_id", "signals": "signal", "instants": "instant"}
    rows = shoppers.select("user_key", *(f.col(f"events.{name}").alias(own) for own, name in columns.items()))
    rows.write.mode("overwrite").parquet(str(target))
