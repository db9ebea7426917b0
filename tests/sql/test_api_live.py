from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from souk import release
from tests.sql.conftest import ANNA, BORIS, CHEN, TITLES, publish_shop
from tests.sql.lists import LISTS, assert_adds_up, call, ids

PLAIN = {"diversity": 0, "exploration": 0}
REQUEST = uuid.UUID(int=7)


@pytest.fixture
def scratch(read_shop):
    """The small shop of the file, left as it was found."""
    with read_shop.transaction(force_rollback=True):
        yield read_shop


def log(connection, user, item, kind="click", **arguments):
    [row] = call(connection, "log_event", user_id=user, item_id=item, kind=kind, **arguments)
    return row["log_event"]


def upsert(connection, item, title, **arguments):
    return call(connection, "upsert_product", item_id=item, title=title, **arguments)


def profile(connection, user):
    return call(connection, "profile", user_id=user)[0]["profile"]


def anonymous(rows):
    return [{**row, "request_id": None} for row in rows]


def test_the_next_statement_sees_a_logged_event(scratch):
    assert ids(call(scratch, "recommend", user_id=BORIS, k=3, **PLAIN))[0] == "bits"
    assert log(scratch, BORIS, "tent-2", event_id="e1", session_id="s1") == "recorded"
    rows = call(scratch, "recommend", user_id=BORIS, k=3, **PLAIN)
    assert ids(rows)[0] == "tent-4"
    assert "tent-2" not in ids(rows)
    assert profile(scratch, BORIS)["history"][0]["item_id"] == "tent-2"
    assert log(scratch, BORIS, "tent-2", event_id="e1") == "duplicate"
    assert scratch.execute("select event_id, user_key, session_id from live.event").fetchall() == [("e1", BORIS, "s1")]


def test_a_stranger_is_known_after_one_event(scratch):
    stranger = "u1_" + "e" * 32
    log(scratch, stranger, "drill")
    assert ids(call(scratch, "recommend", user_id=stranger, k=1)) == ["bits"]
    assert call(scratch, "explain", user_id=stranger, for_item="bits")[0]["counterfactuals"]


def test_an_event_may_be_late(scratch):
    year = datetime.now(UTC) - timedelta(days=365)
    assert log(scratch, BORIS, "tea", event_at=year) == "recorded"
    log(scratch, BORIS, "cup")
    assert [item["item_id"] for item in profile(scratch, BORIS)["history"]] == ["cup", "tea", "drill"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"item_id": "nothing"}, "unknown_item"),
        ({"item_id": ""}, "missing_item_id"),
        ({"item_id": None}, "missing_item_id"),
        ({"item_id": "x" * 10_000}, "unknown_item"),
        ({"kind": "sneeze"}, "unknown_kind"),
        ({"kind": None}, "unknown_kind"),
        ({"user_id": None}, "missing_user_id"),
        ({"user_id": ""}, "missing_user_id"),
        ({"event_id": ""}, "missing_event_id"),
        ({"event_id": "e" * 201}, "bad_event_id"),
        ({"event_at": None}, "missing_event_at"),
        ({"event_at": datetime.now(UTC) + timedelta(days=1)}, "future_timestamp"),
        ({"event_at": "infinity"}, "future_timestamp"),
        ({"event_at": "-infinity"}, "bad_event_at"),
    ],
)
def test_an_event_that_cannot_be_goes_to_quarantine(scratch, arguments, reason):
    bad = {"user_id": ANNA, "item_id": "tea", "kind": "click", "event_id": "e1", "event_at": "2026-05-01Z"} | arguments
    for _ in range(2):
        assert call(scratch, "log_event", **bad)[0]["log_event"] == reason
    assert scratch.execute("select count(*) from live.event").fetchone() == (0,)
    [row] = scratch.execute("select shop, entity, reason, row_key, payload::text from ops.quarantine").fetchall()
    assert row[:4] == ("shop", "event", reason, (bad["event_id"] or "")[:200])
    assert ANNA not in row[4]


