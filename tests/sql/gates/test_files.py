"""Diseases of files: each is named by the gate that looks at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from souk import suites
from souk.gates import GateFailed, _evaluate, _Findings, check
from souk.refinement import IN_FORCE
from tests.conftest import sampled
from tests.sql.gates.sound import ITEMS, RELEASE, SHOP, TEXT, red, refined, stage, vectors, write_lists


def poison(lake: Path, table: str, column: str, value: list[float]) -> None:
    """Put a list in place of the first one of a file."""
    path = lake / SHOP / "releases" / RELEASE / f"{table}.parquet"
    columns = pq.read_table(path).to_pydict()
    columns[column][0] = value
    write_lists(path, columns)


def gates_faults(dsn: str, lake: Path) -> str:
    """Return all that the gate of texts finds; its verdict names the first fault."""
    findings = _Findings()
    _evaluate(dsn, suites.SUITES["refined"](lake / SHOP, stage("refined")), stage("refined")["rows"], findings)
    return "; ".join(findings.faults)


def not_finite(vector: np.ndarray) -> np.ndarray:
    return np.where(np.arange(vector.size) == 7, np.nan, vector).astype(np.float32)


@pytest.mark.parametrize(
    ("poison", "fault"),
    sampled(
        [
            (not_finite, "1 of 20 vectors are not finite"),
            (lambda vector: vector * 0, "1 of 20 vectors are not of unit length"),
            (lambda vector: vector * np.float32(3e38) * 2, "1 of 20 vectors are not"),
            (lambda vector: vector[:100], "1 of 20 vectors do not have 384 dimensions"),
        ],
        3,
    ),
)
def test_a_poisoned_vector_is_named(
    database: str, lake: Path, poison: Callable[[np.ndarray], np.ndarray], fault: str
) -> None:
    poisoned = [np.asarray(vector, np.float32) for vector in vectors()["vector"].to_pylist()]
    with np.errstate(over="ignore", invalid="ignore"):
        poisoned[3] = poison(poisoned[3])
    table = pa.table({"item_id": ITEMS, "vector": pa.array(poisoned, pa.list_(pa.float32()))})
    pq.write_table(table, lake / SHOP / "vectors" / "part-0.parquet")
    assert fault in red(database, lake, "encoded")


def test_a_foreign_and_a_repeated_item_are_counted(database: str, lake: Path) -> None:
    pq.write_table(vectors(item_id=[*ITEMS[:-2], "stranger", ITEMS[0]]), lake / SHOP / "vectors" / "part-0.parquet")
    verdict = red(database, lake, "encoded")
    assert "and 1 more fault" in verdict
    assert "stranger" not in verdict


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    sampled(
        [
            ("val", [0.5, float("nan")], "have a value that is not finite"),
            ("val", [0.5, float("inf")], "have a value that is not finite"),
            ("val", [0.5, 0.0], "have a value that is not positive"),
            ("dst", [1, 20], "name an unknown item"),
            ("dst", [1, -1], "name an unknown item"),
            ("dst", [1, 1], "name an item twice"),
            ("dst", [1, 0], "lead back to where they start"),
        ],
        3,
    ),
)
def test_a_poisoned_edge_is_named(database: str, lake: Path, column: str, value: list[float], fault: str) -> None:
    poison(lake, "edge", column, value)
    assert f"1 of 19 neighbour lists {fault}" in red(database, lake, "trained")


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    sampled(
        [
            ("item_nos", [3, 20], "name an unknown item"),
            ("weights", [0.7, float("nan")], "have a value that is not finite"),
        ],
        3,
    ),
)
def test_a_poisoned_term_is_named(database: str, lake: Path, column: str, value: list[float], fault: str) -> None:
    poison(lake, "term", column, value)
    assert f"1 of 2 terms {fault}" in red(database, lake, "trained")


def test_a_neighbour_without_a_value_is_red(database: str, lake: Path) -> None:
    poison(lake, "edge", "val", [0.5])
    assert "the gate trained did not evaluate (ValueError)" in red(database, lake, "trained")


def test_an_empty_list_of_neighbours_is_named(database: str, lake: Path) -> None:
    poison(lake, "edge", "dst", [])
    poison(lake, "edge", "val", [])
    assert "1 of 19 neighbour lists are empty" in red(database, lake, "trained")


def test_items_without_words_are_named(database: str, lake: Path) -> None:
    path = lake / SHOP / "releases" / RELEASE / "item.parquet"
    items = pq.read_table(path)
    words = pa.array([[]] + [[0.5]] * 19, pa.list_(pa.float32()))
    pq.write_table(items.set_column(items.schema.get_field_index("lexical_values"), "lexical_values", words), path)
    assert "1 of 20 items have no words to be found by" in red(database, lake, "trained")


def test_a_missing_file_is_red(database: str, lake: Path) -> None:
    (lake / SHOP / "releases" / RELEASE / "edge.parquet").unlink()
    assert red(database, lake, "trained") == "Blocked: the gate trained did not evaluate (FileNotFoundError)"


@pytest.mark.parametrize(
    ("columns", "fault"),
    sampled(
        [
            ({"text": " "}, "1 of 1 texts are empty"),
            ({"text": f"{TEXT} It cures headaches."}, "1 of 1 texts say what nothing supports"),
            ({"text": TEXT.replace("500", "750")}, "1 of 1 texts say what nothing supports"),
            ({"text": f"{TEXT} Waterproof."}, "1 of 1 texts say what nothing supports"),
            ({"text": "Green tea."}, "1 of 1 texts leave out facts"),
            ({"text": "绿茶。"}, "1 of 1 texts are refused by the checks of the refiner"),
            ({"text": f"{TEXT} " * 90}, "1 of 1 texts are refused by the checks of the refiner"),
            ({"original": ""}, "1 of 1 texts have lost their original"),
        ],
        3,
    ),
)
def test_a_poisoned_text_is_named(sound: str, lake: Path, columns: dict[str, str], fault: str) -> None:
    path = lake / SHOP / "refined" / RELEASE / "texts.parquet"
    pq.write_table(pa.Table.from_pylist([refined(**columns)], IN_FORCE), path)
    with pytest.raises(GateFailed):
        check(sound, lake, "refined", stage("refined"))
    found = gates_faults(sound, lake)
    assert fault in found


@pytest.mark.parametrize(
    ("columns", "fault"),
    sampled(
        [
            ({"vector": [[float("nan")] * 384]}, "1 of 1 vectors of products that keep their text are not finite"),
            ({"vector": [[0.0] * 384]}, "1 of 1 vectors of products that keep their text are not of unit length"),
            ({"item_id": ["stranger"]}, "1 of 1 vectors of products that keep their text belong to an unknown item"),
        ],
        3,
    ),
)
def test_a_poisoned_moved_vector_is_named(sound: str, lake: Path, columns: dict[str, list[object]], fault: str) -> None:
    path = lake / SHOP / "refined" / RELEASE / "moved.parquet"
    table = pa.table({**pq.read_table(path).to_pydict(), **columns})
    pq.write_table(table, path)
    assert fault in red(sound, lake, "refined")


def test_texts_that_are_gone_are_missed(sound: str, lake: Path) -> None:
    (lake / SHOP / "refined" / RELEASE / "texts.parquet").unlink()
    assert red(sound, lake, "refined") == "Blocked: the gate refined did not evaluate (FileNotFoundError)"
