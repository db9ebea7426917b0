"""What training reads of the marts, of a shop small enough to work it out by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import date

import numpy as np
import psycopg
import pytest
from small_shops import land_ordered, landing

from souk.profiles import build_profiles
from souk.settings import Settings
from souk.shoppers import (
    Connection,
    item_days,
    place_items,
    read_behaviour,
    read_histories,
    read_opinions,
    read_profiles,
    repeat_gaps,
)
from souk.training import read_judged

pytestmark = pytest.mark.slow

IDS = ["cup", "green", "hat"]
COMEBACKS = 60


def land(dsn: str) -> None:
    with landing(dsn, "tea", "2026-03-31 12:00+00") as tea:
        tea.add(
            "product",
            ("green", "Green tea", "", "Leaf", ["Tea"], 10, "CNY"),
            ("cup", "Clay cup", "", "Kiln", ["Cups"], 5, "CNY"),
            ("hat", "Hat", "", None, [], None, None),
            ("gone", "No vector", "", None, ["Tea"], None, None),
        )
        # Sixty people buy tea twice, 30 days apart; twice on the same day is once. Nobody buys a cup again.
        for person in range(COMEBACKS):
            tea.add(
                "event",
                (f"a{person}", f"p{person:02}", "green", "purchase", "2026-02-01 09:00+00"),
                (f"b{person}", f"p{person:02}", "green", "purchase", "2026-02-01 21:00+00"),
                (f"c{person}", f"p{person:02}", "green", "purchase", "2026-03-03 09:00+00"),
                (f"d{person}", f"p{person:02}", "cup", "purchase", "2026-02-01 09:00+00"),
            )
        tea.add(
            "event",
            ("e1", "ann", "cup", "view", "2026-03-30 23:30-02"),  # the 31st in UTC
            ("e2", "ann", "green", "purchase", "2026-02-10 00:00+00"),
            ("e3", "ann", "gone", "purchase", "2026-03-01 00:00+00"),
            ("e4", "ann", "hat", "purchase", "2026-03-01 00:00+00"),
            ("e5", "ann", "hat", "return", "2026-03-09 00:00+00"),
            ("s1", "bob", "green", "click", "2026-03-30 00:00:10+00"),
            ("s2", "bob", "green", "purchase", "2026-03-30 00:00:20+00"),
            ("s3", "bob", "green", "click", "2026-03-29 00:00:10+00"),
            ("s4", "bob", "cup", "click", "2026-03-29 00:00:20+00"),
        )
        tea.add(
            "query",
            ("q1", "bob", "Tea ", "en", "2026-03-30 00:00+00", ["cup", "green", "gone"]),
            ("q2", "bob", "tea", "en", "2026-03-29 00:00+00", ["green"]),
            ("q3", "eve", "tent", "en", "2026-03-31 00:00+00", ["cup"]),
        )
        tea.add(
            "review",
            ("r1", "ann", "green", 5, "lovely", "en", 0.5, "2026-03-01 00:00+00"),
            ("r2", "ann", "cup", 1, " ", "und", 0, "2026-03-01 00:00+00"),
            ("r3", "bob", "cup", None, "", "und", 0, "2026-03-01 00:00+00"),
            ("r4", "eve", "green", 1, "bad", "en", -0.4, "2026-03-01 00:00+00"),
        )
    with psycopg.connect(dsn) as connection:
        for query, events in {"q1": ["s1", "s2"], "q2": ["s3", "s4"]}.items():
            connection.execute("update raw.event set query_id = %s where event_id = any(%s)", [query, events])


@pytest.fixture(scope="module")
def connection(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    settings = dataclasses.replace(Settings.from_env({}), home=tmp_path_factory.mktemp("dbt"))
    land(module_database)
    land_ordered(module_database)
    build_profiles(module_database, settings, "tea")
    build_profiles(module_database, settings, "ordered")
    with psycopg.connect(module_database, autocommit=True) as connection:
        place_items(connection, IDS)
        yield connection


def test_what_is_bought_again_is_learned(connection):
    assert repeat_gaps(connection, "tea") == {"Tea": 30.0}


def test_without_a_clock_nothing_repeats_and_no_day_is_known(connection):
    assert repeat_gaps(connection, "ordered") == {}
    assert item_days(connection, "ordered") == []


def test_behaviour(connection):
    histories = read_histories(connection, "tea")
    found = read_behaviour(connection, "tea", np.array([np.inf, 30.0, np.inf]), histories)
    ann, bob, first = found.pasts["ann"], found.pasts["bob"], found.pasts["p00"]
    # Tea was bought 49 days ago and is due; the hat came back; `gone` has no vector.
    assert (list(ann.history), list(ann.seen), list(ann.disliked)) == ([0, 1], [0, 2], [2])
    assert (list(bob.history), list(bob.seen)) == ([1, 0], [0, 1])
    assert (list(first.history), list(first.seen)) == ([1, 0], [0, 1])
    assert list(found.pasts) == sorted(found.pasts)
    order = list(found.pasts)
    assert list(found.liked[order.index("ann")]) == [1, 2, 0]
    assert list(found.bought[order.index("ann")]) == [1, 2]
    assert list(found.liked[order.index("bob")]) == [1, 0, 1, 1]
    assert found.events == 4 * COMEBACKS + 4 + 4


def test_opinions_weigh_reviews_by_their_mood(connection):
    vectors = np.eye(384, dtype=np.float16)[:3]
    asked = []

    def encode(texts):
        asked.extend(texts)
        return np.stack([np.eye(384)[10] if text.strip() else np.zeros(384) for text in texts]).astype(np.float32)

    found = {user: (praise, complaint) for user, praise, complaint in read_opinions(connection, "tea", vectors, encode)}
    assert asked == ["lovely", " ", "bad"]
    assert set(found) == {"ann", "eve"}  # neither text nor stars from bob
    about_tea = (np.eye(384)[1] + np.eye(384)[10]) / np.sqrt(2)
    assert found["ann"][0] == pytest.approx(about_tea, abs=1e-3)
    assert found["ann"][1] == pytest.approx(np.eye(384)[0], abs=1e-3)  # one star, no text
    assert found["eve"][0] is None
    assert found["eve"][1] == pytest.approx(about_tea, abs=1e-3)


def test_days_are_utc_and_end_with_the_data(connection):
    days = item_days(connection, "tea")
    assert (date(2026, 3, 31), 0, 1) in days
    assert (date(2026, 3, 30), 1, 2) in days
    # The 28 days begin on 4 March: the purchases of the third are too old, a return is no demand.
    assert {day for day, _, _ in days} == {date(2026, 3, 29), date(2026, 3, 30), date(2026, 3, 31)}


def test_judged_queries_are_the_searches_that_led_somewhere(connection):
    [tea] = read_judged(connection, "tea")
    # Bought in one search and clicked in another; the cup was ignored in one and clicked, unshown, in the other.
    assert (tea.query, tea.grades) == ("tea", {0: pytest.approx(0.25 / 0.75), 1: 1.0})


def test_profiles_are_json(connection):
    profiles = dict(read_profiles(connection, "tea"))
    assert profiles["ann"]["purchase_count"] == 3
    assert "user_key" not in profiles["ann"]
    assert "eve" in profiles
