"""The job that counts transitions, on a real Spark, against the reference in `ml`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ml.recommender.edges import NEIGHBOURS, transitions
from ml.recommender.train import distinct
from souk.errors import SoukError
from souk.event_lake import verified_files
from spark_jobs.item_transitions import item_transitions, main
from tests.event_lakes import write_lake

pytestmark = pytest.mark.slow

N_ITEMS = 90
# In the year 1000: calendars differ, orders do not.
LONG_AGO = -30_610_224_000_000_000
HOUR = 3_600_000_000


def name(item: int) -> str:
    """Names whose order is the numbers': letters of more than one byte last."""
    return f"{'é' if item >= 60 else 'z' if item >= 30 else 'A'}{item:02}"


def write(folder: Path, sequences: list[list[int]], between: int = 1_000_000) -> Path:
    """A lake of these sequences; `between` microseconds lie between instants, the first of which is long ago."""
    events = [
        # Three events share an instant: their ids order them.
        (f"u{shopper}", name(item), LONG_AGO + between * (step // 3), f"{step:05}", 1 + step % 2)
        for shopper, items in enumerate(sequences)
        for step, item in enumerate(items)
    ]
    write_lake(folder, [events[place] for place in np.random.default_rng(1).permutation(len(events))])
    return folder


def counted(target: Path, cut: str) -> list[tuple[str, str, float]]:
    rows = [row for row in pq.read_table(target).to_pylist() if row["cut"] == cut]
    return sorted(
        ((row["item_id"], row["next_item_id"], row["val"]) for row in rows), key=lambda row: (row[0], -row[2], row[1])
    )


def test_the_edges_are_the_reference_ones(spark: SparkSession, tmp_path):
    chance = np.random.default_rng(0)
    walks = [(chance.random(chance.integers(0, 40)) ** 2 * N_ITEMS).astype(int).tolist() for _ in range(120)]
    assert any(len(set(walk)) < len(walk) for walk in walks)
    lake = write(tmp_path / "events", walks, 5 * HOUR)
    assert len(verified_files(lake)) == 3
    item_transitions(spark, lake, tmp_path / "edges")
    firsts = [distinct(walk) for walk in walks]
    for cut, sequences in {"all": firsts, "held": [items[:-1] for items in firsts]}.items():
        wanted = transitions(sequences, N_ITEMS)
        found = counted(tmp_path / "edges", cut)
        assert np.bincount(wanted.src).max() == NEIGHBOURS
        pairs = zip(wanted.src.tolist(), wanted.dst.tolist(), strict=True)
        assert [row[:2] for row in found] == [(name(src), name(dst)) for src, dst in pairs]
        assert [row[2] for row in found] == pytest.approx(wanted.val.tolist(), abs=1e-6)


def test_of_equally_strong_edges_the_lower_ids_stay(spark: SparkSession, tmp_path):
    pairs = [[0, other] for other in range(NEIGHBOURS + 9, 0, -1)]
    item_transitions(spark, write(tmp_path / "events", pairs), tmp_path / "edges")
    kept = [other for item, other, _ in counted(tmp_path / "edges", "all") if item == name(0)]
    assert kept == [name(other) for other in range(1, NEIGHBOURS + 1)]


def test_a_shop_where_nothing_happened_has_no_edges(spark: SparkSession, tmp_path):
    item_transitions(spark, write(tmp_path / "events", []), tmp_path / "edges")
    assert pq.read_table(tmp_path / "edges").num_rows == 0


def test_only_what_the_manifest_names_is_counted(spark: SparkSession, tmp_path):
    lake = write(tmp_path / "events", [[0, 1]])
    stray = write(tmp_path / "stray", [[2, 3]])
    for file in verified_files(stray):
        file.rename(lake / file.parent.name / file.name)
    item_transitions(spark, lake, tmp_path / "edges")
    assert [row[:2] for row in counted(tmp_path / "edges", "all")] == [(name(0), name(1)), (name(1), name(0))]


def test_what_is_not_liked_is_no_step(spark: SparkSession, tmp_path):
    events = [("u", name(item), item, f"{item}", -1 if item == 1 else 1) for item in range(3)]
    write_lake(tmp_path / "events", events)
    item_transitions(spark, tmp_path / "events", tmp_path / "edges")
    assert [row[:2] for row in counted(tmp_path / "edges", "all")] == [(name(0), name(2)), (name(2), name(0))]


def test_the_command_writes_and_says_what_is_wrong(spark: SparkSession, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOUK_HOME", str(tmp_path))
    lake, target = write(tmp_path / "events", [[0, 1]]), tmp_path / "edges"
    assert main(["--events", str(lake), "--target", str(target)]) == 0
    assert len(counted(target, "all")) == 2
    assert main(["--events", str(tmp_path / "none"), "--target", str(target)]) == 1
    assert "run the training with SOUK_EDGES=spark" in capsys.readouterr().err
    before = sorted(target.iterdir())
    verified_files(lake)[0].unlink()
    with pytest.raises(SoukError, match="is missing"):
        item_transitions(spark, lake, target)
    assert sorted(target.iterdir()) == before
