"""What the gates demand: one suite per stage, each a list of tables with the rules for their rows.

A query or a reader hands a rule only the columns that it needs. Keys that a table's own constraints hold are not
checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    import pandas as pd

DIMENSION = 384


@dataclass(frozen=True)
class Rule:
    """One expectation.

    Attributes:
        expectation: Class name in `great_expectations.expectations`.
        fault: What is wrong with the rows that break it; reads on after "3 of 10 items".
        arguments: Arguments of the class.
    """

    expectation: str
    fault: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Part:
    """One table of a suite.

    Attributes:
        name: Its key in the manifest.
        noun: What its rows are, in the plural.
        rows: A query, or a function that reads the columns that the rules need from Parquet.
        rules: Expectations beside the row count.
        may_be_empty: Whether the manifest may promise no rows.
    """

    name: str
    noun: str
    rows: sql.Composable | Callable[[], pd.DataFrame]
    rules: tuple[Rule, ...] = ()
    may_be_empty: bool = False


def _filled(column: str, fault: str) -> Rule:
    return Rule("ExpectColumnValuesToNotBeNull", fault, {"column": column})


def _between(column: str, fault: str, low: float | None, high: float | None, *, strict: bool = False) -> Rule:
    limits = {"min_value": low, "max_value": high, "strict_min": strict}
    return Rule("ExpectColumnValuesToBeBetween", fault, {"column": column, **limits})


def _unique(column: str, fault: str) -> Rule:
    return Rule("ExpectColumnValuesToBeUnique", fault, {"column": column})


def _never(column: str, fault: str) -> Rule:
    return Rule("ExpectColumnValuesToBeInSet", fault, {"column": column, "value_set": [False]})


PSEUDONYM = Rule(
    "ExpectColumnValuesToMatchRegex",
    "carry a user id that is no pseudonym",
    {"column": "user_key", "regex": "^u[0-9]+_[0-9a-f]{32}$"},
)
# The upper limit refuses infinity, and in Postgres NaN, which is larger than any number there.
POSITIVE = _between("val", "have a value that is not a positive finite number", 0, 1e9, strict=True)
UNIT_VECTORS = (
    _between("dimension", f"do not have {DIMENSION} dimensions", DIMENSION, DIMENSION),
    _filled("norm", "are not finite"),
    # Half precision moves the length a little. A zero vector would be left out of the index without a word.
    _between("norm", "are not of unit length", 0.99, 1.01),
)


def _landed(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    def rows(query: str) -> sql.Composable:
        return sql.SQL(query + " where shop = {}").format(stage["shop"])

    return (
        Part(
            "product",
            "products",
            rows("select nullif(btrim(title), '') as title, price from raw.product"),
            (_filled("title", "have no title"), _between("price", "have a negative price", 0, None)),
        ),
        Part(
            "event",
            "events",
            rows("select user_key, event_at > now() + interval '1 day' as is_future from raw.event"),
            (PSEUDONYM, _never("is_future", "lie in the future")),
        ),
        Part(
            "query",
            "queries",
            rows("select nullif(btrim(query_text), '') as query_text from raw.query"),
            (_filled("query_text", "have no text"),),
            may_be_empty=True,
        ),
        Part("review", "reviews", rows("select user_key from raw.review"), (PSEUDONYM,), may_be_empty=True),
    )


def _profiles(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    def rows(query: str) -> sql.Composable:
        return sql.SQL(query + " where mart.shop = {}").format(stage["shop"])

    return (
        Part(
            "dim_items",
            "items",
            rows(
                "select item_id, nullif(btrim(title), '') as title, text_hash, event_count from marts.dim_items as mart"
            ),
            (
                _filled("title", "have no title"),
                _unique("item_id", "share their id with another"),
                _filled("text_hash", "have no text hash"),
                _between("event_count", "have a negative number of events", 0, None),
            ),
        ),
        Part(
            "fct_interactions",
            "interactions",
            rows(
                "select mart.user_key, mart.strength, item.item_id from marts.fct_interactions as mart"
                " left join marts.dim_items as item using (shop, item_id)"
            ),
            (
                PSEUDONYM,
                _filled("item_id", "are with an unknown item"),
                _between("strength", "have a strength outside -1 to 1", -1, 1),
            ),
        ),
        Part(
            "dim_user_profiles",
            "profiles",
            rows("select user_key, event_count, sentiment from marts.dim_user_profiles as mart"),
            (
                PSEUDONYM,
                _unique("user_key", "share their shopper with another"),
                _between("event_count", "have a negative number of events", 0, None),
                _between("sentiment", "have a sentiment outside -1 to 1", -1, 1),
            ),
        ),
    )


def _encoded(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    def vectors() -> pd.DataFrame:
        return _lengths(sorted((lake / "vectors").glob("*.parquet")), "vector", lake / "items.parquet")

    rules = (
        _unique("item_id", "share their item with another"),
        _filled("known_item_id", "belong to an unknown item"),
        *UNIT_VECTORS,
    )
    return (Part("vectors", "vectors", vectors, rules),)


def _trained(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    folder = lake / "releases" / str(stage["release_id"])
    return (
        Part(
            "item",
            "items",
            lambda: _lengths([folder / "item.parquet"], "text_vector", lake / "items.parquet"),
            (_unique("item_id", "are there twice"), _filled("known_item_id", "are not in the marts"), *UNIT_VECTORS),
        ),
        Part(
            "edge",
            "edges",
            lambda: _edges(folder),
            (
                _filled("known_src", "start at an unknown item"),
                _filled("known_dst", "lead to an unknown item"),
                _never("is_loop", "lead back to where they start"),
                _filled("val", "have no value"),
                POSITIVE,
            ),
        ),
        Part(
            "weight",
            "weights",
            lambda: _read(folder / "weight.parquet", ["term", "val"]),
            (_terms(), _filled("val", "are not numbers"), _between("val", "are negative or infinite", 0, 1e9)),
        ),
    )


def _candidate(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    def rows(query: str) -> sql.Composable:
        return sql.SQL(query + " where served.release_id = {}").format(stage["release_id"])

    item = " left join serving.item as item on item.release_id = served.release_id and item.item_id = "
    return (
        Part(
            "item",
            "items",
            rows(
                "select nullif(btrim(title), '') as title, l2_norm(text_vector) as norm, popularity"
                " from serving.item as served"
            ),
            (
                _filled("title", "have no title"),
                _between("norm", "have a vector that is not of unit length", 0.99, 1.01),
                _between("popularity", "have a popularity outside 0 to 1", 0, 1),
            ),
        ),
        Part(
            "edge",
            "edges",
            rows(f"select served.val, item.item_id from serving.edge as served{item}served.dst"),
            (_filled("item_id", "lead to an unknown item"), POSITIVE),
        ),
        Part("weight", "weights", rows("select term, val from serving.weight as served"), (_terms(),)),
        Part(
            "token_vector",
            "token vectors",
            rows("select l2_norm(vec) as val from serving.token_vector as served"),
            (_between("val", "are not finite", 0, 1e9),),
        ),
        Part(
            "posting",
            "postings",
            rows(f"select served.weight as val, item.item_id from serving.posting as served{item}served.item_id"),
            (_filled("item_id", "are of an unknown item"), POSITIVE),
        ),
        Part(
            "user_profile",
            "profiles",
            rows("select user_key, cardinality(history) as history from serving.user_profile as served"),
            (PSEUDONYM, _between("history", "have more than 20 items of history", 0, 20)),
        ),
        Part("seen", "seen items", rows("select user_key from serving.seen as served"), (PSEUDONYM,)),
    )


def _terms() -> Rule:
    from ml.recommender.fusion import TERMS

    fault = "leave out a term of the score"
    return Rule("ExpectColumnDistinctValuesToContainSet", fault, {"column": "term", "value_set": list(TERMS)})


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=columns).to_pandas()


def _lengths(files: list[Path], column: str, items: Path) -> pd.DataFrame:
    """Return item_id, known_item_id, dimension and norm of every vector; norm is null where it is not finite."""
    import numpy as np
    import pandas as pd
    import pyarrow.parquet as pq

    frames = []
    for batch in (
        batch for file in files for batch in pq.ParquetFile(file).iter_batches(4096, columns=["item_id", column])
    ):
        # Lists of their own lengths: a vector that is cut short must not take numbers of its neighbour.
        vectors = batch.column(column)
        dimensions = vectors.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        values = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        owners = np.repeat(np.arange(len(dimensions)), dimensions)
        norms = np.sqrt(np.bincount(owners, values**2, minlength=len(dimensions)))
        ids = batch.column("item_id").to_pandas()
        frames.append(pd.DataFrame({"item_id": ids, "dimension": dimensions, "norm": norms}))
    frame = pd.concat(frames, ignore_index=True)
    frame["norm"] = frame["norm"].where(np.isfinite(frame["norm"]))
    known = _read(items, ["item_id"])["item_id"]
    frame["known_item_id"] = frame["item_id"].where(frame["item_id"].isin(known))
    return frame


def _edges(folder: Path) -> pd.DataFrame:
    """Return the known ends of every edge, whether it is a loop, and its value."""
    frame = _read(folder / "edge.parquet", ["src", "dst", "val"])
    known = _read(folder / "item.parquet", ["item_id"])["item_id"]
    frame["is_loop"] = frame["src"] == frame["dst"]
    for end in ("src", "dst"):
        ids = frame.pop(end)
        frame[f"known_{end}"] = ids.where(ids.isin(known))
    return frame


SUITES: dict[str, Callable[[Path, Mapping[str, Any]], tuple[Part, ...]]] = {
    "landed": _landed,
    "profiles": _profiles,
    "encoded": _encoded,
    "trained": _trained,
    "candidate": _candidate,
}
