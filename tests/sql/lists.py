"""Calling the list functions of the api, and what holds for each of their lists."""

from __future__ import annotations

import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.sql.conftest import ANNA, CHEN

# What each list function cannot do without.
LISTS = {
    "recommend": {"user_id": ANNA},
    "search": {"query": "Alpine tent"},
    "similar": {"to_item": "tent-2"},
    "also_bought": {"with_item": "tent-2"},
    "trending": {},
    "recommend_by_description": {"user_id": CHEN},
}


def call(connection, function, **arguments):
    """Rows of a function of the api, as dicts; arguments by name."""
    named = LISTS.get(function, {}) | arguments
    values = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in named.items()}
    text = ", ".join(f"{name} => %({name})s" for name in values)
    return connection.cursor(row_factory=dict_row).execute(f"select * from api.{function}({text})", values).fetchall()


def ids(rows):
    return [row["item_id"] for row in rows]


def assert_adds_up(rows, k):
    """A list of at most k different products, best first, whose reasons and weights sum up."""
    assert rows
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(set(ids(rows))) == len(rows) <= k
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    for row in rows:
        assert sum(reason["contribution"] for reason in row["reasons"]) == pytest.approx(row["score"], abs=1e-6)
    assert sum(row["interest_weight"] for row in rows) == pytest.approx(1)
    assert len({(row["release_id"], row["request_id"], row["fewer_because"]) for row in rows}) == 1
    assert rows[0]["request_id"]
    assert (rows[0]["fewer_because"] is None) == (len(rows) == k)
