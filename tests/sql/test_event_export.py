"""The export of the event lake from a mart: what counts as a change, and what a reader gets."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from souk.errors import SoukError
from souk.event_lake import MAX_DATES, export_events, verified_files
from souk.shoppers import DISLIKE, LIKE, PURCHASE

ROWS = [
    ("tea", "e1", "ann", "green", "purchase", 1.0, "2026-03-01 23:59:59.999999+00"),
    ("tea", "e2", "bob", "绿茶", "view", 0.2, "2026-03-01 12:00+00"),
    ("tea", "e3", "ann", "cup", "view", 0.4, "2026-03-02 00:00+00"),
    ("tea", "e4", "ann", "green", "return", -0.7, "2026-03-02 00:00+00"),
    ("tea", "e5", "eve", "cup", "view", 0.4, "2025-12-31 20:00-05"),
    ("hat", "e1", "ann", "hat", "purchase", 1.0, "2026-03-01 00:00+00"),
]


@pytest.fixture
def mart(database: str):
    """A connection that sees a mart with these rows; it lives far east of UTC."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("set time zone 'Asia/Shanghai'")
        connection.execute(
            "create schema if not exists marts; create table marts.fct_interactions (shop text, event_id text,"
            " user_key text, item_id text, kind text, strength real, event_at timestamptz, landing_no bigint default 1)"
        )
        add(connection, ROWS)
        yield connection


def add(connection: psycopg.Connection, rows: list[tuple[object, ...]]) -> None:
    connection.cursor().executemany(
        "insert into marts.fct_interactions (shop, event_id, user_key, item_id, kind, strength, event_at)"
        " values (%s, %s, %s, %s, %s, %s, %s)",
        rows,
    )


def exported(folder: Path) -> list[dict]:
    files = [pq.read_table(path, partitioning=None) for path in verified_files(folder)]
    return pa.concat_tables(files).to_pylist()


@pytest.fixture
def lake(mart, tmp_path: Path) -> Path:
    folder = tmp_path / "tea" / "events"
    assert export_events(mart, "tea", folder) == ["date=2026-01-01", "date=2026-03-01", "date=2026-03-02"]
    return folder


def test_events_of_the_shop_lie_by_utc_date_in_one_order(lake):
    found = [(*list(row.values())[:2], str(row["event_at"]), row["event_id"], row["signal"]) for row in exported(lake)]
    assert found == [
        ("eve", "cup", "2026-01-01 01:00:00+00:00", "e5", LIKE),
        ("ann", "green", "2026-03-01 23:59:59.999999+00:00", "e1", PURCHASE),
        ("bob", "绿茶", "2026-03-01 12:00:00+00:00", "e2", LIKE),
        ("ann", "cup", "2026-03-02 00:00:00+00:00", "e3", LIKE),
        ("ann", "green", "2026-03-02 00:00:00+00:00", "e4", DISLIKE),
    ]


@pytest.mark.parametrize(
    "change",
    [
        "create table other as select * from marts.fct_interactions order by event_id desc;"
        " truncate marts.fct_interactions; insert into marts.fct_interactions select * from other",
        "update marts.fct_interactions set landing_no = 2, strength = strength / 2",
        "set time zone 'America/New_York'",
        "update marts.fct_interactions set item_id = 'x' where shop = 'hat'",
    ],
    ids=["another_order", "columns_that_do_not_count", "another_time_zone", "other_rows"],
)
def test_what_changes_no_event_writes_nothing(mart, lake, change):
    before = {path: path.stat().st_mtime_ns for path in lake.rglob("*")}
    mart.execute(change)
    assert export_events(mart, "tea", lake) == []
    assert {path: path.stat().st_mtime_ns for path in lake.rglob("*")} == before


