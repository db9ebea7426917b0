"""The ledger of the refiner: what became of each description, and what people decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from souk.errors import SoukError
from souk.postgres import connect

Connection = psycopg.Connection[Any]
MACHINE = "souk"


def decisions_hash(connection: Connection, shop: str) -> str:
    """Return a hash of what people decided by command: another decision, another release."""
    rows = connection.execute(
        "select 'rejected', item_id, text_hash from ops.refinement_rejection where shop = %(shop)s"
        " union all select 'reverted', item_id, text_hash || model_version from ops.refinement"
        " where shop = %(shop)s and state = 'reverted' and decided_by <> %(machine)s"
        " union all select 'approved', content_hash, is_approved::text from ops.refinement_approval"
        " where shop = %(shop)s and release_id is null order by 1, 2, 3",
        {"shop": shop, "machine": MACHINE},
    ).fetchall()
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def barred(connection: Connection, shop: str) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Return state and reason of what may not be published, by item, text hash and model ('' for any model).

    What a person has reverted may not come back from another model, either: it stands under its text, too.
    """
    rejected = connection.execute(
        "select item_id, text_hash, '', 'rejected', reason from ops.refinement_rejection where shop = %s", [shop]
    ).fetchall()
    reverted = connection.execute(
        "select r.item_id, r.text_hash, k.key, r.state, r.reason from ops.refinement as r"
        " cross join lateral (values (r.model_version), (case when r.decided_by <> %s then r.new_text end)) as k (key)"
        " where r.shop = %s and r.state = 'reverted' and k.key is not null",
        [MACHINE, shop],
    ).fetchall()
    return {(row[0], row[1], row[2]): (row[3], row[4]) for row in [*reverted, *rejected]}


