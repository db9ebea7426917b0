"""A generated shop from landing to the files of a release, with an encoder that is a toy."""

from __future__ import annotations

import dataclasses
import logging
import re
from functools import cache

import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest

from ml.recommender.edges import NEIGHBOURS, transitions
from ml.recommender.train import distinct
from ml.text import lexical_terms, passage
from souk import training
from souk.artefacts import TABLES
from souk.errors import SoukError
from souk.event_lake import export_events, verified_files
from souk.interactions import read_interactions
from souk.landing import land
from souk.personal_search import read_choices
from souk.profiles import build_profiles
from souk.settings import Settings
from souk.shoppers import place_items, read_behaviour, read_histories
from souk.sources.amazon import open_sequences
from souk.sources.demo_shop import open_demo_shop
from spark_jobs import encode_texts, text_vectors
from spark_jobs.item_text import VECTORS

pytestmark = pytest.mark.slow


@cache
def direction(term: str) -> np.ndarray:
    return np.random.default_rng(int.from_bytes(term.encode()[:6], "big")).normal(size=384).astype(np.float32)


def encode(texts: list[str]) -> np.ndarray:
    """Sums of random vectors of the texts' terms."""
    vectors = np.stack([sum(map(direction, lexical_terms(text) or [""])) for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class ToyEncoder:
    def __init__(self):
        self.encoded = []

    def encode_queries(self, texts, _):
        self.encoded += texts
        return encode(texts)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return dataclasses.replace(Settings.from_env({}), home=tmp_path_factory.mktemp("home"), quarantine_limit=0.9)


@pytest.fixture(scope="module")
def shop(module_database, settings):
    """The name of a landed shop with marts and vectors; one product has no vector."""
    shop = dataclasses.replace(open_demo_shop(0.5, 0), shop="small")
    land(module_database, settings, shop)
    build_profiles(module_database, settings, "small")
    with psycopg.connect(module_database) as connection:
        products = connection.execute(
            "select item_id, title, brand, categories, description from marts.dim_items order by item_id desc"
        ).fetchall()[:-1]
    texts = [passage(title, brand or "", path, said) for _, title, brand, path, said in products]
    columns = {
        "item_id": [product[0] for product in products],
        "text_hash": [""] * len(products),
        "model_id": [""] * len(products),
        "lang": ["en"] * len(products),
        "terms": [lexical_terms(text) for text in texts],
        "key_terms": [[]] * len(products),
        "vector": list(encode(texts)),
    }
    folder = settings.lake / "small" / "vectors"
    folder.mkdir(parents=True)
    half = len(products) // 2
    for name, rows in {"a": slice(0, half), "b": slice(half, None)}.items():
        part = training.pa.table({key: values[rows] for key, values in columns.items()}, schema=VECTORS)
        pq.write_table(part, folder / f"{name}.parquet")
    return shop


def train(dsn, settings, name, toy):
    """Train with the toy in this process; return the counts and the tables of the release."""
    folder = settings.home / name
    text_vectors._loaded.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_vectors, "locate", lambda *_: (None, "toy"))
        patch.setattr(text_vectors, "load_encoder", lambda *_: toy)
        patch.setattr(encode_texts, "FEW", 1_000_000)
        counts = training.train_release(dsn, settings, "small", "toy", folder)
    return counts, {table: pq.read_table(folder / f"{table}.parquet") for table in TABLES}


@pytest.fixture(scope="module")
def toy():
    return ToyEncoder()


@pytest.fixture(scope="module")
def trained(module_database, settings, shop, toy):
    return train(module_database, settings, "release", toy)


def test_a_release_holds_what_the_marts_know(module_database, shop, trained):
    counts, tables = trained
    with psycopg.connect(module_database) as connection:
        [(products, users, leaves)] = connection.execute(
            "select (select count(*) from marts.dim_items), (select count(*) from marts.dim_user_profiles),"
            " (select count(distinct leaf_category) from marts.dim_items)"
        ).fetchall()
    assert {table: len(rows) for table, rows in tables.items()} == {table: counts[table] for table in TABLES}
    assert counts["item"] == products - 1
    assert counts["user_profile"] == users
    assert counts["category"] == 2 * leaves
    assert counts["item_day"] > 100
    assert counts["events"] > 10_000

    items = tables["item"].to_pylist()
    assert [item["item_id"] for item in items] == sorted(item["item_id"] for item in items)
    assert '"' in items[0]["attributes"]
    vectors = np.array([item["text_vector"] for item in items], dtype=np.float32)
    wanted = {row["item_id"]: row for rows in shop.products() for row in rows}
    first = wanted[items[0]["item_id"]]
    own = encode([passage(first["title"], first["brand"] or "", first["categories"], first["description"])])[0]
    assert (vectors @ own).argmax() == 0  # the vectors follow their products

    assert set(tables["edge"]["kind"].to_pylist()) == {"transition", "tfidf", "encoder", "cooccurrence"}
    assert max(tables["item_day"]["day"].to_pylist()).isoformat() == "2026-06-30"


def test_choices_come_with_what_the_shopper_had_before(module_database, settings, shop):
    with psycopg.connect(module_database) as connection:
        ids = [
            item for (item,) in connection.execute("select item_id from marts.dim_items order by item_id").fetchall()
        ]
        place_items(connection, ids)
        found = read_choices(connection, "small")
        searches = connection.execute(
            "select s.query_text, hashtext(s.user_key), s.shown_item_ids, (select array_agg(e.item_id order by"
            " e.event_at desc, e.event_id desc) from marts.fct_interactions as e where e.user_key = s.user_key"
            " and e.event_at < s.searched_at and e.strength > 0) from marts.fct_searches as s"
        ).fetchall()
    assert len(found) > 200
    pasts = {(query, user, tuple(shown)): past for query, user, shown, past in searches}
    for choice in found:
        offered = [ids[place] for place in choice.offered]
        own = [
            past
            for (query, user, shown), past in pasts.items()
            if (query, user) == (choice.query, choice.shopper) and list(shown) == offered[: len(shown)]
        ]
        assert [ids[place] for place in reversed(choice.history)] in [(past or [])[:40] for past in own]
        assert choice.chosen
        assert len(offered) == len(set(offered)) > 1
    with psycopg.connect(module_database) as connection:
        place_items(connection, ids[:1])
        assert read_choices(connection, "small") == []


def test_shoppers_have_a_past_and_opinions(module_database, trained):
    _, tables = trained
    users = {user["user_key"]: user for user in tables["user_profile"].to_pylist()}
    # The release numbers its products by its own order.
    items = dict(zip(tables["item"]["item_no"].to_pylist(), tables["item"]["item_id"].to_pylist(), strict=True))
    with psycopg.connect(module_database) as connection:
        events = connection.execute(
            "select user_key, item_id, strength > 0 from marts.fct_interactions order by event_at desc, event_id desc"
        ).fetchall()
        happy = connection.execute("select user_key, item_id from marts.fct_reviews where sentiment > 0").fetchall()
    known = set(items.values())
    latest: dict[str, dict[str, bool]] = {}
    for user, item, is_liked in events:
        if item in known:
            latest.setdefault(user, {}).setdefault(item, is_liked)
    again = 0
    for user, dealt in latest.items():
        found = users[user]
        assert [items[place] for place in found["history"]] == [item for item, liked in dealt.items() if liked][:20]
        assert [items[place] for place in found["disliked"]] == [item for item, liked in dealt.items() if not liked][
            :20
        ]
        assert {items[place] for place in found["seen"]} <= set(dealt)
        again += len(dealt) - len(found["seen"])
    # What runs out is offered again, and nothing else.
    assert 0 < again < 0.1 * sum(map(len, latest.values()))
    praised = {user for user, found in users.items() if found["praise"] is not None}
    assert {user for user, item in happy if item in known} <= praised
    assert 0 < len(praised) < len(users)
    vectors = np.array([users[user]["praise"] for user in praised], dtype=np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(vectors)), abs=1e-2)


