"""A gate as such: green on sound data, red when it cannot look, and what it says and keeps."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from souk import gate_rules, gates, suites
from souk.errors import SoukError
from souk.gates import GateFailed, Verdict, check
from tests.sql.gates.sound import RELEASE, SHOP, execute, red, stage


@pytest.mark.parametrize("gate", suites.SUITES)
def test_sound_data_passes(sound: str, lake: Path, gate: str) -> None:
    verdict = check(sound, lake, gate, stage(gate))
    assert verdict.is_passed
    assert verdict.sentence.startswith("Passed: ")
    recorded = execute(sound, "select shop, run_id, gate, is_passed, evaluated, verdict from ops.gate_result")
    assert recorded == [(SHOP, "run", gate, True, verdict.evaluated, verdict.sentence)]


def test_no_rows_never_pass(database: str, lake: Path) -> None:
    """Great Expectations holds that all rows of an empty table are fine."""
    assert red(database, lake, "landed", product=0, event=0) == "Blocked: there are no products, and 1 more fault"


def test_a_small_shop_may_have_no_neighbours(sound: str, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = lake / SHOP / "releases" / RELEASE / "edge.parquet"
    pq.write_table(pq.read_table(edges).slice(0, 0), edges)
    assert red(sound, lake, "trained", edge=0) == "Blocked: there are no neighbour lists"
    monkeypatch.setattr(suites, "FEW_ITEMS", 21)
    assert check(sound, lake, "trained", stage("trained", edge=0)).is_passed


def test_a_shop_without_events_may_have_no_shoppers(sound: str, lake: Path) -> None:
    execute(sound, "delete from marts.fct_interactions; delete from marts.dim_user_profiles")
    empty = stage("profiles", fct_interactions=0, dim_user_profiles=0)
    with pytest.raises(GateFailed, match="there are no interactions, and 1 more fault"):
        check(sound, lake, "profiles", {**empty, "events": 60})
    assert check(sound, lake, "profiles", {**empty, "events": 0}).is_passed


def test_a_manifest_without_a_table_is_red(sound: str, lake: Path) -> None:
    broken = stage("landed")
    del broken["rows"]["event"]
    with pytest.raises(GateFailed, match="did not evaluate"):
        check(sound, lake, "landed", broken)


@pytest.mark.parametrize(
    "rules",
    [
        (gate_rules.Rule("ExpectColumnValuesToNotBeNull", "have no title", {"column": "mistyped"}),),
        (gate_rules.Rule("ExpectNoSuchThing", "are wrong", {"column": "title"}),),
    ],
)
def test_a_broken_suite_is_red(
    sound: str, lake: Path, monkeypatch: pytest.MonkeyPatch, rules: tuple[gate_rules.Rule, ...]
) -> None:
    query = gate_rules.sql.SQL("select title from raw.product")
    monkeypatch.setitem(suites.SUITES, "landed", lambda *_: (gate_rules.Part("product", "products", query, rules),))
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
