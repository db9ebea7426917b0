from __future__ import annotations

import hashlib
import hmac
import json
import math
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest

from tests.sql.conftest import ANNA, BORIS, CHEN, IDS, publish_shop
from tests.sql.lists import LISTS, assert_adds_up, call, ids

STRANGER = "u1_" + "f" * 32
OUTDOOR = {"tent-2", "tent-4", "bag", "stove"}
PLAIN = {"diversity": 0, "exploration": 0}


def terms(row):
    return {reason["term"]: reason["contribution"] for reason in row["reasons"]}


@pytest.mark.parametrize("function", LISTS)
def test_a_list_is_ordered_and_adds_up(read_shop, function):
    rows = call(read_shop, function, k=3)
    assert len(rows) == 3
    assert_adds_up(rows, 3)
    assert_adds_up(call(read_shop, function, k=1), 1)
    assert_adds_up(call(read_shop, function, k=1000), 1000)


@pytest.mark.parametrize("function", LISTS)
def test_the_same_call_gives_the_same_list(read_shop, function):
    first, second = ([{**row, "request_id": None} for row in call(read_shop, function, k=8)] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("function", LISTS)
@pytest.mark.parametrize(
    ("filters", "passing"),
    [
        ({"lang": "zh"}, {"tea", "cup"}),
        ({"category": "outdoor"}, OUTDOOR),
        ({"brand": "Alpine", "category": "outdoor"}, OUTDOOR - {"stove"}),
        ({"max_price": 500}, {"tent-2"}),
        ({"min_price": 12500}, {"drill"}),
        ({"attributes": {"colour": "green", "persons": 2}}, {"tent-2"}),
    ],
)
def test_every_row_passes_the_filters(read_shop, function, filters, passing):
    rows = call(read_shop, function, k=8, filters=filters)
    assert set(ids(rows)) <= passing
    assert all(row["fewer_because"].startswith("only ") for row in rows)
    if function in ("search", "trending"):
        assert set(ids(rows)) == passing


def test_an_empty_list_says_so(read_shop):
    notices = []
    read_shop.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    for function in LISTS:
        assert call(read_shop, function, filters={"brand": "nobody"}) == []
    assert len(notices) == len(LISTS)
    assert set(notices) == {"the list is empty: no product passes the filters, or none is new to the shopper"}


def test_recommendations_are_new_and_say_why(read_shop):
    rows = call(read_shop, "recommend", k=5)
    assert set(ids(rows[:2])) == {"stove", "tent-4"}
    assert not set(ids(rows)) & {"tent-2", "bag"}
    because = {item["item_id"] for reason in rows[0]["reasons"] for item in reason["because"]}
    assert because
    assert because <= {"tent-2", "bag"}
    assert rows[0]["title"]
    assert "description" in rows[0]


def test_unknown_null_and_unpersonalised_shoppers_get_what_is_popular(read_shop):
    rows = call(read_shop, "recommend", user_id=None, k=8, **PLAIN)
    assert len(rows) == len(IDS)
    assert ids(rows)[0] == "tent-2"
    assert all(set(terms(row)) == {"popularity"} for row in rows)
    for others in ({"user_id": STRANGER}, {"user_id": ANNA, "personalised": False}):
        assert ids(call(read_shop, "recommend", k=8, **others, **PLAIN)) == ids(rows)


def test_diversity_takes_from_what_is_like_the_rows_before(read_shop):
    plain = call(read_shop, "recommend", user_id=BORIS, k=8, **PLAIN)
    diverse = call(read_shop, "recommend", user_id=BORIS, k=8, diversity=1, exploration=0)
    assert all("diversity" not in terms(row) for row in plain)
    taken = {row["item_id"]: terms(row).get("diversity", 0) for row in diverse}
    assert all(penalty <= 0 for penalty in taken.values())
    # One tent is like the other; drill bits are like nothing else.
    assert taken["tent-4"] < -1 < taken["bits"] == 0
    assert_adds_up(diverse, 8)


@pytest.mark.parametrize(("diversity", "order"), [(0, [1, 2, 3]), (0.1, [1, 2, 3]), (1, [1, 3, 2])])
def test_what_is_different_overtakes_what_is_alike(read_shop, diversity, order):
    found = read_shop.execute(
        "select number, penalty from internal.diversify('{1,0.9,0.5}',"
        " array['[1,0]', '[1,0]', '[0,1]']::halfvec[], 3, %s)",
        [diversity],
    ).fetchall()
    assert [number for number, _ in found] == order
    assert dict(found) == pytest.approx({1: 0, 2: diversity, 3: 0})


@pytest.mark.parametrize(("k", "diversity"), [(10, 0.1), (10, 1), (60, 0.3), (80, 1)])
def test_the_list_is_the_greedy_one(read_shop, k, diversity):
    rng = np.random.default_rng(k)
    vectors = rng.normal(size=(80, 3)).astype(np.float16)
    scores = np.sort(rng.normal(2, 1, size=80))[::-1]
    found = read_shop.execute(
        "select number, penalty from internal.diversify(%s, %s::text[]::halfvec[], %s, %s)",
        [scores.tolist(), [str(vector.tolist()) for vector in vectors], k, diversity],
    ).fetchall()
    near, taken = np.zeros(80), []
    for _ in range(min(k, 50)):
        if taken:
            near = np.maximum(near, vectors.astype(float) @ vectors[taken[-1]].astype(float))
        value = scores - diversity * scores[0] * near
        value[taken] = -np.inf
        taken.append(int(value.argmax()))
    rest = [
        place for place in np.argsort(-(scores - diversity * scores[0] * near), kind="stable") if place not in taken
    ]
    assert [number - 1 for number, _ in found] == [*taken, *rest][:k]


def test_a_cap_holds_for_each_leaf_category(read_shop):
    rows = call(read_shop, "recommend", user_id=None, k=5, max_per_category=2)
    assert_adds_up(rows, 5)
    assert len(OUTDOOR & set(ids(rows))) == 2
    assert len(rows) == 4
    assert rows[0]["fewer_because"].endswith(", at most 2 of a category")
    assert call(read_shop, "recommend", user_id=None, k=4, max_per_category=2)[0]["fewer_because"] is None


def test_similar_products_share_terms(read_shop):
    rows = call(read_shop, "similar", k=7)
    assert rows[0]["item_id"] == "tent-4"
    assert {"alpine", "tent"} <= set(rows[0]["reasons"][0]["shared_terms"])
    assert "tent-2" not in ids(rows)
    assert rows[0]["score"] <= 1


def test_bought_together_comes_before_similar(read_shop):
    rows = call(read_shop, "also_bought", with_item="drill", k=7)
    assert rows[0]["item_id"] == "bits"
    kinds = [row["reasons"][0]["term"] for row in rows]
    assert kinds[0] == "together"
    assert kinds[-1] == "text"
    assert kinds == sorted(kinds, reverse=True)


def test_what_is_bought_more_than_usual_is_trending(database, tmp_path):
    publish_shop(database, tmp_path, end=datetime(2026, 5, 31, 23, tzinfo=UTC))
    with psycopg.connect(database, autocommit=True) as connection:
        rows = call(connection, "trending", k=4, period="2 days")
        assert ids(rows)[:2] == ["tent-2", "bits"]
        assert_adds_up(rows, 4)
        assert terms(rows[0]) == pytest.approx(
            {"recent": 3 / math.sqrt(5 * 2 / 28 + 1), "usual": -(5 * 2 / 28) / math.sqrt(5 * 2 / 28 + 1)}
        )
        # Of the 30th, the last hour is in the period; a session's zone changes nothing.
        for zone in ("Pacific/Kiritimati", "America/Los_Angeles"):
            connection.execute("select set_config('timezone', %s, false)", [zone])
            again = call(connection, "trending", k=4, period="2 days")
            assert [row["score"] for row in again] == [row["score"] for row in rows]
        hour = call(connection, "trending", k=1, period="1 hour")
        usual = 5 / 28 / 24
        assert terms(hour[0])["recent"] == pytest.approx(3 / 23 / math.sqrt(usual + 1))
        assert rows[2]["reasons"][0]["note"] == "nothing happened to it in the period"
        assert ids(call(connection, "trending", k=1, category="other")) == ["bits"]
        # The clock is the data's: it goes on with what is logged.
        connection.execute("select api.log_event(%s, 'cup', 'click')", [ANNA])
        assert ids(call(connection, "trending", k=1)) == ["cup"]


def test_what_happens_every_day_alike_does_not_trend(database, tmp_path):
    publish_shop(database, tmp_path, end=datetime(2026, 5, 31, 12, tzinfo=UTC))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("delete from serving.item_day")
        connection.execute(
            "insert into serving.item_day (release_id, item_no, day, events) select 'shop-1', 0, day,"
            " case when day = '2026-05-31' then 2 else 4 end"
            " from generate_series(date '2026-04-20', date '2026-05-31', interval '1 day') as day"
        )
        for period in ("1 hour", "6 hours", "1 day", "7 days", "28 days"):
            [row] = call(connection, "trending", k=1, period=period)
            recent = terms(row).get("recent", 0) + terms(row).get("usual", 0)
            assert recent == pytest.approx(0, abs=1e-6), period


def test_without_a_clock_what_is_popular_is_trending(read_shop):
    rows = call(read_shop, "trending", k=8)
    assert ids(rows) == ids(call(read_shop, "recommend", user_id=None, k=8, **PLAIN))
    assert {reason["term"] for row in rows for reason in row["reasons"]} == {"popularity"}


def test_reviews_attract_and_repel(read_shop):
    rows = call(read_shop, "recommend_by_description", k=3)
    assert all(set(terms(row)) == {"praised", "complained"} for row in rows)
    assert not set(ids(rows)) & {"tea", "cup", "tent-2", "drill", "bits"}
    note = "the shopper has written no review: these are popular"
    popular = ids(call(read_shop, "recommend", user_id=None, k=8, **PLAIN))
    for user, seen in ((ANNA, {"tent-2", "bag"}), (STRANGER, set()), (None, set())):
        rows = call(read_shop, "recommend_by_description", user_id=user, k=3)
        assert ids(rows) == [item for item in popular if item not in seen][:3]
        assert {reason["note"] for row in rows for reason in row["reasons"]} == {note}


@pytest.mark.parametrize(
    ("arguments", "basis", "first"),
    [
        ({"query": "tent"}, "query", "outdoor"),
        ({"query": "绿茶"}, "query", "other"),
        ({"query": "🎈"}, "prior", "outdoor"),
        ({"user_id": ANNA}, "history", "outdoor"),
        ({"user_id": BORIS}, "history", "other"),
        ({"user_id": STRANGER}, "prior", "outdoor"),
        ({"user_id": BORIS, "query": "tent"}, "query", "outdoor"),
        ({}, "prior", "outdoor"),
    ],
)
def test_categories_are_probabilities(read_shop, arguments, basis, first):
    rows = call(read_shop, "recommend_category", **arguments)
    assert sum(row["probability"] for row in rows) == pytest.approx(1)
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0]["probability"] >= rows[1]["probability"]
    assert (rows[0]["basis"], rows[0]["category"]) == (basis, first)
    assert call(read_shop, "recommend_category", k=1, **arguments) == rows[:1]


