"""The job that puts histories together, on a real Spark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from souk.errors import SoukError
from souk.event_lake import verified_files
from spark_jobs.shopper_histories import shopper_histories
from tests.event_lakes import Event, write_lake

pytestmark = pytest.mark.slow

# In the year 1000: calendars differ, instants do not.
LONG_AGO = -30_610_224_000_000_000
HOUR = 3_600_000_000


def drawn() -> list[Event]:
    """Events of several dates in no order; many share an instant, and ids of letters of more than one byte come last."""
    chance = np.random.default_rng(0)
    return [
        (
            f"{'é' if user >= 15 else 'Z' if user >= 10 else 'a'}{user:02}",
            f"i{item}",
            LONG_AGO + hour * HOUR,
            f"{'é' if number % 3 else 'z'}{number:04}",
            int(signal),
        )
        for number, (user, item, hour, signal) in enumerate(
            chance.integers([0, 0, 0, -1], [20, 30, 50, 3], (1_000, 4)).tolist()
        )
    ]


def histories(target: Path) -> dict[str, list[tuple[str, int, int]]]:
    """Product, signal and instant of each event, by shopper, in the order of the files."""
    rows = [row for path in sorted(target.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return {row["user_key"]: list(zip(row["item_ids"], row["signals"], row["instants"], strict=True)) for row in rows}


def wanted(events: list[Event]) -> dict[str, list[tuple[str, int, int]]]:
    """The same by sorting in memory."""
    found: dict[str, list[tuple[str, int, int]]] = {}
    for user, item, instant, _, signal in sorted(events, key=lambda e: (e[0].encode(), e[2], e[3].encode())):
        found.setdefault(user, []).append((item, signal, instant))
    return found


def test_each_shopper_has_his_events_in_time_order(spark: SparkSession, tmp_path):
    events = drawn()
    write_lake(tmp_path / "events", events)
    assert len(verified_files(tmp_path / "events")) == 3
    shopper_histories(spark, tmp_path / "events", tmp_path / "histories")
    found = histories(tmp_path / "histories")
    assert sum(map(len, found.values())) == 1_000
    assert found == wanted(events)
    assert list(found) == list(wanted(events))
    # Of one instant the event with the lower id is first: with other ids it would be another order.
    renamed = [(*event[:3], f"{1_000 - number:04}", event[4]) for number, event in enumerate(events)]
    assert found != wanted(renamed)


def test_a_shop_where_nothing_happened_has_no_histories_and_a_damaged_lake_none_at_all(spark: SparkSession, tmp_path):
    write_lake(tmp_path / "events", [])
    shopper_histories(spark, tmp_path / "events", tmp_path / "histories")
    assert histories(tmp_path / "histories") == {}
    (tmp_path / "events" / "manifest.json").unlink()
    with pytest.raises(SoukError, match="There is no manifest"):
        shopper_histories(spark, tmp_path / "events", tmp_path / "histories")
