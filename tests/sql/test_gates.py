"""The gates on real tables and files: green on sound data, red on each disease, and red when they cannot look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from souk import gates, suites
from souk.artefacts import TABLES
from souk.errors import SoukError
from souk.gates import GateFailed, Verdict, check

# A quote and a colon: both mean something in SQL text.
SHOP = "o'shop:a"
RELEASE = "shop-1"
USERS = [f"u1_{number:032x}" for number in range(3)]
ITEMS = [f"i{number}" for number in range(20)]
ROWS = {
    "landed": {"product": 20, "event": 60, "query": 1, "review": 0},
    "profiles": {"dim_items": 20, "fct_interactions": 60, "dim_user_profiles": 3, "fct_searches": 1},
    "encoded": {"vectors": 20},
    "trained": {"item": 20, "edge": 19, "weight": 4, "term": 2, "events": 60},
    "candidate": {
        "item": 20,
        "popularity": 1,
        "edge": 19,
        "weight": 4,
        "term": 2,
        "spelling": 1,
        "category": 1,
        "item_day": 1,
        "user_profile": 3,
        "events": 60,
    },
}


def stage(gate: str, **rows: int) -> dict[str, Any]:
    return {"shop": SHOP, "run_id": "run", "release_id": RELEASE, "rows": {**ROWS[gate], **rows}}


def vectors(**columns: Any) -> pa.Table:
    unit = np.zeros((len(ITEMS), 384), np.float32)
    unit[:, 0] = 1
    return pa.table({"item_id": ITEMS, "vector": pa.array(list(unit), pa.list_(pa.float32())), **columns})


def write_lists(path: Path, columns: dict[str, Any]) -> None:
    types = {"dst": pa.int32(), "item_nos": pa.int32(), "val": pa.float32(), "weights": pa.float32()}
    pq.write_table(
        pa.table(
            {name: pa.array(rows, pa.list_(types[name])) if name in types else rows for name, rows in columns.items()}
        ),
        path,
    )


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """The files of a sound release."""
    folder = tmp_path / SHOP
    release = folder / "releases" / RELEASE
    for each in (folder / "vectors", release):
        each.mkdir(parents=True)
    pq.write_table(pa.table({"item_id": ITEMS}), folder / "items.parquet")
    pq.write_table(vectors(), folder / "vectors" / "part-0.parquet")
    words = pa.array([[0.5, 1.5]] * 20, pa.list_(pa.float32()))
    items = vectors(lexical_values=words).rename_columns(["item_id", "text_vector", "lexical_values"])
    pq.write_table(items, release / "item.parquet")
    edges = {"src": pa.array(range(19), pa.int32()), "dst": [[n + 1, 0] if n else [1, 2] for n in range(19)]}
    write_lists(release / "edge.parquet", {**edges, "val": [[0.5, 0.25]] * 19})
    write_lists(release / "term.parquet", {"item_nos": [[3, 1], []], "weights": [[0.7, 0.6], []]})
    weights = {"term": ["transition", "tfidf", "encoder", "popularity"], "val": [1.0, 0.5, 0.0, 0.2]}
    pq.write_table(pa.table(weights), release / "weight.parquet")
    return tmp_path


@pytest.fixture
def sound(database: str) -> str:
    """A database with a sound shop in `raw`, `marts` and `serving`."""
    unit = "('[1' || repeat(',0', 383) || ']')::halfvec"
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into raw.landing (shop, source, manifest_hash, is_generated, has_clock, state)"
            " values (%s, 'files', 'h', false, true, 'complete')",
            [SHOP],
        )
        for item in ITEMS:
            connection.execute(
                "insert into raw.product (shop, item_id, title, price, landing_no)"
                " select %s, %s, 'Tea', 3, landing_no from raw.landing",
                [SHOP, item],
            )
        connection.execute(
            "insert into raw.event (shop, event_id, user_key, item_id, kind, event_at, landing_no)"
            " select shop, u || item_id, u, item_id, 'view', '2026-01-01', landing_no"
            " from raw.product, unnest(%s::text[]) as u",
            [USERS],
        )
        connection.execute(
            "insert into raw.query (shop, query_id, query_text, lang, searched_at, landing_no)"
            " select shop, 'q', 'tea', 'en', '2026-01-01', landing_no from raw.landing"
        )
        connection.execute(
            "create schema marts;"
            " create table marts.dim_items as"
            " select shop, item_id, title, md5(title) as text_hash, 3 as event_count from raw.product;"
            " create table marts.fct_interactions as"
            " select shop, event_id, user_key, item_id, 0.4::real as strength from raw.event;"
            " create table marts.dim_user_profiles as"
            " select shop, user_key, count(*) as event_count, 0.1::real as sentiment from raw.event group by 1, 2"
        )
        for table in TABLES:
            connection.execute(
                f"create table serving.{table}_1 partition of serving.{table} for values in ('{RELEASE}')"
            )
        connection.execute(
            "insert into serving.item (release_id, item_no, item_id, title, description, categories, lang, key_terms,"
            f" popularity, text_vector, lexical) select '{RELEASE}', substr(item_id, 2)::int, item_id, title, '', '{{}}',"
            f" 'en', '{{}}', 0.5, {unit}, '{{1:0.5,7:1.5}}/1000000000' from raw.product;"
            f" insert into serving.popularity values ('{RELEASE}', '{{0,20}}', '{{0.5,0}}');"
            f" insert into serving.edge select '{RELEASE}', n, 'encoder', array[n + 1, (n + 19) % 20], '{{0.5,0.25}}'"
            " from generate_series(0, 18) as n;"
            f" insert into serving.weight select '{RELEASE}', term, 1, 0.5"
            " from unnest('{transition,tfidf,encoder,popularity}'::text[]) as term;"
            f" insert into serving.term values ('{RELEASE}', 'tea', 1, 20, 0.1, '{{3,1}}', '{{0.7,0.6}}', {unit}),"
            f" ('{RELEASE}', '#te', 2, 20, 0.1, '{{}}', '{{}}', null);"
            f" insert into serving.spelling values ('{RELEASE}', 'te', '{{tea}}');"
            f" insert into serving.category values ('{RELEASE}', 'query', 'Tea', 0.1, {unit}::vector);"
            f" insert into serving.item_day values ('{RELEASE}', '2026-01-01', 3, 2)"
        )
        connection.execute(
            f"insert into serving.user_profile select '{RELEASE}', shop, user_key, '{{1}}', '{{1,2}}', '{{2}}', {unit},"
            " null, '{}' from marts.dim_user_profiles"
        )
    return database


def execute(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def red(dsn: str, lake: Path, gate: str, **rows: int) -> str:
    """Return the verdict of a gate that has to be red, as it was recorded."""
    with pytest.raises(GateFailed) as failed:
        check(dsn, lake, gate, stage(gate, **rows))
    recorded = execute(dsn, f"select is_passed, verdict from ops.gate_result where gate = '{gate}'")
    assert recorded == [(False, failed.value.cause)]
    return failed.value.cause


@pytest.mark.parametrize("gate", suites.SUITES)
def test_sound_data_passes(sound: str, lake: Path, gate: str) -> None:
    verdict = check(sound, lake, gate, stage(gate))
    assert verdict.is_passed
    assert verdict.sentence.startswith("Passed: ")
    recorded = execute(sound, "select shop, run_id, gate, is_passed, evaluated, verdict from ops.gate_result")
    assert recorded == [(SHOP, "run", gate, True, verdict.evaluated, verdict.sentence)]


DISEASES = [
    ("landed", "update raw.product set title = ' ' where item_id < 'i12'", "4 of 20 products have no title"),
    ("landed", "update raw.product set price = -1 where item_id = 'i1'", "1 of 20 products have a negative price"),
    ("landed", "delete from raw.event where item_id = 'i1'", "there are 57 events, but the manifest promises 60"),
    ("landed", "update raw.event set event_at = '2999-01-01' where item_id = 'i1'", "3 of 60 events lie in the future"),
    (
        "landed",
        "update raw.event set user_key = 'wang@example.com' where item_id = 'i1'",
        "3 of 60 events carry a user id that is no pseudonym",
    ),
    ("profiles", "truncate marts.fct_interactions", "there are 0 interactions, but the manifest promises 60"),
    ("profiles", "update marts.dim_items set item_id = 'i1' where item_id = 'i2'", "2 of 20 items share their id"),
    (
        "profiles",
        "update marts.fct_interactions set item_id = 'x' where item_id = 'i1'",
        "3 of 60 interactions are with",
    ),
    (
        "profiles",
        "update marts.dim_user_profiles set sentiment = 7",
        "3 of 3 profiles have a sentiment outside -1 to 1",
    ),
    (
        "candidate",
        "update serving.item set text_vector = text_vector * text_vector - text_vector where item_no < 4",
        "4 of 20 items have a vector that is not of unit length",
    ),
    (
        "candidate",
        "update serving.item set lexical = '{}/1000000000' where item_no = 3",
        "1 of 20 items have no words to be found by",
    ),
    ("candidate", "update serving.item set item_no = 20 where item_no = 3", "1 of 20 items have a number beyond"),
    (
        "candidate",
        "update serving.popularity set first_nos[1] = 1",
        "1 of 1 lists of popularity disagree with the items",
    ),
    ("candidate", "update serving.popularity set vals[1] = 0.4", "1 of 1 lists of popularity disagree with the items"),
    ("candidate", "update serving.item set popularity = 0 where item_no = 3", "1 of 1 lists of popularity disagree"),
    (
        "candidate",
        "update serving.edge set val[2] = 'NaN' where src = 1",
        "1 of 19 neighbour lists have a value that is not finite",
    ),
    (
        "candidate",
        "update serving.edge set val[2] = 0 where src = 1",
        "1 of 19 neighbour lists have a value that is not positive",
    ),
    ("candidate", "update serving.edge set src = 20 where src = 1", "1 of 19 neighbour lists are of an unknown item"),
    ("candidate", "update serving.edge set dst[2] = 20 where src = 1", "1 of 19 neighbour lists name an unknown item"),
    ("candidate", "update serving.edge set dst[2] = -1 where src = 1", "1 of 19 neighbour lists name an unknown item"),
    ("candidate", "update serving.edge set dst[2] = 2 where src = 1", "1 of 19 neighbour lists name an item twice"),
    ("candidate", "update serving.edge set dst[2] = 1 where src = 1", "1 of 19 neighbour lists lead back to where"),
    ("candidate", "update serving.edge set dst = '{}', val = '{}' where src = 1", "1 of 19 neighbour lists are empty"),
    ("candidate", "update serving.weight set term = 'luck' where term = 'tfidf'", "the weights leave out a term"),
    ("candidate", "update serving.term set item_nos[1] = 20 where term = 'tea'", "1 of 2 terms name an unknown item"),
    ("candidate", "update serving.term set item_nos[1] = 1 where term = 'tea'", "1 of 2 terms name an item twice"),
    (
        "candidate",
        "update serving.term set weights[1] = 'inf' where term = 'tea'",
        "1 of 2 terms have a value that is not finite",
    ),
    ("candidate", "update serving.term set term_no = 1", "2 of 2 terms share their number"),
    ("candidate", "update serving.term set idf = 'NaN' where term = 'tea'", "1 of 2 terms have an infinite weight"),
    ("candidate", "update serving.spelling set terms = '{tea,coffee}'", "1 of 1 spellings lead to an unknown term"),
    ("candidate", "update serving.category set bias = 'NaN'", "1 of 1 categories have a bias that is not finite"),
    ("candidate", "update serving.item_day set item_no = 20", "1 of 1 days of items are of an unknown item"),
    ("candidate", "update serving.user_profile set seen = '{1,20}'", "3 of 3 profiles name an unknown item"),
    ("candidate", "update serving.user_profile set history = '{-1}'", "3 of 3 profiles name an unknown item"),
    ("candidate", "update serving.user_profile set disliked = '{99}'", "3 of 3 profiles name an unknown item"),
    (
        "candidate",
        "update serving.user_profile set history = array_fill(1, array[21])",
        "3 of 3 profiles have more than 20 items of history",
    ),
    ("candidate", "update serving.user_profile set shop = 'other'", "3 of 3 profiles belong to another shop"),
    ("candidate", "delete from serving.user_profile", "there are 0 profiles, but the manifest promises 3"),
]


@pytest.mark.parametrize(("gate", "disease", "fault"), DISEASES)
def test_a_disease_in_a_table_is_named(sound: str, lake: Path, gate: str, disease: str, fault: str) -> None:
    execute(sound, disease)
    assert red(sound, lake, gate).startswith(f"Blocked: {fault}")


def not_finite(vector: np.ndarray) -> np.ndarray:
    return np.where(np.arange(vector.size) == 7, np.nan, vector).astype(np.float32)


@pytest.mark.parametrize(
    ("poison", "fault"),
    [
        (not_finite, "1 of 20 vectors are not finite"),
        (lambda vector: vector * 0, "1 of 20 vectors are not of unit length"),
        (lambda vector: vector * np.float32(3e38) * 2, "1 of 20 vectors are not"),
        (lambda vector: vector[:100], "1 of 20 vectors do not have 384 dimensions"),
    ],
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
    [
        ("val", [0.5, float("nan")], "have a value that is not finite"),
        ("val", [0.5, float("inf")], "have a value that is not finite"),
        ("val", [0.5, 0.0], "have a value that is not positive"),
        ("dst", [1, 20], "name an unknown item"),
        ("dst", [1, -1], "name an unknown item"),
        ("dst", [1, 1], "name an item twice"),
        ("dst", [1, 0], "lead back to where they start"),
    ],
)
def test_a_poisoned_edge_is_named(database: str, lake: Path, column: str, value: list[float], fault: str) -> None:
    poison(lake, "edge", column, value)
    assert f"1 of 19 neighbour lists {fault}" in red(database, lake, "trained")


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("item_nos", [3, 20], "name an unknown item"),
        ("weights", [0.7, float("nan")], "have a value that is not finite"),
    ],
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


def poison(lake: Path, table: str, column: str, value: list[float]) -> None:
    """Put a list in place of the first one of a file."""
    path = lake / SHOP / "releases" / RELEASE / f"{table}.parquet"
    columns = pq.read_table(path).to_pydict()
    columns[column][0] = value
    write_lists(path, columns)


def test_no_rows_never_pass(database: str, lake: Path) -> None:
    """Great Expectations holds that all rows of an empty table are fine."""
    assert red(database, lake, "landed", product=0, event=0) == "Blocked: there are no products, and 2 more faults"


def test_a_manifest_without_a_table_is_red(sound: str, lake: Path) -> None:
    broken = stage("landed")
    del broken["rows"]["event"]
    with pytest.raises(GateFailed, match="did not evaluate"):
        check(sound, lake, "landed", broken)


def test_a_missing_file_is_red(database: str, lake: Path) -> None:
    (lake / SHOP / "releases" / RELEASE / "edge.parquet").unlink()
    assert red(database, lake, "trained") == "Blocked: the gate trained did not evaluate (FileNotFoundError)"


@pytest.mark.parametrize(
    "rules",
    [
        (suites.Rule("ExpectColumnValuesToNotBeNull", "have no title", {"column": "mistyped"}),),
        (suites.Rule("ExpectNoSuchThing", "are wrong", {"column": "title"}),),
    ],
)
def test_a_broken_suite_is_red(
    sound: str, lake: Path, monkeypatch: pytest.MonkeyPatch, rules: tuple[suites.Rule, ...]
) -> None:
    query = suites.sql.SQL("select title from raw.product")
    monkeypatch.setitem(suites.SUITES, "landed", lambda *_: (suites.Part("product", "products", query, rules),))
    assert "did not evaluate" in red(sound, lake, "landed")


def test_an_empty_suite_is_red(sound: str, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suites.SUITES, "landed", lambda *_: ())
    assert red(sound, lake, "landed") == "Blocked: the gate landed did not evaluate anything"


def test_an_unknown_gate_is_red(sound: str, lake: Path) -> None:
    with pytest.raises(GateFailed, match="did not evaluate"):
        check(sound, lake, "nothing", stage("landed"))


def test_a_verdict_that_cannot_be_recorded_does_not_pass(sound: str, lake: Path) -> None:
    execute(sound, "drop table ops.gate_result")
    with pytest.raises(psycopg.errors.UndefinedTable):
        check(sound, lake, "landed", stage("landed"))


def test_no_value_leaves_a_gate(sound: str, lake: Path, caplog: pytest.LogCaptureFixture) -> None:
    execute(sound, "update raw.event set user_key = 'canary@example.com'")
    execute(sound, "update raw.product set price = -4242")
    verdict = red(sound, lake, "landed")
    assert "20 of 20 products have a negative price" in verdict
    recorded = execute(sound, "select gate_result::text from ops.gate_result")
    assert recorded
    assert not [word for word in ("canary", "4242") if word in verdict + caplog.text + recorded[0][0]]


def test_the_error_says_what_is_still_served(sound: str, lake: Path) -> None:
    execute(
        sound,
        "insert into serving.release (release_id, shop, state, content_hash, encoder, is_generated, has_clock)"
        " values ('r0', 'a', 'published', 'h', 'e', false, true);"
        " insert into serving.pointer (shop, release_id) values ('o''shop:a', 'r0'); delete from raw.product",
    )
    with pytest.raises(GateFailed) as failed:
        check(sound, lake, "landed", stage("landed"))
    assert isinstance(failed.value, SoukError)
    assert failed.value.next_step == "Release r0 keeps serving. Correct the data and run again."
    assert execute(sound, "select release_id from serving.pointer") == [("r0",)]


def test_a_later_verdict_replaces_the_one_before(sound: str, lake: Path) -> None:
    red(sound, lake, "landed", product=21)
    assert isinstance(check(sound, lake, "landed", stage("landed")), Verdict)
    assert execute(sound, "select is_passed from ops.gate_result") == [(True,)]


def test_sqlalchemy_reads_the_url_that_it_is_given() -> None:
    from sqlalchemy.engine import make_url

    url = make_url(gates.sqlalchemy_url("host=db port=6 user='a b' password='p@:/?%' dbname=souk sslmode=require"))
    assert (url.host, url.port, url.username, url.password, url.database) == ("db", 6, "a b", "p@:/?%", "souk")
    assert dict(url.query) == {"sslmode": "require"}