def test_interest_weights_share_one_interest(read_shop):
    rows = call(read_shop, "interest_weights", query="cordless drill", item_ids=["tea", "drill", "nothing", "tea"])
    assert ids(rows) == ["drill", "tea"]
    assert sum(row["interest_weight"] for row in rows) == pytest.approx(1)
    tau = 0.5
    warm = call(read_shop, "interest_weights", query="cordless drill", item_ids=["tea", "drill"], temperature=tau)
    odds = math.exp((warm[0]["cosine"] - warm[1]["cosine"]) / tau)
    assert warm[0]["interest_weight"] == pytest.approx(odds / (1 + odds))
    for item in IDS:
        assert call(read_shop, "interest_weights", query="tent", item_ids=[item])[0]["interest_weight"] == 1
    unknown = call(read_shop, "interest_weights", query="🎈", item_ids=["tea", "drill"])
    assert [row["interest_weight"] for row in unknown] == [0.5, 0.5]
    # However cold, the weights are numbers.
    cold = call(read_shop, "interest_weights", query="cordless drill", item_ids=["tea", "drill"], temperature=1e-4)
    assert [row["interest_weight"] for row in cold] == pytest.approx([1, 0])


@pytest.mark.parametrize("user", [ANNA, BORIS, CHEN, STRANGER, None])
def test_explain_tells_what_recommend_shows(read_shop, user):
    rows = call(read_shop, "recommend", user_id=user, k=8, **PLAIN)
    assert rows
    for row in rows:
        told = call(read_shop, "explain", user_id=user, for_item=row["item_id"])[0]
        assert (told["rank"], told["title"]) == (row["rank"], row["title"])
        assert told["score"] == pytest.approx(row["score"], abs=1e-9)
        assert sum(terms(told).values()) == pytest.approx(told["score"], abs=1e-6)
        assert {term: value for term, value in terms(told).items() if value} == pytest.approx(
            {term: value for term, value in terms(row).items() if value}
        )


