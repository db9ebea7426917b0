from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from souk.errors import SoukError
from souk.landing import land
from souk.privacy import Keys
from souk.settings import Settings
from souk.sources.contract import Dataset

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Shop(Dataset):
    """A data set out of lists."""

    items: tuple = ()
    happened: tuple = ()
    asked: tuple = ()
    said: tuple = ()
    break_after: int | None = None

    def products(self):
        yield list(self.items)

    def events(self):
        for number, start in enumerate(range(0, len(self.happened), 2)):
            if self.break_after is not None and number >= self.break_after:
                raise ConnectionError("the source went away")
            yield list(self.happened[start : start + 2])

    def queries(self):
        yield list(self.asked)

    def reviews(self):
        yield list(self.said)


def product(name="tea", **more):
    return {"item_id": name, "title": f"{name} title", "categories": ["all"], "price": "9.5", **more}


def event(name, **more):
    return {"event_id": name, "user_id": "anna", "item_id": "tea", "kind": "view", "event_at": NOON, **more}


@pytest.fixture
def settings(tmp_path):
    return replace(Settings.from_env({}), home=tmp_path, quarantine_limit=0.9)


def shop(**parts):
    return Shop("shop", "test", True, True, parts.pop("fingerprint", "f1"), **parts)


def fetch(dsn, query):
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def test_rows_land_once_with_pseudonyms(database, settings):
    data = shop(
        items=(product(),),
        happened=(event("e1", contact={"email": "anna@example.org"}), event("e2")),
        asked=({"query_id": "q1", "user_id": "anna", "query_text": "绿茶", "searched_at": NOON},),
        said=(
            {
                "review_id": "r1",
                "user_id": "anna",
                "item_id": "tea",
                "rating": 5,
                "body": "很好喝,非常喜欢",
                "reviewed_at": NOON,
            },
        ),
    )
    first = land(database, settings, data)
    again = land(database, settings, data)
    assert first.rows == {"product": 1, "event": 2, "query": 1, "review": 1} == again.rows
    assert (first.is_new, again.is_new, first.landing_no) == (True, False, again.landing_no)
    key = Keys(settings).user_key("anna")
    assert fetch(database, "select distinct user_key from raw.event") == [(key,)]
    assert fetch(database, "select lang from raw.query") == [("zh",)]
    assert fetch(database, "select sentiment > 0 from raw.review") == [(True,)]
    [(sealed,)] = fetch(database, "select sealed from vault.person")
    assert b"anna" not in sealed
    assert Keys(settings).unseal(key, sealed) == {"email": "anna@example.org"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"event_id": None}, "missing_event_id"),
        ({"user_id": ""}, "missing_user_id"),
        ({"kind": "sneeze"}, "unknown_kind"),
        ({"event_at": "yesterday"}, "bad_event_at"),
        ({"event_at": datetime.now(UTC) + timedelta(days=1)}, "future_timestamp"),
        ({"item_id": "nothing"}, "unknown_item"),
        ({"item_id": "a\x00b"}, "nul_byte"),
        ({"item_id": "\ud800"}, "bad_utf8"),
        ({"item_id": "x" * 201}, "bad_item_id"),
        ({"quantity": "abc"}, "bad_quantity"),
        ({"_unreadable": "broken_json", "_raw": "{"}, "broken_json"),
    ],
)
def test_a_bad_event_is_set_aside_with_its_reason(database, settings, row, reason):
    landed = land(database, settings, shop(items=(product(),), happened=(event("e1"), event("e2", **row))))
    assert landed.rows["event"] == 1
    assert landed.rejected == {reason: 1}
    assert "anna" not in str(fetch(database, "select payload from ops.quarantine"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"title": " "}, "missing_title"),
        ({"price": "-1"}, "bad_price"),
        ({"price": "cheap"}, "bad_price"),
        ({"description": "a\x00"}, "nul_byte"),
        ({"categories": "all"}, "bad_categories"),
    ],
)
def test_a_bad_product_is_set_aside_with_its_reason(database, settings, row, reason):
    landed = land(database, settings, shop(items=(product(), product("cup", **row))))
    assert landed.rows["product"] == 1
    assert landed.rejected == {reason: 1}


def test_of_duplicates_the_last_wins_and_the_other_is_kept_as_evidence(database, settings):
    data = shop(items=(product(title="old"), product(title="new"), product("cup"), product("cup")))
    landed = land(database, settings, data)
    assert dict(fetch(database, "select item_id, title from raw.product")) == {"tea": "new", "cup": "cup title"}
    assert landed.rejected == {"duplicate_id": 1}


def test_a_stopped_landing_shows_nothing_and_goes_on(database, settings):
    events = tuple(event(f"e{number}") for number in range(6))
    data = shop(items=(product(),), happened=events, break_after=2)
    with pytest.raises(ConnectionError):
        land(database, settings, data)
    assert fetch(database, "select count(*) from raw.event") == [(0,)]
    assert fetch(database, "select chunks -> 'event' from raw.landing") == [(2,)]
    landed = land(database, settings, replace(data, break_after=None))
    assert landed.rows["event"] == 6
    assert fetch(database, "select count(*) from raw.event_staging") == [(0,)]


def test_too_many_bad_rows_stop_the_landing_and_leave_nothing(database, settings):
    happened = (event("e1"), event("e2", kind="?"), event("e3", kind="?"))
    with pytest.raises(SoukError, match=r"2 of 3 event rows are bad, more than 50%: unknown_kind 2"):
        land(database, replace(settings, quarantine_limit=0.5), shop(items=(product(),), happened=happened))
    assert fetch(database, "select count(*) from raw.product") == [(0,)]
    assert fetch(database, "select count(*) from raw.landing") == [(0,)]
    assert Counter(fetch(database, "select reason from ops.quarantine")) == {("unknown_kind",): 2}


def test_no_products_stop_the_landing(database, settings):
    with pytest.raises(SoukError, match="test has no products"):
        land(database, settings, shop(happened=(event("e1"),)))


def test_a_new_version_of_a_product_replaces_the_old_one(database, settings):
    land(database, settings, shop(items=(product(),)))
    land(database, settings, shop(items=(product(title="better"),), fingerprint="f2"))
    assert fetch(database, "select title, landing_no from raw.product") == [("better", 2)]
