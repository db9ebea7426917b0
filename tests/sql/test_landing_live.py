from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from souk import landing_live
from souk.errors import SoukError
from souk.landing import land
from souk.landing_live import TAKE_OVER, land_live
from souk.settings import Settings
from tests.sql.test_landing import event, fetch, product, shop

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
REQUEST = "00000000-0000-7000-8000-00000000000a"
NOTHING = {"product": 0, "event": 0, "impression": 0}


@pytest.fixture
def settings(tmp_path):
    return replace(Settings.from_env({}), home=tmp_path)


@pytest.fixture
def landed(database, settings):
    """The DSN of a database where a shop with one product has landed."""
    land(database, settings, shop(items=(product(),), happened=(event("e1"),)))
    return database


def execute(dsn, query, *parameters):
    with psycopg.connect(dsn) as connection:
        connection.execute(query, parameters or None)


def log_event(dsn, name, item="tea", at=NOON, request=None, of_shop="shop"):
    execute(
        dsn,
        "insert into live.event (event_id, shop, user_key, item_id, kind, event_at, request_id)"
        " values (%s, %s, 'u1_0', %s, 'click', %s, %s)",
        name,
        of_shop,
        item,
        at,
        request,
    )


def upsert(dsn, item, title, **more):
    """As api.upsert_product writes it."""
    columns = {"shop": "shop", "item_id": item, "title": title, **more}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    execute(
        dsn,
        f"insert into live.item ({names}) values ({marks}) on conflict (shop, item_id) do update set"
        " title = excluded.title, upserted_at = clock_timestamp(), landing_no = null",
        *columns.values(),
    )


def serve(dsn, request=REQUEST, of_shop="shop"):
    execute(
        dsn,
        "insert into live.impression (request_id, shop, user_key, surface, variant, release_id, item_ids, served_at)"
        " values (%s, %s, null, 'recommend', 'default', 'r1', %s, %s)",
        request,
        of_shop,
        ["tea", "cup"],
        NOON,
    )


def test_everything_that_was_logged_lands_together_and_once(landed):
    upsert(landed, "cup", "clay cup", brand="Kiln", categories=["cups"], price=3, currency="USD")
    log_event(landed, "l1", item="cup", request=REQUEST)
    serve(landed)
    assert land_live(landed, "shop") == {"product": 1, "event": 1, "impression": 1}
    assert land_live(landed, "shop") == NOTHING

    [(number, source, state, counts, watermark)] = fetch(
        landed,
        "select landing_no, source, state, row_counts, watermark from raw.landing where manifest_hash like 'live-%'",
    )
    assert (source, state, watermark) == ("live", "complete", NOON)
    assert counts == {"product": 1, "event": 1, "impression": 1}
    assert fetch(landed, "select event_id, request_id::text from raw.event where landing_no = 2") == [("l1", REQUEST)]
    assert fetch(
        landed,
        "select request_id::text, user_key, surface, release_id, item_ids, served_at, landing_no from raw.impression",
    ) == [(REQUEST, None, "recommend", "r1", ["tea", "cup"], NOON, number)]
    [(title, brand, categories, price, is_dated, landing_no)] = fetch(
        landed,
        "select p.title, p.brand, p.categories, p.price::float, p.listed_at = l.upserted_at, p.landing_no"
        " from raw.product as p inner join live.item as l using (shop, item_id)",
    )
    assert (title, brand, categories, price, is_dated, landing_no) == ("clay cup", "Kiln", ["cups"], 3, True, number)
    # Lists are moved; products and events stay until a release has them.
    assert fetch(landed, "select count(*) from live.impression") == [(0,)]
    assert (
        fetch(landed, "select landing_no from live.event union all select landing_no from live.item") == [(number,)] * 2
    )


def test_nothing_logged_is_no_landing(landed):
    before = fetch(landed, "select manifest_hash from raw.landing")
    assert land_live(landed, "shop") == NOTHING
    assert fetch(landed, "select manifest_hash from raw.landing") == before


