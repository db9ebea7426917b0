"""A small shop with a clock, `tea`, and one without, `ordered`, landed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


class Landing:
    """One landing of a shop; rows are tuples in the order of the columns below."""

    COLUMNS = {
        "product": "item_id, title, description, brand, categories, price, currency",
        "event": "event_id, user_key, item_id, kind, event_at",
        "impression": "request_id, surface, variant, release_id, item_ids, served_at",
        "query": "query_id, user_key, query_text, lang, searched_at, shown_item_ids",
        "review": "review_id, user_key, item_id, rating, body, lang, sentiment, reviewed_at",
    }

    def __init__(self, connection: psycopg.Connection, shop: str, number: int) -> None:
        self._connection, self._shop, self._number = connection, shop, number

    def add(self, entity: str, *rows: tuple[object, ...]) -> None:
        columns = self.COLUMNS[entity]
        marks = ", ".join(["%s"] * (columns.count(",") + 3))
        self._connection.cursor().executemany(
            f"insert into raw.{entity} (shop, landing_no, {columns}) values ({marks})",
            [(self._shop, self._number, *row) for row in rows],
        )


@contextmanager
def landing(
    dsn: str, shop: str, watermark: str, *, has_clock: bool = True, state: str = "complete"
) -> Iterator[Landing]:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "insert into raw.landing (shop, source, manifest_hash, is_generated, has_clock, state, watermark)"
            " values (%s, 'files', gen_random_uuid()::text, true, %s, %s, %s) returning landing_no",
            [shop, has_clock, state, watermark],
        ).fetchone()
        yield Landing(connection, shop, row[0])


def land_tea(dsn: str) -> None:
    with landing(dsn, "tea", "2026-03-02 00:00+00") as tea:
        tea.add(
            "product",
            ("green", "龙井绿茶", "", "Leaf", ["Tea", "Green"], 10, "CNY"),
            ("black", "Black tea", "Malty leaves from Assam, good with milk.", "Leaf", ["Tea", "Black"], 20, "CNY"),
            ("puer", "Old puer", "<b>Aged</b> leaves, earthy, dark and sweet.", None, ["Tea", "Puer"], 900, "CNY"),
            ("cup", "Clay cup", "Clay cup", "Kiln", ["Cups"], None, None),
        )
        tea.add(
            "event",
            ("e1", "ann", "green", "purchase", "2026-03-02 00:00+00"),
            ("e2", "ann", "cup", "view", "2026-01-31 00:00+00"),
            ("e3", "ann", "puer", "purchase", "2026-01-01 00:00+00"),
            ("e4", "ann", "puer", "return", "2026-01-01 00:00+00"),
            ("e5", "ann", "green", "purchase", "2026-03-02 00:00+00"),  # e1 delivered twice
            ("e6", "ann", "unheard", "purchase", "2026-03-01 00:00+00"),
            ("e7", "bob", "black", "dislike", "2026-03-01 00:00+00"),
        )
        tea.add(
            "query",
            ("q1", "ann", "绿茶", "zh", "2026-03-01 23:00+00", ["green", "black"]),
            ("q2", None, "tea", "en", "2026-03-01 22:00+00", []),
        )
        tea.add(
            "review",
            ("r1", "ann", "green", 5, "很好", "zh", 0.8, "2026-03-02 00:00+00"),
            ("r2", "ann", "puer", 2, "又贵又苦", "zh", -0.6, "2026-01-09 00:00+00"),
            ("r3", "eve", "unheard", 1, "?", "und", 0, "2026-01-09 00:00+00"),
        )


def land_ordered(dsn: str) -> None:
    with landing(dsn, "ordered", "2000-01-01 00:00:01+00", has_clock=False) as ordered:
        ordered.add(
            "product",
            ("green", "Green", "", None, ["Tea"], 3, "USD"),
            ("cup", "Cup", "", None, ["Cups"], 3, "USD"),
        )
        ordered.add(
            "event",
            ("ann:0", "ann", "green", "purchase", "2000-01-01 00:00:00+00"),
            ("ann:1", "ann", "cup", "purchase", "2000-01-01 00:00:01+00"),
        )


def contents(dsn: str, shop: str, *, versions: bool = False) -> dict[str, list[str]]:
    """Every row of a shop in every mart as text; with the transaction that wrote it, if wanted."""
    with psycopg.connect(dsn) as connection:
        marts = connection.execute("select tablename from pg_tables where schemaname = 'marts' order by 1").fetchall()
        version = "t.xmin::text || " if versions else ""
        return {
            mart: [
                text
                for (text,) in connection.execute(
                    f"select {version}to_jsonb(t)::text from marts.{mart} as t where shop = %s order by 1", [shop]
                )
            ]
            for (mart,) in marts
        }
