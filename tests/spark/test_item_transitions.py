"""The job that counts transitions, on a real Spark, against the reference in `ml`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ml.recommender.edges import NEIGHBOURS, transitions
from ml.recommender.train import distinct
from souk.errors import SoukError
from souk.transitions import LIKED
from spark_jobs.item_transitions import item_transitions, main

pytestmark = pytest.mark.slow

N_ITEMS = 90


def name(item: int) -> str:
    """Names whose order is the numbers': letters of more than one byte last."""
    return f"{'é' if item >= 60 else 'z' if item >= 30 else 'A'}{item:02}"


def write(path: Path, sequences: list[list[int]]) -> Path:
    events = [
        # Three events share an instant: their ids order them.
        (shopper, name(item), 1_000_000 * (step // 3), f"{step:05}")
        for shopper, items in enumerate(sequences)
        for step, item in enumerate(items)
    ]
    shuffled = [events[place] for place in np.random.default_rng(1).permutation(len(events))]
    columns = list(zip(*shuffled, strict=True)) if shuffled else [()] * len(LIKED)
    pq.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, LIKED, strict=True)], schema=LIKED), path)
    return path


def counted(target: Path, cut: str) -> list[tuple[str, str, float]]:
    rows = [row for row in pq.read_table(target).to_pylist() if row["cut"] == cut]
    return sorted(
        ((row["item_id"], row["next_item_id"], row["val"]) for row in rows), key=lambda row: (row[0], -row[2], row[1])
    )


def test_the_edges_are_the_reference_ones(spark: SparkSession, tmp_path):
    chance = np.random.default_rng(0)
    walks = [(chance.random(chance.integers(0, 40)) ** 2 * N_ITEMS).astype(int).tolist() for _ in range(120)]
    assert any(len(set(walk)) < len(walk) for walk in walks)
    item_transitions(spark, write(tmp_path / "liked.parquet", walks), tmp_path / "edges")
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
    item_transitions(spark, write(tmp_path / "liked.parquet", pairs), tmp_path / "edges")
    kept = [other for item, other, _ in counted(tmp_path / "edges", "all") if item == name(0)]
    assert kept == [name(other) for other in range(1, NEIGHBOURS + 1)]


def test_a_shop_where_nothing_happened_has_no_edges(spark: SparkSession, tmp_path):
    item_transitions(spark, write(tmp_path / "liked.parquet", []), tmp_path / "edges")
    assert pq.read_table(tmp_path / "edges").num_rows == 0


def test_the_command_writes_and_says_what_is_wrong(spark: SparkSession, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOUK_HOME", str(tmp_path))
    liked, target = write(tmp_path / "liked.parquet", [[0, 1]]), tmp_path / "edges"
    assert main(["--liked", str(liked), "--target", str(target)]) == 0
    assert len(counted(target, "all")) == 2
    assert main(["--liked", str(tmp_path / "none"), "--target", str(target)]) == 1
    assert "Export the liked events first." in capsys.readouterr().err
    pq.write_table(pq.read_table(liked).drop_columns(["event_id"]), liked)
    with pytest.raises(SoukError, match="lacks the column event_id string"):
        item_transitions(spark, liked, target)