@pytest.mark.parametrize(
    "change",
    [
        "update marts.fct_interactions set event_at = event_at - interval '1 microsecond' where event_id = 'e2'",
        "update marts.fct_interactions set item_id = 'reen', user_key = 'anng' where event_id = 'e1' and shop = 'tea'",
        "update marts.fct_interactions set event_id = 'e0' where event_id = 'e2'",
        "update marts.fct_interactions set item_id = 'black' where event_id = 'e2'",
        "update marts.fct_interactions set user_key = case user_key when 'ann' then 'bob' else 'ann' end"
        " where event_id in ('e1', 'e2')",
        "update marts.fct_interactions set strength = -1 where event_id = 'e2'",
        "update marts.fct_interactions set kind = 'purchase' where event_id = 'e2'",
        "insert into marts.fct_interactions values ('tea', 'late', 'ann', 'green', 'view', 1, '2026-03-02 07:59+08')",
    ],
    ids=["instant", "borders_of_columns", "event_id", "item", "swapped_shoppers", "mood", "kind", "late_event"],
)
def test_what_changes_an_event_writes_its_date_alone(mart, lake, change):
    mart.execute(change)
    assert export_events(mart, "tea", lake) == ["date=2026-03-01"]
    assert export_events(mart, "tea", lake) == []
    total = mart.execute("select count(*) from marts.fct_interactions where shop = 'tea'").fetchone()
    assert len(exported(lake)) == total[0]


def test_an_erased_shopper_leaves_no_trace(mart, lake):
    mart.execute("delete from marts.fct_interactions where user_key in ('bob', 'eve')")
    assert export_events(mart, "tea", lake) == ["date=2026-03-01"]
    users = [user for path in lake.rglob("*.parquet") for user in pq.read_table(path)["user_key"].to_pylist()]
    assert users == ["ann", "ann", "ann"]
    assert not (lake / "date=2026-01-01").exists()


def test_ordinals_instead_of_times_are_one_date_or_months(mart, tmp_path):
    """A shop without a clock counts the seconds from 2000-01-01; one that counted days would have thousands of dates."""
    for shop, step in {"ordered": "1 second", "daily": "1 day"}.items():
        mart.execute(
            "insert into marts.fct_interactions select %s, u || ':' || n, u, 'i' || n, 'view', 1, timestamptz"
            " '2000-01-01 00:00+00' + n * %s::interval from generate_series(0, %s) as n, unnest('{ann,bob}'::text[]) u",
            [shop, step, MAX_DATES],
        )
    assert export_events(mart, "ordered", tmp_path / "ordered") == ["date=2000-01-01"]
    months = export_events(mart, "daily", tmp_path / "daily")
    assert (months[0], months[-1], len(months)) == ("month=2000-01", "month=2002-09", 33)
    for shop in ("ordered", "daily"):
        rows = exported(tmp_path / shop)
        for user in ("ann", "bob"):
            own = sorted((row["event_at"], row["item_id"]) for row in rows if row["user_key"] == user)
            assert [item for _, item in own] == [f"i{n}" for n in range(MAX_DATES + 1)]
    mart.execute("delete from marts.fct_interactions where shop = 'daily' and event_at < '2000-02-01 00:00+00'")
    assert export_events(mart, "daily", tmp_path / "daily")[0] == "date=2000-02-01"
    assert not (tmp_path / "daily" / "month=2000-03").exists()


def test_one_export_of_a_shop_at_a_time(mart, lake, database):
    with psycopg.connect(database) as other:
        other.execute("select pg_advisory_xact_lock(hashtext('souk.event_lake'), hashtext('tea'))")
        with pytest.raises(SoukError, match="Another process exports the events of tea"):
            export_events(mart, "tea", lake)
        assert len(export_events(mart, "hat", lake.parent / "hat")) == 1
    assert export_events(mart, "tea", lake) == []


def test_an_export_sees_the_mart_of_one_moment(mart, lake, database, monkeypatch):
    """Rows that come between the counting and the reading are for the next export."""
    from souk import event_lake

    count = event_lake._count

    def counted_before(*arguments):
        found = count(*arguments)
        with psycopg.connect(database) as other:
            add(other, [("tea", "e9", "ann", "cup", "purchase", 1.0, "2026-03-01 00:00+00")])
        return found

    mart.execute("delete from marts.fct_interactions where event_id = 'e2'")
    monkeypatch.setattr(event_lake, "_count", counted_before)
    assert export_events(mart, "tea", lake) == ["date=2026-03-01"]
    monkeypatch.undo()
    assert len(exported(lake)) == 4
    assert export_events(mart, "tea", lake) == ["date=2026-03-01"]
    assert len(exported(lake)) == 5
