from __future__ import annotations

import hashlib
import hmac

import psycopg
import pytest

from tests.sql.conftest import ANNA, BORIS, CHEN, IDS

COLUMNS = "rank, item_id, title, score, interest_weight, reasons, release_id, fewer_because"


def recommend(shop, user, k=5, filters="{}", personalised=True):
    return shop.execute(
        f"select {COLUMNS} from api.recommend(%s, %s, %s::jsonb, %s)", [user, k, filters, personalised]
    ).fetchall()


def test_recommendations_are_new_ordered_and_add_up(shop):
    rows = recommend(shop, ANNA)
    assert len(rows) == 5
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    assert not {row[1] for row in rows} & {"tent-2", "bag"}
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
    for row in rows:
        assert sum(reason["contribution"] for reason in row[5]) == pytest.approx(row[3], abs=1e-6)
    assert sum(row[4] for row in rows) == pytest.approx(1)
    assert {row[1] for row in rows[:2]} == {"stove", "tent-4"}
    assert {item["item_id"] for reason in rows[0][5] for item in reason["because"]} & {"tent-2", "bag"}


def test_the_next_call_sees_a_logged_event(shop):
    before = [row[1] for row in recommend(shop, BORIS, 3)]
    assert before[0] == "bits"
    assert shop.execute("select api.log_event(%s, 'tent-2', 'click', 'e1')", [BORIS]).fetchone() == ("e1",)
    shop.execute("select api.log_event(%s, 'tent-2', 'click', 'e1')", [BORIS])
    assert shop.execute("select count(*) from live.event").fetchone() == (1,)
    after = [row[1] for row in recommend(shop, BORIS, 3)]
    assert after[0] == "bag"
    assert "tent-2" not in after


def test_a_dislike_is_not_shown_and_does_not_attract(shop):
    shop.execute("select api.log_event(%s, 'bits', 'dislike')", [BORIS])
    rows = recommend(shop, BORIS, 8)
    assert rows
    assert "bits" not in {row[1] for row in rows}


def test_unknown_null_and_unpersonalised_shoppers_get_what_is_popular(shop):
    popular = [row[1] for row in recommend(shop, None, 8)]
    assert len(popular) == len(IDS)
    assert popular == [row[1] for row in recommend(shop, "u1_" + "f" * 32, 8)]
    assert popular == [row[1] for row in recommend(shop, ANNA, 8, personalised=False)]
    assert {reason["term"] for row in recommend(shop, None, 8) for reason in row[5]} == {"popularity"}


def test_filters_hold_and_fewer_rows_have_a_reason(shop):
    rows = recommend(shop, ANNA, 4, '{"lang": "zh"}')
    assert {row[1] for row in rows} == {"tea", "cup"}
    assert rows[0][7] == "only 2 products match and are new to the shopper"
    assert recommend(shop, ANNA, 2, '{"lang": "zh"}')[0][7] is None


@pytest.mark.parametrize(
    ("k", "filters", "message"), [(0, "{}", "between 1 and 1000"), (3, '{"colour": "red"}', "no filter colour")]
)
def test_bad_arguments_are_refused(shop, k, filters, message):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        recommend(shop, ANNA, k, filters)


def test_a_raw_id_needs_the_key_and_meets_its_pseudonym(shop):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="pseudonyms"):
        recommend(shop, "anna")
    key = bytes(range(32))
    shop.execute("select set_config('souk.pseudonym_key', %s, false)", [key.hex()])
    row = shop.execute("select internal.user_key('小明')").fetchone()
    assert row == ("u1_" + hmac.new(key, "小明".encode(), hashlib.sha256).hexdigest()[:32],)


def test_similar_items(shop):
    rows = shop.execute(f"select {COLUMNS} from api.similar('tent-2', 3)").fetchall()
    assert len(rows) == 3
    assert rows[0][1] == "tent-4"
    assert "tent" in rows[0][5][0]["shared_terms"]
    with pytest.raises(psycopg.errors.NoDataFound, match="no product nothing"):
        shop.execute("select api.similar('nothing')")


@pytest.mark.parametrize(
    ("query", "first"), [("cordless drill", "drill"), ("绿茶", "tea"), ("TENT for four", "tent-4")]
)
def test_search_finds_words_in_both_languages(shop, query, first):
    rows = shop.execute(f"select {COLUMNS} from api.search(%s, 3)", [query]).fetchall()
    assert rows[0][1] == first
    for row in rows:
        assert sum(reason["contribution"] for reason in row[5]) == pytest.approx(row[3], abs=1e-6)


def test_search_understands_a_typo(shop):
    assert shop.execute("select item_id from api.search('cordles dril', 1)").fetchone()[0] in {"drill", "bits"}
    assert shop.execute("select item_id from api.search('', 3)").fetchall() == []


def test_events_that_cannot_be_are_refused(shop):
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        shop.execute("select api.log_event(%s, 'nothing', 'click')", [ANNA])
    with pytest.raises(psycopg.errors.DatetimeFieldOverflow):
        shop.execute("select api.log_event(%s, 'tea', 'click', event_at => now() + interval '1 day')", [ANNA])
    with pytest.raises(psycopg.errors.CheckViolation):
        shop.execute("select api.log_event(%s, 'tea', 'sneeze')", [CHEN])


def test_an_application_may_call_the_api_and_nothing_else(shop):
    shop.execute("set role souk_app")
    assert recommend(shop, ANNA)
    shop.execute("select api.log_event(%s, 'tea', 'click')", [ANNA])
    for statement in (
        "select * from serving.item",
        "select * from live.event",
        "select * from raw.event",
        "select internal.publish_release('shop-1')",
        "delete from serving.pointer",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shop.execute(statement)