def test_counterfactuals_change_rank_and_score(read_shop):
    told = call(read_shop, "explain", user_id=BORIS, for_item="bits")[0]
    [without] = told["counterfactuals"]
    assert (without["without"], without["title"]) == ("drill", "Cordless drill 18V")
    assert without["score"] < told["score"]
    assert without["rank"] > told["rank"]
    assert without["text"] == f"without Cordless drill 18V: rank {told['rank']} → {without['rank']}"
    told = call(read_shop, "explain", user_id=ANNA, for_item="tent-4")[0]
    assert {without["without"] for without in told["counterfactuals"]} == {"tent-2", "bag"}
    assert any(without["score"] != told["score"] for without in told["counterfactuals"])
    assert call(read_shop, "explain", user_id=None, for_item="bits")[0]["counterfactuals"] == []


@pytest.mark.parametrize(
    ("user", "item", "note"),
    [
        (ANNA, "bag", "the shopper has it or dislikes it: it is not recommended"),
        (BORIS, "stove", "the shopper has it or dislikes it: it is not recommended"),
        (None, "bag", "nothing is known of the shopper: the score is the popularity"),
        (ANNA, "tea", None),
    ],
)
def test_explain_notes_what_is_special(read_shop, user, item, note):
    told = call(read_shop, "explain", user_id=user, for_item=item)[0]
    assert told["note"] == note
    assert told["rank"] >= 1