def write(connection: Connection, shop: str, rows: Sequence[Mapping[str, Any]], release_id: str) -> None:
    """Record what became of descriptions; a text that is in force belongs to the release, too."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.refinement as r (shop, item_id, text_hash, model_version, old_text, new_text, spans,"
            " scores, reason, state, effect, is_in_vector, releases) values (%(shop)s, %(item_id)s, %(text_hash)s,"
            " %(model_version)s, %(old_text)s, %(new_text)s, %(spans)s, %(scores)s, %(reason)s, %(state)s, %(effect)s,"
            " %(is_in_vector)s, %(releases)s) on conflict (shop, item_id, text_hash, model_version) do update set"
            " new_text = excluded.new_text, spans = excluded.spans, scores = excluded.scores,"
            " reason = excluded.reason, effect = excluded.effect, is_in_vector = excluded.is_in_vector,"
            " state = case when r.state = 'published' and excluded.state = 'proposed' then r.state"
            " else excluded.state end,"
            " releases = array_remove(r.releases, %(release)s) || excluded.releases,"
            " decided_by = case when r.state = excluded.state then r.decided_by else excluded.decided_by end,"
            " decided_at = case when r.state = excluded.state then r.decided_at else now() end"
            # A person's word stays.
            f" where r.state not in ('reverted', 'rejected') or r.decided_by = '{MACHINE}'",
            [
                {
                    **row,
                    "shop": shop,
                    "release": release_id,
                    "spans": Jsonb(row["spans"]),
                    "scores": Jsonb(row["scores"]),
                    "effect": Jsonb(row["effect"]),
                    "releases": [release_id] if row["state"] == "proposed" else [],
                }
                for row in rows
            ],
        )


def mark_published(dsn: str, release_id: str) -> None:
    """Record that readers see the texts of a release."""
    with closing(connect(dsn, autocommit=True)) as connection:
        connection.execute(
            "update ops.refinement set state = 'published', decided_at = now()"
            " where state = 'proposed' and %s = any(releases)",
            [release_id],
        )


def answer(connection: Connection, shop: str, content_hash: str) -> bool | None:
    """Return what a person said to a set of texts; None if nobody was asked."""
    row = connection.execute(
        "select is_approved from ops.refinement_approval where shop = %s and content_hash = %s", [shop, content_hash]
    ).fetchone()
    return bool(row[0]) if row else None


def record_answer(
    connection: Connection,
    shop: str,
    content_hash: str,
    share: float,
    is_approved: bool,
    release_id: str | None,
    by: str,
) -> None:
    """Keep what a person said."""
    connection.execute(
        "insert into ops.refinement_approval (shop, content_hash, share, is_approved, release_id, decided_by)"
        " values (%s, %s, %s, %s, %s, %s) on conflict (shop, content_hash) do update set"
        " is_approved = excluded.is_approved, release_id = excluded.release_id, decided_by = excluded.decided_by,"
        " decided_at = now()",
        [shop, content_hash, share, is_approved, release_id, by],
    )


def take_back(dsn: str, item_id: str, reason: str, state: str) -> str:
    """Take the text in force of a product back, at once: `reverted` this one, `rejected` for every model.

    Raises:
        SoukError: The shop that was published last has no new text of this product.
    """
    with closing(connect(dsn, autocommit=True)) as connection, connection.transaction():
        shop = shown_shop(connection)
        row = connection.execute(
            "update ops.refinement set state = %s, reason = %s, decided_by = session_user, decided_at = now()"
            " where (shop, item_id, text_hash, model_version) in (select shop, item_id, text_hash, model_version"
            " from ops.refinement where shop = %s and item_id = %s and new_text is not null"
            # The one that readers see, whatever has been proposed since.
            " order by coalesce((select p.release_id from serving.pointer as p where p.shop = %s) = any(releases),"
            " false) desc, decided_at desc limit 1) returning text_hash",
            [state, reason, shop, item_id, shop],
        ).fetchone()
        if row is None:
            raise SoukError(f"{shop} has no refined text of {item_id}", "Look for it in ops.refinement.")
        if state == "rejected":
            connection.execute(
                "insert into ops.refinement_rejection (shop, item_id, text_hash, reason) values (%s, %s, %s, %s)"
                " on conflict (shop, item_id, text_hash) do update set reason = excluded.reason",
                [shop, item_id, row[0], reason],
            )
        restored = connection.execute("select internal.restore_original(%s, %s)", [shop, item_id]).fetchone()
    shown = "readers see the original again" if restored and restored[0] else "readers did not see it"
    return f"{item_id} of {shop}: {state} ({reason}); {shown}"


def approve(dsn: str) -> str:
    """Approve the set of texts that a person declined last; the next run publishes it.

    Raises:
        SoukError: None was declined.
    """
    with closing(connect(dsn, autocommit=True)) as connection:
        row = connection.execute(
            "update ops.refinement_approval set is_approved = true, release_id = null, decided_by = session_user,"
            " decided_at = now() where (shop, content_hash) in (select shop, content_hash from ops.refinement_approval"
            " where shop = %s and not is_approved order by decided_at desc limit 1) returning share",
            [shown_shop(connection)],
        ).fetchone()
    if row is None:
        raise SoukError("No set of texts waits for approval", "Run: python -m souk refine status.")
    return f"approved: {row[0]:.1%} of the catalogue; the next run publishes them"


def status(dsn: str) -> str:
    """Return what the ledger holds of the shop that was published last, one line a state and reason."""
    with closing(connect(dsn, autocommit=True)) as connection:
        shop = shown_shop(connection)
        rows = connection.execute(
            "select state, reason, count(*) from ops.refinement where shop = %s group by 1, 2 order by 1, 3 desc, 2",
            [shop],
        ).fetchall()
        shown = connection.execute(
            "select count(*) filter (where i.is_refined), count(*) from serving.item as i"
            " inner join serving.pointer as p using (release_id) where p.shop = %s",
            [shop],
        ).fetchone() or (0, 0)
    lines = [f"{shop}: readers see {shown[0]:,} refined texts among {shown[1]:,} products"]
    return "\n".join([*lines, *(f"  {state:<14} {reason or '-':<22} {count:,}" for state, reason, count in rows)])


def shown_shop(connection: Connection) -> str:
    """Return the shop that was published last.

    Raises:
        SoukError: None was.
    """
    row = connection.execute("select shop from serving.pointer order by moved_at desc, shop limit 1").fetchone()
    if row is None:
        raise SoukError("No release is published", "Run: make demo.")
    return str(row[0])