def test_a_dislike_pushes_its_like_away(scratch):
    before = call(scratch, "explain", user_id=CHEN, for_item="tent-4")[0]
    assert before["score"] > 0
    log(scratch, CHEN, "bag", "dislike")
    after = call(scratch, "explain", user_id=CHEN, for_item="tent-4")[0]
    assert after["score"] < before["score"]
    assert {r["term"]: r["contribution"] for r in after["reasons"]}["dislike"] < 0
    rows = call(scratch, "recommend", user_id=CHEN, k=8)
    assert "bag" not in ids(rows)
    assert_adds_up(rows, 8)
    assert profile(scratch, CHEN)["disliked"][0]["item_id"] == "bag"


def test_the_last_word_on_a_product_counts(scratch):
    log(scratch, BORIS, "tea", "dislike")
    log(scratch, BORIS, "tea", "purchase")
    assert "tea" not in {item["item_id"] for item in profile(scratch, BORIS)["disliked"]}
    log(scratch, BORIS, "drill", "return")
    believed = profile(scratch, BORIS)
    assert [item["item_id"] for item in believed["history"]] == ["tea"]
    assert [item["item_id"] for item in believed["disliked"]] == ["drill", "stove"]


def test_a_new_product_is_found_and_recommended_at_once(scratch):
    assert upsert(scratch, "tent-5", "Zorbling tent", brand="Quuxo", categories=["outdoor"], price=Decimal("9.5"))
    for query in ("zorbling", "Zorblings", "quuxo"):
        assert ids(call(scratch, "search", query=query, k=3))[0] == "tent-5"
    assert "tent-5" in ids(call(scratch, "recommend", k=8))
    assert "tent-5" in ids(call(scratch, "similar", k=3))
    assert "tent-5" in ids(call(scratch, "trending", k=9, filters={"max_price": 10, "brand": "Quuxo"}))
    assert log(scratch, ANNA, "tent-5") == "recorded"
    assert profile(scratch, ANNA)["history"][0]["title"] == "Zorbling tent"
    upsert(scratch, "tea-2", "新品龙井绿茶", price=30)
    assert "tea-2" in ids(call(scratch, "search", query="绿茶", k=2, filters={"lang": "zh"}))
    upsert(scratch, "drill-2", "Cordless drill 20V")
    rows = call(scratch, "recommend_by_description", k=8)
    assert (ids(rows)[0], ids(rows)[-1]) == ("tea-2", "drill-2")


def test_a_changed_text_is_read_again_and_a_changed_price_is_not(scratch):
    query = "select text_vector::text, lexical::text, price, title from serving.item where item_id = 'stove'"
    before = scratch.execute(query).fetchone()
    upsert(scratch, "stove", TITLES["stove"], categories=["outdoor"], price=70, attributes={"colour": "red"})
    after = scratch.execute(query).fetchone()
    assert after[:2] == before[:2]
    assert ids(call(scratch, "search", query="stove", filters={"max_price": 80})) == ["stove"]
    assert ids(call(scratch, "search", query="stove", filters={"attributes": {"colour": "red"}})) == ["stove"]
    upsert(scratch, "stove", "Wok", categories=["outdoor"])
    assert scratch.execute(query).fetchone()[0] != before[0]
    assert call(scratch, "search", query="wok", k=1)[0]["title"] == "Wok"


def test_what_is_stored_of_a_product_does_not_depend_on_the_session(scratch):
    query = "select text_vector::text, lexical::text from serving.item where item_id = 'wok'"
    upsert(scratch, "lamp", "Zorbling waterproof camping lamp")
    scratch.execute("set local extra_float_digits = -15; set local timezone = 'Asia/Tokyo'")
    upsert(scratch, "wok", "Zorbling waterproof camping lamp")
    scratch.execute("reset extra_float_digits; reset timezone")
    stored = scratch.execute(query).fetchone()
    upsert(scratch, "wok", "Another text")
    upsert(scratch, "wok", "Zorbling waterproof camping lamp")
    assert scratch.execute(query).fetchone() == stored