def test_training_again_with_spark_writes_the_same_and_says_what_it_found(
    module_database, settings, trained, toy, caplog
):
    caplog.set_level(logging.INFO, logger="souk.training")
    assert len(toy.encoded) > 5_000
    assert len(toy.encoded) == len(set(toy.encoded))
    again = ToyEncoder()
    counts, tables = train(module_database, dataclasses.replace(settings, edges="spark"), "again", again)
    assert not again.encoded  # All short texts are in the lake.
    assert counts == trained[0]
    assert [table for table in TABLES if not tables[table].equals(trained[1][table])] == []
    assert re.search(r"bought again: .*Cats after 4\d days", caplog.text)
    for source in ("query", "user"):
        right, frequent = re.search(rf"category of the {source}: (\S+) %.*?frequent: (\S+) %", caplog.text).groups()
        assert float(right) > 5 * float(frequent)


def test_texts_from_the_lake_make_the_index_that_the_encoder_makes(module_database, settings, trained, monkeypatch):
    asked = []

    def straight(texts):
        asked.extend(texts)
        return encode(texts).astype(np.float32)

    monkeypatch.setattr(training, "query_encoder", lambda *_: straight)
    _, tables = train(module_database, settings, "straight", None)
    assert len(asked) > 5_000
    assert [table for table in TABLES if not tables[table].equals(trained[1][table])] == []


