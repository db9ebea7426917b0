"""Releases in Postgres: load a hidden candidate, audit it, show it, and clear away what nobody sees any more."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
from pgvector.halfvec import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from souk.artefacts import SCHEMAS, TABLES
from souk.errors import SoukError
from souk.postgres import connect

log = logging.getLogger(__name__)
Connection = psycopg.Connection[Any]

TYPES = {
    "item": ["text", "text", "text", "text", "text", "text[]", "numeric", "text", "text[]", "float4", "halfvec"],
    "edge": ["text", "text", "text", "text", "float4"],
    "weight": ["text", "text", "int4", "float8"],
    "token_vector": ["text", "text", "halfvec"],
    "posting": ["text", "text", "text", "float4"],
    "user_profile": ["text", "text", "text[]", "int4", "jsonb"],
    "seen": ["text", "text", "text"],
}
PRIMARY_KEYS = {
    "item": "item_id",
    "edge": "src, kind, dst",
    "weight": "term, min_history",
    "token_vector": "token",
    "posting": "term, item_id",
    "user_profile": "user_key",
    "seen": "user_key, item_id",
}
INDEXES = {
    "item": [
        "using hnsw (text_vector halfvec_cosine_ops) with (m = 16, ef_construction = 64)",
        "(popularity desc, item_id)",
    ],
}


@dataclass(frozen=True)
class Release:
    """A line of the ledger: what a release is made from."""

    release_id: str
    shop: str
    content_hash: str
    interval_end: datetime | None
    encoder: str
    is_generated: bool
    has_clock: bool


def is_kept(dsn: str, release_id: str) -> bool:
    """Tell whether a release has passed its audit and its tables are still there."""
    with closing(connect(dsn)) as connection:
        row = connection.execute(
            "select state <> 'candidate' and to_regclass(%s) is not null from serving.release where release_id = %s",
            [f"serving.{partition('item', release_id)}", release_id],
        ).fetchone()
    return bool(row and row[0])


def _is_shown(connection: Connection, release_id: str) -> bool:
    return (
        connection.execute("select 1 from serving.pointer where release_id = %s", [release_id]).fetchone() is not None
    )


def partition(table: str, release_id: str) -> str:
    """Return the name of the table that holds a release's part of `serving.<table>`."""
    return f"{table}_{hashlib.sha256(release_id.encode()).hexdigest()[:16]}"


def load(dsn: str, release: Release, folder: Path, events: int) -> dict[str, int]:
    """Copy a release's files into tables of its own, index them, and attach them, in one transaction.

    No reader sees them: the pointer does not move. What an earlier try left is replaced, and so is a retired release
    whose tables are gone.

    Args:
        dsn: The database.
        release: Its line for the ledger.
        folder: Files as `souk.artefacts` writes them.
        events: Events that the release was trained on, for the ledger.

    Returns:
        Rows of each table, and `events`.

    Raises:
        SoukError: Readers see this release now.
    """
    with closing(connect(dsn)) as connection:
        connection.execute("select pg_advisory_xact_lock(hashtext('souk.load'), hashtext(%s))", [release.release_id])
        if _is_shown(connection, release.release_id):
            raise SoukError(f"Release {release.release_id} is being served", "It needs no loading.")
        register_vector(connection)
        connection.execute("set local maintenance_work_mem = '512MB'")
        _drop(connection, release.release_id)
        counts = {table: _load_table(connection, table, release.release_id, folder) for table in TABLES}
        counts["events"] = events
        connection.execute(
            "insert into serving.release (release_id, shop, interval_end, state, content_hash, row_counts, encoder,"
            " is_generated, has_clock) values (%s, %s, %s, 'candidate', %s, %s, %s, %s, %s)"
            " on conflict (release_id) do update set state = 'candidate', row_counts = excluded.row_counts",
            [
                release.release_id,
                release.shop,
                release.interval_end,
                release.content_hash,
                Jsonb(counts),
                release.encoder,
                release.is_generated,
                release.has_clock,
            ],
        )
        connection.commit()
    return counts


def mark_audited(dsn: str, release_id: str) -> None:
    """Record that a candidate has passed its audit."""
    with closing(connect(dsn)) as connection:
        connection.execute(
            "update serving.release set state = 'audited' where release_id = %s and state = 'candidate'", [release_id]
        )
        connection.commit()


def publish(dsn: str, release_id: str) -> str:
    """Show an audited release to readers, and drop what is two releases old.

    Returns:
        `published`, `unchanged` or `refused`.

    Raises:
        SoukError: The release was not audited.
    """
    with closing(connect(dsn, autocommit=True)) as connection:
        try:
            row = connection.execute("select internal.publish_release(%s)", [release_id]).fetchone()
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            raise SoukError(str(error).splitlines()[0], "Run the audit gate first.") from None
        outcome = str(row[0]) if row else "refused"
        if outcome == "published":
            _sweep(connection)
    return outcome


def _load_table(connection: Connection, table: str, release_id: str, folder: Path) -> int:
    parent, part = sql.Identifier("serving", table), sql.Identifier("serving", partition(table, release_id))
    connection.execute(
        sql.SQL("create table {} (like {} including defaults including constraints)").format(part, parent)
    )
    columns = ["release_id", *SCHEMAS[table].names]
    count = 0
    with connection.cursor() as cursor:
        statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
            part, sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with cursor.copy(statement) as copy:
            copy.set_types(TYPES[table])
            for row in _rows(folder / f"{table}.parquet", table):
                copy.write_row((release_id, *row))
                count += 1
    connection.execute(
        sql.SQL("alter table {} add primary key (release_id, {}), add check (release_id = {})").format(
            part, sql.SQL(PRIMARY_KEYS[table]), sql.Literal(release_id)
        )
    )
    for index in INDEXES.get(table, []):
        connection.execute(sql.SQL("create index on {} {}").format(part, sql.SQL(index)))
    connection.execute(sql.SQL("analyze {}").format(part))
    connection.execute(
        sql.SQL("alter table {} attach partition {} for values in ({})").format(parent, part, sql.Literal(release_id))
    )
    log.info("loaded %s: %s rows", table, f"{count:,}")
    return count


def _rows(path: Path, table: str) -> Iterator[list[Any]]:
    vectors = {"text_vector", "vec"}
    for batch in pq.ParquetFile(path).iter_batches(10_000):
        for row in batch.to_pylist():
            yield [
                HalfVector(value) if name in vectors else Jsonb(json.loads(value)) if name == "profile" else value
                for name, value in row.items()
            ]


def _drop(connection: Connection, release_id: str) -> None:
    for table in TABLES:
        connection.execute(
            sql.SQL("drop table if exists {}").format(sql.Identifier("serving", partition(table, release_id)))
        )


def _sweep(connection: Connection) -> None:
    """Drop the tables of releases that are neither shown nor the last one shown before."""
    old = connection.execute(
        "select release_id from serving.release where state = 'retired' order by published_at desc offset 1"
    ).fetchall()
    for (release_id,) in old:
        for table in TABLES:
            name = partition(table, str(release_id))
            attached = connection.execute(
                "select 1 from pg_inherits where inhrelid = to_regclass(%s)", [f"serving.{name}"]
            ).fetchone()
            if attached:
                # Concurrently: readers of the release that is shown go on.
                connection.execute(
                    sql.SQL("alter table {} detach partition {} concurrently").format(
                        sql.Identifier("serving", table), sql.Identifier("serving", name)
                    )
                )
            connection.execute(sql.SQL("drop table if exists {}").format(sql.Identifier("serving", name)))