def test_an_unavailable_product_is_nowhere(scratch):
    for item in ("tent-4", "stove"):
        upsert(scratch, item, TITLES[item], categories=["outdoor"], is_available=False)
    for function in LISTS:
        for filters in ({}, {"category": "outdoor"}):
            rows = call(scratch, function, k=8, filters=filters)
            assert not {"tent-4", "stove"} & set(ids(rows))
    told = call(scratch, "explain", user_id=ANNA, for_item="tent-4")[0]
    assert told["note"] == "it is not available: it is not recommended"
    assert told["rank"] is None
    upsert(scratch, "tent-4", TITLES["tent-4"], categories=["outdoor"])
    assert "tent-4" in ids(call(scratch, "recommend", k=8))


def test_the_next_release_takes_over_what_it_lacks(shop, database, tmp_path):
    upsert(shop, "wok", "Zorbling wok", price=5)
    upsert(shop, "tea", TITLES["tea"], categories=["other"], price=3, is_available=False)
    log(shop, ANNA, "wok")
    publish_shop(database, tmp_path, "shop-2")
    rows = call(shop, "search", query="zorbling", k=1)
    assert (ids(rows), rows[0]["release_id"]) == (["wok"], "shop-2")
    assert profile(shop, ANNA)["history"][0]["item_id"] == "wok"
    assert "tea" not in ids(call(shop, "search", query="绿茶", k=9))
    assert shop.execute("select count(*) from live.item").fetchone() == (2,)


def test_an_event_that_has_landed_is_a_duplicate(shop, database):
    shop.execute(
        "insert into raw.landing (shop, source, manifest_hash, is_generated, has_clock, state)"
        " values ('shop', 'files', 'f', true, true, 'complete')"
    )
    shop.execute(
        "insert into raw.event (shop, event_id, user_key, item_id, kind, event_at, landing_no)"
        " select 'shop', 'e1', %s, 'tea', 'view', now(), landing_no from raw.landing",
        [ANNA],
    )
    assert log(shop, ANNA, "cup", event_id="e1") == "duplicate"
    assert shop.execute("select count(*) from live.event").fetchone() == (0,)


def test_ids_and_texts_are_stripped_as_in_landing(scratch):
    scratch.execute("select set_config('souk.pseudonym_key', %s, true)", ["ab" * 32])
    assert log(scratch, " alice\u3000", "\ttea ", event_id=" e1\n") == "recorded"
    assert log(scratch, "alice", "cup", event_id="e1") == "duplicate"
    assert profile(scratch, "alice")["history"][0]["item_id"] == "tea"
    before = scratch.execute("select text_vector::text from serving.item where item_id = 'bits'").fetchone()
    upsert(scratch, " bits ", f"{TITLES['bits']} ", description="Bits of steel.\n", categories=["other ", " "])
    assert scratch.execute("select text_vector::text from serving.item where item_id = 'bits'").fetchone() == before
    assert scratch.execute("select count(*) from serving.item").fetchone() == (len(TITLES),)


def test_a_product_that_becomes_another_leaves_its_neighbours(scratch):
    def neighbours(item):
        [(found,)] = scratch.execute(
            "select array_agg(n.item_id) from serving.edge as e inner join serving.item as s on s.item_no = e.src"
            " cross join lateral unnest(e.dst) as d (item_no) inner join serving.item as n on n.item_no = d.item_no"
            " where e.kind = 'encoder' and s.item_id = %s",
            [item],
        ).fetchall()
        return found

    assert "tent-4" in neighbours("tent-2")
    upsert(scratch, "tent-4", "Zorbling", categories=["other"])
    assert "tent-4" not in (neighbours("tent-2") or [])


