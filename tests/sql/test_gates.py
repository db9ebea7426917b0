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
    "trained": {"item": 20, "edge": 19, "weight": 4, "events": 60},
    "candidate": {
        "item": 20,
        "edge": 19,
        "weight": 4,
        "token_vector": 2,
        "posting": 20,
        "user_profile": 3,
        "seen": 60,
        "events": 60,
    },
}


def stage(gate: str, **rows: int) -> dict[str, Any]:
    return {"shop": SHOP, "run_id": "run", "release_id": RELEASE, "rows": {**ROWS[gate], **rows}}


def vectors(**columns: Any) -> pa.Table:
    unit = np.zeros((len(ITEMS), 384), np.float32)
    unit[:, 0] = 1
    return pa.table({"item_id": ITEMS, "vector": pa.array(list(unit), pa.list_(pa.float32())), **columns})


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """The files of a sound release."""
    folder = tmp_path / SHOP
    release = folder / "releases" / RELEASE
    for each in (folder / "vectors", release):
        each.mkdir(parents=True)
    pq.write_table(pa.table({"item_id": ITEMS}), folder / "items.parquet")
    pq.write_table(vectors(), folder / "vectors" / "part-0.parquet")
    pq.write_table(vectors().rename_columns(["item_id", "text_vector"]), release / "item.parquet")
    edges = {"src": ITEMS[:-1], "dst": ITEMS[1:], "val": pa.array([0.5] * 19, pa.float32())}
    pq.write_table(pa.table(edges), release / "edge.parquet")
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
        for table in ("item", "edge", "weight", "token_vector", "posting", "user_profile", "seen"):
            connection.execute(
                f"create table serving.{table}_1 partition of serving.{table} for values in ('{RELEASE}')"
            )
        connection.execute(
            f"insert into serving.item select '{RELEASE}', item_id, title, '', null, '{{}}', 3, 'en', '{{}}', 0.5, {unit}"
            " from raw.product;"
            f" insert into serving.edge select '{RELEASE}', 'encoder', 'i' || n, 'i' || n + 1, 0.5"
            " from generate_series(0, 18) as n;"
            f" insert into serving.weight select '{RELEASE}', term, 1, 0.5"
            " from unnest('{transition,tfidf,encoder,popularity}'::text[]) as term;"
            f" insert into serving.token_vector select '{RELEASE}', token, {unit} from unnest('{{tea,#te}}'::text[]) as token;"
            f" insert into serving.posting select '{RELEASE}', 'tea', item_id, 0.7 from raw.product;"
            f" insert into serving.user_profile select '{RELEASE}', user_key, '{{i1}}', 1, '{{}}'"
            " from marts.dim_user_profiles;"
            f" insert into serving.seen select '{RELEASE}', user_key, item_id from raw.event"
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
        "update serving.item set text_vector = text_vector * text_vector - text_vector where item_id < 'i12'",
        "4 of 20 items have a vector that is not of unit length",
    ),
    ("candidate", "update serving.edge set val = 'NaN' where src = 'i1'", "1 of 19 edges have a value that is not"),
    ("candidate", "update serving.edge set dst = 'x' where src = 'i1'", "1 of 19 edges lead to an unknown item"),
    ("candidate", "update serving.weight set term = 'luck' where term = 'tfidf'", "the weights leave out a term"),
    ("candidate", "delete from serving.seen", "there are 0 seen items, but the manifest promises 60"),
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
        ("val", float("nan"), "have no value"),
        ("val", float("inf"), "have a value that is not a positive finite number"),
        ("val", 0.0, "have a value that is not a positive finite number"),
        ("dst", "stranger", "lead to an unknown item"),
        ("dst", "i0", "lead back to where they start"),
    ],
)
def test_a_poisoned_edge_is_named(database: str, lake: Path, column: str, value: object, fault: str) -> None:
    path = lake / SHOP / "releases" / RELEASE / "edge.parquet"
    edges = pq.read_table(path).to_pydict()
    edges[column][0] = value
    pq.write_table(pa.table(edges), path)
    assert f"1 of 19 edges {fault}" in red(database, lake, "trained")


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
        " insert into serving.pointer (release_id) values ('r0'); delete from raw.product",
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
