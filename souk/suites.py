"""What the gates demand: one suite per stage, each a list of tables with the rules for their rows.

A query or a reader hands a rule only the columns that it needs. Keys that a table's own constraints hold are not
checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql

from souk.gate_rows import items, lists, read, texts, vectors
from souk.gate_rules import (
    HAS_WORDS,
    LISTS,
    NEIGHBOURS,
    PSEUDONYM,
    UNIT_VECTORS,
    Part,
    all_terms,
    between,
    filled,
    never,
    unique,
)

if TYPE_CHECKING:
    import pandas as pd

# Of so few products perhaps no two belong together.
FEW_ITEMS = 20


def _landed(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    def rows(query: str) -> sql.Composable:
        return sql.SQL(query + " where shop = {}").format(stage["shop"])

    return (
        Part(
            "product",
            "products",
            rows("select nullif(btrim(title), '') as title, price from raw.product"),
            (filled("title", "have no title"), between("price", "have a negative price", 0, None)),
        ),
        Part(
            "event",
            "events",
            rows("select user_key, event_at > now() + interval '1 day' as is_future from raw.event"),
            (PSEUDONYM, never("is_future", "lie in the future")),
            may_be_empty=True,
        ),
        Part(
            "query",
            "queries",
            rows("select nullif(btrim(query_text), '') as query_text from raw.query"),
            (filled("query_text", "have no text"),),
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
                filled("title", "have no title"),
                unique("item_id", "share their id with another"),
                filled("text_hash", "have no text hash"),
                between("event_count", "have a negative number of events", 0, None),
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
                filled("item_id", "are with an unknown item"),
                between("strength", "have a strength outside -1 to 1", -1, 1),
            ),
            may_be_empty=_is_without_events(stage),
        ),
        Part(
            "dim_user_profiles",
            "profiles",
            rows("select user_key, event_count, sentiment from marts.dim_user_profiles as mart"),
            (
                PSEUDONYM,
                unique("user_key", "share their shopper with another"),
                between("event_count", "have a negative number of events", 0, None),
                between("sentiment", "have a sentiment outside -1 to 1", -1, 1),
            ),
            may_be_empty=_is_without_events(stage),
        ),
    )


def _encoded(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    def encoded() -> pd.DataFrame:
        return vectors(sorted((lake / "vectors").glob("*.parquet")), "vector", lake / "items.parquet")

    rules = (
        unique("item_id", "share their item with another"),
        filled("known_item_id", "belong to an unknown item"),
        *UNIT_VECTORS,
    )
    return (Part("vectors", "vectors", encoded, rules),)


def _refined(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    from ml.refiner.verdict import LEAST_COVERAGE, LEAST_PRECISION

    settled = lake / "refined" / str(stage["release_id"])
    in_force = "from ops.refinement as r where r.shop = {0} and {1} = any(r.releases)"
    at = (stage["shop"], stage["release_id"])
    return (
        Part(
            "refined",
            "texts",
            lambda: texts(settled),
            (
                unique("item_id", "share their item with another"),
                filled("text", "are empty"),
                between("unsupported", "say what nothing supports", 0, 0),
                between("precision", "have words that nothing supports", LEAST_PRECISION, 1),
                between("coverage", "leave out facts", LEAST_COVERAGE, 1),
                never("is_refused", "are refused by the checks of the refiner"),
                never("is_without_original", "have lost their original"),
            ),
            may_be_empty=True,
        ),
        Part(
            "moved",
            "vectors of products that keep their text",
            lambda: vectors([settled / "moved.parquet"], "vector", lake / "items.parquet"),
            (
                unique("item_id", "share their item with another"),
                filled("known_item_id", "belong to an unknown item"),
                *UNIT_VECTORS,
            ),
            may_be_empty=True,
        ),
        Part(
            "ledger",
            "rows of the ledger",
            sql.SQL(
                "select r.state in ('rejected', 'reverted', 'kept_original') or exists (select from"
                " ops.refinement_rejection as n where n.shop = r.shop and n.item_id = r.item_id"
                " and n.text_hash = r.text_hash) as is_barred, i.description is distinct from r.old_text as is_lost"
                " from (select r.* " + in_force + ") as r"
                " left join marts.dim_items as i on i.shop = r.shop and i.item_id = r.item_id"
            ).format(*at),
            (
                never("is_barred", "are of a text that was rejected or reverted"),
                never("is_lost", "do not hold the original"),
            ),
            may_be_empty=True,
        ),
        Part(
            "catalogue",
            "items",
            sql.SQL(
                "select (select count(*) " + in_force + ")"
                " > {2} * count(*) over () as is_beyond from marts.dim_items as i where i.shop = {0}"
            ).format(*at, float(stage["refine_share"])),
            (never("is_beyond", "belong to a catalogue of which more is refined than may be"),),
        ),
    )


def _trained(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    folder = lake / "releases" / str(stage["release_id"])
    return (
        Part(
            "item",
            "items",
            lambda: items(folder, lake / "items.parquet"),
            (
                unique("item_id", "are there twice"),
                filled("known_item_id", "are not in the marts"),
                *UNIT_VECTORS,
                HAS_WORDS,
            ),
        ),
        Part(
            "edge",
            "neighbour lists",
            lambda: lists(folder, "edge", "dst", "val", "src"),
            (*LISTS, *NEIGHBOURS),
            may_be_empty=_is_small(stage),
        ),
        Part(
            "weight",
            "weights",
            lambda: read(folder / "weight.parquet", ["term", "val"]),
            (all_terms(), filled("val", "are not numbers"), between("val", "are negative or infinite", 0, 1e9)),
        ),
        Part("term", "terms", lambda: lists(folder, "term", "item_nos", "weights"), LISTS),
    )


def _candidate(lake: Path, stage: Mapping[str, Any]) -> tuple[Part, ...]:
    def rows(query: str) -> sql.Composable:
        return sql.SQL(query + " where served.release_id = {0}").format(stage["release_id"], stage["shop"])

    # Products are numbered from 0 without a gap, so a number is known if it is less than how many there are.
    items = " cross join (select count(*) as number from serving.item as i where i.release_id = {0}) as items"

    def listed(table: str, numbers: str, values: str, columns: str) -> sql.Composable:
        return rows(
            f"select {columns} l.lowest, l.highest, l.is_repeated, l.lowest_no < 0 or l.highest_no >= items.number"
            f" as is_unknown from serving.{table} as served{items} cross join lateral ("
            "select min(t.val) as lowest, max(t.val) as highest, min(t.item_no) as lowest_no,"
            " max(t.item_no) as highest_no, count(distinct t.item_no) < count(*) as is_repeated"
            # Side by side in the select list: in `from` each list would be written to a table of its own first.
            f" from (select unnest(served.{numbers}) as item_no, unnest(served.{values}) as val) as t) as l"
        )

    unknown = (
        "exists (select from unnest(served.{0}) as t (item_no) where t.item_no not between 0 and items.number - 1)"
    )
    return (
        Part(
            "release",
            "releases",
            rows(
                "select (served.metrics ->> 'index_recall')::double precision as recall,"
                " (served.metrics ->> 'sequence_recall')::double precision as sequence_recall"
                " from serving.release as served"
            ),
            (
                filled("recall", "have an index of texts that was not compared with an exact search"),
                between("recall", "have an index that finds fewer than 9 of 10 of the nearest items", 0.9, 1),
                filled(
                    "sequence_recall", "have an index of the sequence model that was not compared with an exact search"
                ),
                between(
                    "sequence_recall", "have an index that finds fewer than 9 of 10 of the likeliest items", 0.9, 1
                ),
            ),
        ),
        Part(
            "item",
            "items",
            rows(
                "select nullif(btrim(served.title), '') as title, l2_norm(served.text_vector) as norm,"
                " l2_norm(served.sequence_input) + l2_norm(served.sequence_output) as sequence_norm,"
                " served.popularity, l2_norm(served.lexical) as words, served.item_no >= items.number as is_beyond,"
                " served.is_refined <> (r.item_id is not null) or o.description is distinct from r.old_text"
                " or r.new_text <> served.description as is_unproven"
                f" from serving.item as served{items} left join ops.refinement as r on r.shop = {{1}}"
                " and r.item_id = served.item_id and {0} = any(r.releases) and r.state in ('proposed', 'published')"
                " left join serving.original as o on o.release_id = {0} and o.item_no = served.item_no"
            ),
            (
                filled("title", "have no title"),
                between("norm", "have a vector that is not of unit length", 0.99, 1.01),
                filled("sequence_norm", "have no vectors of the sequence model, or ones that are not finite"),
                between("popularity", "have a popularity outside 0 to 1", 0, 1),
                never("is_beyond", "have a number beyond the last"),
                never("is_unproven", "have a text that is not that of the ledger"),
                HAS_WORDS,
            ),
        ),
        Part(
            "original",
            "originals",
            rows(
                "select coalesce(not i.is_refined, true) as is_stray from serving.original as served left join"
                " serving.item as i on i.release_id = {0} and i.item_no = served.item_no"
            ),
            (never("is_stray", "belong to no refined item"),),
            may_be_empty=True,
        ),
        Part(
            "position_weight",
            "position weights",
            rows("select vector_norm(served.vec) as norm from serving.position_weight as served"),
            (
                filled("norm", "are not finite"),
                between("norm", "are infinite", 0, 1e6),
            ),
        ),
        Part(
            "popularity",
            "lists of popularity",
            rows(
                "select exists (select from unnest(served.first_nos, served.vals) as step (first_no, val) full join ("
                "select i.popularity, min(i.item_no) as first_no, max(i.item_no) as last_no, count(*) as number"
                " from serving.item as i where i.release_id = {0} group by i.popularity) as i"
                " on i.popularity = step.val where step.val is null or i.popularity is null and step.val <> 0"
                " or i.first_no <> step.first_no or i.last_no - i.first_no + 1 <> i.number) as is_wrong"
                " from serving.popularity as served"
            ),
            (never("is_wrong", "disagree with the items"),),
        ),
        Part(
            "edge",
            "neighbour lists",
            listed(
                "edge",
                "dst",
                "val",
                "served.src = any(served.dst) as is_loop, served.src not between 0 and items.number - 1 as is_stray,",
            ),
            (never("is_stray", "are of an unknown item"), *LISTS, *NEIGHBOURS),
            may_be_empty=_is_small(stage),
        ),
        Part("weight", "weights", rows("select served.term from serving.weight as served"), (all_terms(),)),
        Part(
            "term",
            "terms",
            listed("term", "item_nos", "weights", "served.term_no, served.idf, l2_norm(served.vec) as norm,"),
            (
                *LISTS,
                unique("term_no", "share their number with another"),
                between("idf", "have an infinite weight", 0, 1e9),
                between("norm", "have a vector that is not finite", 0, 1e9),
            ),
        ),
        Part(
            "spelling",
            "spellings",
            rows(
                "select exists (select from unnest(served.terms) as t (term) where not exists (select from serving.term"
                " as known where known.release_id = {0} and known.term = t.term)) as is_unknown"
                " from serving.spelling as served"
            ),
            (never("is_unknown", "lead to an unknown term"),),
            may_be_empty=True,
        ),
        Part(
            "category",
            "categories",
            rows("select served.bias from serving.category as served"),
            (between("bias", "have a bias that is not finite", -1e9, 1e9),),
            may_be_empty=True,
        ),
        Part(
            "item_day",
            "days of items",
            rows(f"select served.item_no >= items.number as is_unknown from serving.item_day as served{items}"),
            (never("is_unknown", "are of an unknown item"),),
            may_be_empty=True,
        ),
        Part(
            "user_profile",
            "profiles",
            rows(
                "select served.user_key, served.shop <> {1} as is_foreign, cardinality(served.history) as history,"
                " cardinality(served.disliked) as disliked, "
                + " or ".join(unknown.format(column) for column in ("history", "seen", "disliked"))
                + f" as is_unknown from serving.user_profile as served{items}"
            ),
            (
                PSEUDONYM,
                never("is_foreign", "belong to another shop"),
                between("history", "have more than 20 items of history", 0, 20),
                between("disliked", "have more than 20 disliked items", 0, 20),
                never("is_unknown", "name an unknown item"),
            ),
            may_be_empty=_is_without_events(stage),
        ),
    )


def _is_without_events(stage: Mapping[str, Any]) -> bool:
    """Tell whether the shop has landed no events: it may have reviews and searches, or nothing but products yet."""
    return stage.get("events") == 0


def _is_small(stage: Mapping[str, Any]) -> bool:
    return 0 < int(stage["rows"].get("item", 0)) < FEW_ITEMS


SUITES: dict[str, Callable[[Path, Mapping[str, Any]], tuple[Part, ...]]] = {
    "landed": _landed,
    "profiles": _profiles,
    "encoded": _encoded,
    "refined": _refined,
    "trained": _trained,
    "candidate": _candidate,
}