def test_what_two_releases_hold_is_forgotten(shop, database, tmp_path):
    upsert(shop, "wok", "Zorbling wok")
    upsert(shop, "tea", TITLES["tea"], is_available=False)
    log(shop, ANNA, "wok")
    shop.execute("update live.item set landing_no = 4")
    shop.execute("update live.event set landing_no = 4")
    for number, left in ((5, ["tea", "wok"]), (6, ["tea"])):
        publish_shop(database, tmp_path, f"shop-{number}", titles=TITLES | {"wok": "Zorbling wok"}, landing_no=number)
        assert shop.execute("select array_agg(item_id order by item_id) from live.item").fetchone() == (left,)
        assert ids(call(shop, "search", query="zorbling", k=1)) == ["wok"]
    assert shop.execute("select count(*) from live.event").fetchone() == (0,)
    # What is hidden stays hidden.
    assert "tea" not in ids(call(shop, "search", query="绿茶", k=9))


def test_hiding_does_not_bring_old_texts_back(shop, database, tmp_path):
    upsert(shop, "tea", "Old tea", price=3, is_available=False)
    shop.execute("update live.item set landing_no = 4")
    publish_shop(database, tmp_path, "shop-5", landing_no=5)
    row = shop.execute("select title, is_available from serving.item where item_id = 'tea' and release_id = 'shop-5'")
    assert row.fetchone() == (TITLES["tea"], False)


def test_a_shopper_who_opts_out_is_nobody(scratch):
    scratch.execute("insert into serving.weight values ('shop-1', 'search_personal', 0, 2)")
    arguments = {"recommend": {}, "search": {"query": "drill tea"}, "recommend_by_description": {}}
    for function, more in arguments.items():
        personal = call(scratch, function, user_id=CHEN, k=8, **more)
        assert ids(personal) != ids(call(scratch, function, user_id=None, k=8, **more))
    call(scratch, "set_personalisation", user_id=CHEN, allowed=False)
    for function, more in arguments.items():
        nobody = anonymous(call(scratch, function, user_id=None, k=8, **more))
        assert anonymous(call(scratch, function, user_id=CHEN, k=8, **more)) == nobody
    assert call(scratch, "recommend_category", user_id=CHEN) == call(scratch, "recommend_category")
    for item in TITLES:
        told, of_nobody = (call(scratch, "explain", user_id=user, for_item=item) for user in (CHEN, None))
        assert told == of_nobody
    assert profile(scratch, CHEN)["is_personalised"] is False
    assert scratch.execute("select count(*) from live.impression where user_key = %s", [CHEN]).fetchone() == (3,)
    call(scratch, "set_personalisation", user_id=CHEN, allowed=True)
    assert profile(scratch, CHEN)["is_personalised"] is True
    assert ids(call(scratch, "recommend", user_id=CHEN)) != ids(call(scratch, "recommend", user_id=None))


def test_interest_counts_in_search(scratch):
    plain = call(scratch, "search", query="18", k=8, user_id=ANNA)
    scratch.execute("insert into serving.weight values ('shop-1', 'search_personal', 0, 2)")
    rows = call(scratch, "search", query="18", k=8, user_id=ANNA)
    assert {row["item_id"]: row["score"] for row in rows} != {row["item_id"]: row["score"] for row in plain}
    assert all("personal" in {reason["term"] for reason in row["reasons"]} for row in rows)
    assert_adds_up(rows, 8)


def test_a_share_of_a_list_is_new_products(database, tmp_path):
    lamps = {f"lamp-{number}": f"Camping lamp {number}" for number in range(5)}
    publish_shop(database, tmp_path, titles=TITLES | lamps)
    new = {*lamps, "tent-4", "wok"}
    with psycopg.connect(database, autocommit=True) as shop:
        upsert(shop, "wok", "Zorbling wok")
        assert not set(ids(call(shop, "recommend", user_id=None, k=6, **PLAIN))) & new
        terms = set()
        for number in range(30):
            rows = call(shop, "recommend", user_id=f"u1_{number:032x}", k=6, exploration=0.5)
            assert len(set(ids(rows)) & new) >= 3
            assert_adds_up(rows, 6)
            terms |= {reason["term"] for row in rows for reason in row["reasons"]}
        assert "exploration" in terms
        assert set(ids(call(shop, "recommend", user_id=None, k=7, exploration=1))) == new