def test_a_profile_is_what_is_believed(read_shop):
    [[profile]] = [row.values() for row in call(read_shop, "profile", user_id=CHEN)]
    assert [item["item_id"] for item in profile["history"]] == ["tent-2", "cup", "tea"]
    assert [item["item_id"] for item in profile["disliked"]] == ["drill", "bits"]
    assert (profile["is_known"], profile["is_personalised"], profile["seen"]) == (True, True, 5)
    assert sum(profile["next_categories"].values()) == pytest.approx(1)
    assert profile["marts"] == {"event_count": 3}
    [[stranger]] = [row.values() for row in call(read_shop, "profile", user_id=STRANGER)]
    assert (stranger["is_known"], stranger["history"], stranger["marts"]) == (False, [], {})


def vector(connection, query):
    [[text]] = [row.values() for row in call(connection, "encode", query=query)]
    return text and json.loads(text)


def test_a_query_is_encoded_here(read_shop):
    drill, typo, tea = (vector(read_shop, query) for query in ("cordless drill", "cordles drill", "绿茶"))
    assert len(drill) == 384
    assert math.hypot(*drill) == pytest.approx(1, abs=1e-2)
    assert sum(a * b for a, b in zip(drill, typo, strict=True)) > 0.9
    assert sum(a * b for a, b in zip(drill, tea, strict=True)) < 0.5
    assert vector(read_shop, "🎈") is None


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("cordless drill", "drill"),
        ("绿茶", "tea"),
        ("TENT for four", "tent-4"),
        ("cordles dril", "drill"),
        ("18 v", "drill"),
    ],
)
def test_search_finds_words_numbers_and_typos_in_both_languages(read_shop, query, first):
    rows = call(read_shop, "search", query=query, k=3)
    assert rows[0]["item_id"] == first
    assert_adds_up(rows, 3)
    assert {"words", "semantic"} <= set(terms(rows[0]))


@pytest.mark.parametrize("query", ["", " ", "🎈🎈", "?!", None])
def test_a_query_of_nothing_gets_what_is_popular(read_shop, query):
    rows = call(read_shop, "search", query=query, k=8)
    assert ids(rows) == ids(call(read_shop, "recommend", user_id=None, k=8, **PLAIN))
    assert {reason["note"] for row in rows for reason in row["reasons"]} == {
        "no word of the query is known: these are popular"
    }


def test_a_raw_id_needs_the_key_and_meets_its_pseudonym(read_shop):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="pseudonyms"):
        call(read_shop, "recommend", user_id="anna")
    key = bytes(range(32))
    with read_shop.transaction():
        read_shop.execute("select set_config('souk.pseudonym_key', %s, true)", [key.hex()])
        row = read_shop.execute("select internal.user_key('小明')").fetchone()
        assert call(read_shop, "recommend", user_id="小明")
    assert row == ("u1_" + hmac.new(key, "小明".encode(), hashlib.sha256).hexdigest()[:32],)