def test_the_lake_has_the_histories_of_the_mart_and_both_count_what_the_reference_counts(
    module_database, settings, shop
):
    with psycopg.connect(module_database, autocommit=True) as connection:
        ids = [row[0] for row in connection.execute('select item_id from marts.dim_items order by item_id collate "C"')]
        place_items(connection, ids)
        given = ("small", ids, np.full(len(ids), 30.0))
        known, of_mart = read_interactions(connection, settings, *given)
        found, by_spark = read_interactions(connection, dataclasses.replace(settings, edges="spark"), *given)
        assert found == known
        assert list(found.pasts) == list(known.pasts)
        assert found.events > 10_000
        assert all(map(any, ([past.disliked for past in found.pasts.values()], found.liked, found.bought)))
        with connection.transaction(force_rollback=True):
            # A history with one other event is another one.
            connection.execute(
                "update marts.fct_interactions set kind = 'dislike', strength = -1 where event_id ="
                " (select min(event_id) from marts.fct_interactions where kind = 'purchase' and item_id = %s)",
                [ids[0]],
            )
            other = read_behaviour(connection, "small", given[2], read_histories(connection, "small"))
        for mine, theirs in ((found.liked, other.liked), (found.bought, other.bought)):
            assert sum(one != two for one, two in zip(mine, theirs, strict=True)) == 1
    firsts = [distinct(items) for items in found.liked]
    for number, sequences in enumerate([[items[:-1] for items in firsts], firsts]):
        wanted = transitions(sequences, len(ids))
        assert len(wanted.src) > 1000
        # The cut at fifty matters, and so does what stands on either side of it.
        assert np.bincount(wanted.src).max() == NEIGHBOURS
        for edges in (of_mart[number], by_spark[number]):
            assert edges.src.tolist() == wanted.src.tolist()
            assert edges.dst.tolist() == wanted.dst.tolist()
            assert np.abs(edges.val - wanted.val).max() <= 1e-6
    lake = settings.lake / "small" / "events"
    files = verified_files(lake)
    assert len(files) > 100
    assert all(re.fullmatch(r"date=2026-\d\d-\d\d", path.parent.name) for path in files)
    users = {user for path in files for user in pq.read_table(path)["user_key"].to_pylist()}
    assert len(users) > 100
    assert [user for user in users if not re.fullmatch(r"u1_[0-9a-f]{32}", user)] == []
    assert list((settings.lake / "small").glob("interactions*")) == []


def test_the_lake_is_the_marts_and_goes_where_dbt_counts(module_database, settings, shop):
    lake = settings.lake / "small" / "events"
    with psycopg.connect(module_database, autocommit=True) as connection:
        export_events(connection, "small", lake)
        assert export_events(connection, "small", lake) == []
        [(known,)] = connection.execute("select count(*) from marts.fct_interactions").fetchall()
        assert sum(pq.read_metadata(path).num_rows for path in verified_files(lake)) == known
        place_items(connection, ["none"])
        read_interactions(connection, settings, "small", ["none"], np.array([np.inf]))
    assert not lake.exists()


def test_an_order_without_a_clock_is_one_date_with_the_same_edges(database, settings, tmp_path):
    folder = tmp_path / "ordered"
    folder.mkdir()
    ids = [f"i{n:02}" for n in range(40)]
    (folder / "items.jsonl").write_text("".join(f'{{"item_id": "{item}", "title": "Tea {item}"}}\n' for item in ids))
    chance = np.random.default_rng(0)
    walks = [(chance.random(30) ** 2 * 40).astype(int).tolist() for _ in range(60)]
    lines = (f"user{user} " + " ".join(ids[place] for place in walk) for user, walk in enumerate(walks))
    (folder / "sequences.txt").write_text("\n".join(lines))
    land(database, settings, open_sequences(folder / "items.jsonl", folder / "sequences.txt"))
    build_profiles(database, settings, "ordered")
    with psycopg.connect(database, autocommit=True) as connection:
        place_items(connection, ids)
        given = ("ordered", ids, np.full(len(ids), np.inf))
        known, of_mart = read_interactions(connection, settings, *given)
        found, by_spark = read_interactions(connection, dataclasses.replace(settings, edges="spark"), *given)
    assert found == known
    assert found.events == 60 * 30
    assert [path.parent.name for path in verified_files(settings.lake / "ordered" / "events")] == ["date=2000-01-01"]
    firsts = [distinct(walk) for walk in walks]
    for number, sequences in enumerate([[items[:-1] for items in firsts], firsts]):
        wanted = transitions(sequences, len(ids))
        assert len(wanted.src) > 500
        for edges in (of_mart[number], by_spark[number]):
            assert (edges.src.tolist(), edges.dst.tolist()) == (wanted.src.tolist(), wanted.dst.tolist())
            assert np.abs(edges.val - wanted.val).max() <= 1e-6


def test_a_shop_without_vectors_is_refused(module_database, settings, shop):
    files = sorted((settings.lake / "small" / "vectors").glob("*.parquet"))
    with (
        psycopg.connect(module_database) as connection,
        pytest.raises(SoukError, match="No product of other has a vector"),
    ):
        training.read_products(connection, "other", files)
