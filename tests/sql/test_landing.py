from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

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
        ({"quantity": 1.5}, "bad_quantity"),
        ({"_unreadable": "broken_json", "_raw": '{"user": "anna'}, "broken_json"),
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
        ({"price": float("inf"), "attributes": {"w": float("nan")}}, "bad_price"),
        ({"attributes": "red"}, "bad_attributes"),
        ({"attributes": "[1]"}, "bad_attributes"),
        ({"attributes": {"w": "a\x00"}}, "nul_byte"),
        ({"attributes": {"w": "\ud800"}}, "bad_utf8"),
    ],
)
def test_a_bad_product_is_set_aside_with_its_reason(database, settings, row, reason):
    landed = land(database, settings, shop(items=(product(), product("cup", **row))))
    assert landed.rows["product"] == 1
    assert landed.rejected == {reason: 1}


def test_what_data_frames_write_for_nothing_is_nothing(database, settings):
    nan = float("nan")
    odd = product(price=nan, brand=nan, categories=[" Food ", None, nan], attributes='{"size": 3}')
    happened = event("e1", quantity=1.0, session_id=nan, contact={"phone": Decimal("555")})
    landed = land(database, settings, shop(items=(odd, product("cup", attributes={"w": nan})), happened=(happened,)))
    assert landed.rejected == {}
    assert fetch(database, "select brand, price, categories, attributes from raw.product order by item_id") == [
        (None, Decimal("9.50"), ["all"], {"w": None}),
        (None, None, ["Food"], {"size": 3}),
    ]
    assert fetch(database, "select quantity, session_id from raw.event") == [(1, None)]


def test_bad_input_is_refused_however_often_it_is_tried(database, settings):
    strict = replace(settings, quarantine_limit=0.1)
    bad = tuple(event(f"e{number}", kind="wink" if number % 2 else "view") for number in range(10))
    for _ in range(2):
        with pytest.raises(SoukError, match="5 of 10 event rows are bad, more than 10%: unknown_kind 5"):
            land(database, strict, shop(items=(product(),), happened=bad))
    alike = ({"_unreadable": "broken_json", "_raw": "{"},) * 6
    good = tuple(event(f"g{number}") for number in range(10))
    with pytest.raises(SoukError, match="6 of 16 event rows are bad, more than 10%: broken_json 6"):
        land(database, strict, shop(items=(product(),), happened=(*good, *alike)))
    # Rows that another input had, too, count once more, and are evidence once.
    longer = (*bad, *(event(f"f{number}") for number in range(20)))
    with pytest.raises(SoukError, match="5 of 30 event rows"):
        land(database, strict, shop(items=(product(),), happened=longer, fingerprint="f2"))
    assert land(database, settings, shop(items=(product(),), happened=longer)).rejected == {"unknown_kind": 5}
    assert fetch(database, "select count(*) from ops.quarantine") == [(6,)]


def test_events_of_unknown_products_are_bad_rows(database, settings):
    happened = tuple(event(f"e{number}", item_id="tea" if number < 2 else "tea.0") for number in range(8))
    data = shop(items=(product(),), happened=happened)
    with pytest.raises(SoukError, match="6 of 8 event rows are bad, more than 50%: unknown_item 6"):
        land(database, replace(settings, quarantine_limit=0.5), data)
    assert fetch(database, "select count(*) from raw.event_staging") == [(0,)]
    assert fetch(database, "select reason, count(*) from ops.quarantine group by 1") == [("unknown_item", 6)]
    # An earlier landing's products are known, and so are those of the same input.
    land(database, settings, data)
    later = shop(items=(product("cup"),), happened=(event("n1", item_id="cup"), event("n2")), fingerprint="f2")
    assert land(database, replace(settings, quarantine_limit=0), later).rejected == {}
    assert fetch(database, "select count(*) from raw.event") == [(4,)]


def test_an_earlier_input_again_changes_nothing_and_says_so(database, settings, caplog):
    caplog.set_level("INFO")
    first = shop(items=(product(price="10"),), happened=(event("e1"),))
    land(database, settings, first)
    land(database, settings, replace(first, items=(product(price="8"),), fingerprint="f2"))
    assert "1 of the event rows have landed before, and stay as they are" in caplog.text
    assert not land(database, settings, first).is_new
    assert "this input has landed before, as landing 1; what has landed since stays in force" in caplog.text
    assert fetch(database, "select price from raw.product") == [(Decimal("8.00"),)]


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
    happened = (event("e1"), event("e2", kind="?"), event("e3", kind="??"))
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
