"""What the commands print, read with the same SQL that applications use."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg

from souk.errors import SoukError
from souk.postgres import connect
from souk.privacy import Keys
from souk.settings import Settings

DEMO_USERS = ("alice", "小明")
DEMO_QUERIES = ("waterproof tent for two people", "绿茶 礼盒")
WIDTH = 62


def release_line(dsn: str) -> str:
    """Return one line about the release that was shown last, of whichever shop.

    Raises:
        SoukError: None is.
    """
    with closing(connect(dsn)) as connection:
        row = connection.execute(
            "select r.release_id, r.published_at, r.row_counts, r.is_generated,"
            " (select n.outcome from serving.publication as n inner join serving.release as o using (release_id)"
            " where o.shop = r.shop order by n.publication_no desc limit 1)"
            " from serving.release as r inner join serving.pointer as p using (release_id)"
            " order by p.moved_at desc limit 1"
        ).fetchone()
    if row is None:
        raise SoukError("No release is published", "Run: make demo.")
    release_id, published_at, rows, is_generated, outcome = row
    generated = " · generated data" if is_generated else ""
    return (
        f"release {release_id} · {rows['item']:,} items · {rows['events']:,} events · {rows['user_profile']:,} users"
        f" · live since {published_at:%Y-%m-%d %H:%M} UTC · last run: {outcome}{generated}"
    )


def status(dsn: str) -> str:
    """Return what is live, the last gates, and what is in quarantine."""
    with closing(connect(dsn)) as connection:
        gates = connection.execute(
            "select g.gate, g.verdict from ops.gate_result as g"
            " inner join (select p.release_id from serving.pointer as p order by p.moved_at desc limit 1) as shown"
            " on shown.release_id = g.run_id order by g.decided_at"
        ).fetchall()
        rejects = connection.execute(
            "select shop, entity, reason, count(*) from ops.quarantine group by 1, 2, 3 order by 1, 2, 3"
        ).fetchall()
    lines = [release_line(dsn), *(f"  gate {gate}: {verdict}" for gate, verdict in gates)]
    lines += [f"  quarantine {shop}: {entity} {reason} {count}" for shop, entity, reason, count in rejects]
    return "\n".join(lines)


def demo(dsn: str, settings: Settings) -> str:
    """Return recommendations and searches as a page of text."""
    lines: list[str] = []
    with closing(connect(dsn)) as connection:
        connection.execute("select set_config('souk.pseudonym_key', %s, false)", [Keys(settings).pseudonym_hex])
        for user in DEMO_USERS:
            lines += [f"\nselect * from api.recommend('{user}', 5)   -- generated data"]
            lines += _table(connection, "select * from api.recommend(%s, 5)", user)
        for query in DEMO_QUERIES:
            lines += [f"\nselect * from api.search('{query}', 5)   -- generated data"]
            lines += _table(connection, "select * from api.search(%s, 5)", query)
        lines += _refined(connection)
    return "\n".join([*lines, "", release_line(dsn), "next: make up (Airflow UI), make psql (SQL), make status"])


def _refined(connection: psycopg.Connection[Any]) -> list[str]:
    """Return one description that the refiner wrote, and the original; nothing where it wrote none."""
    row = connection.execute(
        "select i.title, o.description, i.description from serving.item as i"
        " inner join serving.original as o using (release_id, item_no)"
        " inner join serving.pointer as p using (release_id) order by p.moved_at desc, i.item_no limit 1"
    ).fetchone()
    if row is None:
        return []
    title, original, text = row
    return [f"\na description that was refined: {title}   -- generated data", f" original  {original or '(none)'}",
            f" refined   {text}"]  # fmt: skip


def _table(connection: psycopg.Connection[Any], statement: str, value: str) -> list[str]:
    rows = connection.execute(statement, [value]).fetchall()
    if not rows:
        raise SoukError(f"{statement} returned nothing for {value!r}", "Run: make status.")
    return [
        f" {rank}  {score:6.3f}  {_cut(title):{WIDTH}} {_why(reasons)}"
        for rank, _, title, _, score, _, reasons, *_ in rows
    ]


def _why(reasons: list[dict[str, Any]]) -> str:
    parts = []
    for reason in sorted(reasons, key=lambda reason: -abs(reason["contribution"])):
        if abs(reason["contribution"]) < 0.0005:
            continue
        because = [f"«{_cut(item['title'], 28)}»" for item in reason.get("because", [])[:1]]
        because += [", ".join(reason.get("matched", [])[:4])] if reason.get("matched") else []
        parts.append(f"{reason['term']} {reason['contribution']:.3f}" + (f" ({because[0]})" if because else ""))
    return " + ".join(parts)


def _cut(text: str, width: int = WIDTH) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