def test_a_landing_is_named_by_its_content(landed):
    names = []
    for name in ("l1", "l2"):
        log_event(landed, name)
        land_live(landed, "shop")
        names += fetch(landed, f"select manifest_hash from raw.landing where landing_no = {len(names) + 2}")
    assert len(set(names)) == 2
    # The same content in a fresh database has the same name.
    execute(landed, "delete from raw.event where landing_no > 1; delete from raw.landing where landing_no > 1")
    execute(landed, "delete from live.event")
    log_event(landed, "l1")
    land_live(landed, "shop")
    assert fetch(landed, "select manifest_hash from raw.landing where source = 'live'") == names[:1]


def test_what_happens_again_is_another_landing(landed):
    for count in (1, 0, 0):
        serve(landed)
        assert land_live(landed, "shop")["impression"] == count
    names = fetch(landed, "select manifest_hash from raw.landing where source = 'live'")
    assert len(set(names)) == 3


@pytest.mark.parametrize("log", [serve, lambda dsn: upsert(dsn, "tea", "green tea"), lambda dsn: log_event(dsn, "l1")])
def test_each_kind_alone_is_a_landing(landed, log):
    log(landed)
    assert sum(land_live(landed, "shop").values()) == 1
    assert fetch(landed, "select count(*) from raw.landing") == [(2,)]


def test_of_two_versions_of_a_product_the_newest_stays(landed, settings):
    upsert(landed, "tea", "green tea")
    assert land_live(landed, "shop")["product"] == 1
    assert fetch(landed, "select title, landing_no from raw.product") == [("green tea", 2)]
    # A file that landed after the change, and a change after that.
    upsert(landed, "tea", "greener tea")
    land(landed, settings, shop(items=(product(title="tea of the file"),), fingerprint="f2"))
    assert land_live(landed, "shop") == NOTHING
    assert fetch(landed, "select title from raw.product") == [("tea of the file",)]
    upsert(landed, "tea", "greenest tea")
    assert land_live(landed, "shop")["product"] == 1
    assert fetch(landed, "select title from raw.product") == [("greenest tea",)]


def test_an_event_of_a_product_that_comes_while_it_lands_waits_with_it(landed, monkeypatch):
    log_event(landed, "l1")
    first, *later = TAKE_OVER
    assert first == "event", "what an event names was there before it"

    class Slow(dict):
        def items(self):
            for number, entry in enumerate(super().items()):
                if number:
                    upsert(landed, f"wok-{number}", "Wok")
                    log_event(landed, f"w-{number}", item=f"wok-{number}")
                yield entry

    monkeypatch.setattr(landing_live, "TAKE_OVER", Slow(TAKE_OVER))
    land_live(landed, "shop")
    missing = (
        "select e.item_id from raw.event as e left join raw.product as p using (shop, item_id) where p.item_id is null"
    )
    assert fetch(landed, missing) == []
    monkeypatch.undo()
    assert land_live(landed, "shop")["event"] == len(later)
    assert fetch(landed, missing) == []


def test_an_event_that_a_file_brought_too_is_one(landed):
    log_event(landed, "e1")
    assert land_live(landed, "shop")["event"] == 0
    assert fetch(landed, "select event_id, landing_no from raw.event") == [("e1", 1)]
    assert land_live(landed, "shop") == NOTHING


def test_shops_are_kept_apart(landed):
    log_event(landed, "l1", of_shop="other")
    serve(landed, of_shop="other")
    assert land_live(landed, "shop") == NOTHING
    assert fetch(landed, "select count(*) from live.impression") == [(1,)]
    with pytest.raises(SoukError, match="The shop other has not landed"):
        land_live(landed, "other")
    assert fetch(landed, "select landing_no from live.event") == [(None,)]


def test_a_stop_halfway_leaves_everything_as_it_was(landed):
    log_event(landed, "l1")
    serve(landed)
    # The lists come last: they cannot land.
    execute(landed, "alter table raw.impression add constraint refused check (surface <> 'recommend')")
    with pytest.raises(psycopg.errors.CheckViolation):
        land_live(landed, "shop")
    assert fetch(landed, "select landing_no from live.event") == [(None,)]
    assert fetch(landed, "select count(*) from live.impression") == [(1,)]
    assert fetch(landed, "select count(*) from raw.landing") == [(1,)]


def test_one_landing_of_a_shop_at_a_time(landed):
    with psycopg.connect(landed) as other:
        other.execute("select pg_advisory_lock(hashtext('souk.land'), hashtext('shop'))")
        with pytest.raises(SoukError, match="Another process lands the shop shop"):
            land_live(landed, "shop")