def impressions(connection, columns="request_id, surface, variant, user_key, item_ids"):
    return connection.execute(f"select {columns} from live.impression order by served_at").fetchall()


@pytest.mark.parametrize("function", LISTS)
def test_a_served_list_is_logged_with_its_order_and_variant(scratch, function):
    rows = call(scratch, function, k=3, request_id=REQUEST, variant="b")
    assert {row["request_id"] for row in rows} == {REQUEST}
    user = LISTS[function].get("user_id")
    assert impressions(scratch) == [(REQUEST, function, "b", user, ids(rows))]
    # The first list stays.
    call(scratch, function, k=1, request_id=REQUEST)
    assert impressions(scratch) == [(REQUEST, function, "b", user, ids(rows))]
    fresh = call(scratch, function, k=1, variant=None)[0]["request_id"]
    assert [(row[0], row[2]) for row in impressions(scratch)] == [(REQUEST, "b"), (fresh, "default")]


def test_a_click_names_its_list(scratch):
    rows = call(scratch, "recommend", k=3)
    log(scratch, ANNA, rows[0]["item_id"], request_id=rows[0]["request_id"])
    found = scratch.execute(
        "select e.item_id, array_position(i.item_ids, e.item_id) from live.event as e"
        " inner join live.impression as i on i.request_id = e.request_id and i.shop = e.shop"
    ).fetchall()
    assert found == [(rows[0]["item_id"], 1)]


def test_a_share_of_0_logs_nothing(scratch):
    scratch.execute("insert into ops.serving_setting (shop, impression_share) values ('shop', 0)")
    assert call(scratch, "recommend")[0]["request_id"]
    assert impressions(scratch) == []


def test_an_unpersonalised_list_is_nobodys(scratch):
    call(scratch, "recommend", personalised=False)
    assert [row[3] for row in impressions(scratch)] == [None]


def test_a_read_only_transaction_serves(shop):
    shop.execute("set default_transaction_read_only = on")
    for function in LISTS:
        assert_adds_up(call(shop, function, k=3), 3)
    assert profile(shop, ANNA)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        log(shop, ANNA, "tea")
    shop.execute("set default_transaction_read_only = off")
    assert impressions(shop) == []


def test_two_shops_choose_their_keys_apart(shop, database, tmp_path):
    log(shop, ANNA, "tea", event_id="e1")
    call(shop, "recommend", request_id=REQUEST)
    # The shop that was published last is the one that an operator sees.
    publish_shop(database, tmp_path, "other-1", shop="other")
    assert log(shop, ANNA, "tea", event_id="e1") == "recorded"
    call(shop, "recommend", request_id=REQUEST)
    assert sorted(shop.execute("select shop, event_id from live.event").fetchall()) == [("other", "e1"), ("shop", "e1")]
    assert sorted(impressions(shop, "shop, request_id")) == [("other", REQUEST), ("shop", REQUEST)]


def test_nothing_is_served_before_a_release_is_published(database):
    with psycopg.connect(database, autocommit=True) as connection:
        for function in (*LISTS, "recommend_category"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no release is published"):
                call(connection, function)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            log(connection, ANNA, "tea")


def test_events_of_a_release_count_once(shop, database, tmp_path):
    log(shop, BORIS, "tent-2")
    shop.execute("update live.event set landing_no = 4")
    assert profile(shop, BORIS)["history"][0]["item_id"] == "tent-2"
    publish_shop(database, tmp_path, "shop-5", landing_no=5)
    # The release holds it, but in this test's release it is not in the profile.
    assert [item["item_id"] for item in profile(shop, BORIS)["history"]] == ["drill"]
    assert release.publish(database, "shop-1") == "published"
    assert profile(shop, BORIS)["history"][0]["item_id"] == "tent-2"
