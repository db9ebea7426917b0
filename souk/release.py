"""Releases in Postgres: load a hidden candidate, audit it, show it, and clear away what nobody sees any more."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql
from psycopg.types.json import Jsonb

from ml.search import LEXICAL_DIMENSION
from souk import index_effort
from souk.artefacts import SCHEMAS, TABLES
from souk.errors import SoukError
from souk.index_build import create_index, graph_options, set_resources
from souk.postgres import connect
from spark_jobs.pgvector import copy_binary

log = logging.getLogger(__name__)
Connection = psycopg.Connection[Any]

INDEXES = {
    "item": [
        "index on {table} using hnsw (text_vector halfvec_cosine_ops) with ({graph})",
        "index on {table} using hnsw (sequence_output halfvec_ip_ops) with ({graph})",
        "unique index on {table} (release_id, item_id)",
        # With what a count of matching products reads.
        "index on {table} (brand) include (item_no, is_available)",
        "index on {table} (price) include (item_no, is_available)",
        "index on {table} (lang) include (item_no, is_available)",
        "index on {table} using gin (categories)",
        "index on {table} using gin (attributes jsonb_path_ops)",
    ],
}
ROWS_PER_BLOCK = 10_000
# Each waits three seconds for open transactions.
PUBLISH_ATTEMPTS = 20


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
    landing_no: int | None = None


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
        Rows of each table, the one of the ledger (`release`) included, and `events`.

    Raises:
        SoukError: Readers see this release now.
    """
    with closing(connect(dsn)) as connection:
        connection.execute("select pg_advisory_xact_lock(hashtext('souk.load'), hashtext(%s))", [release.release_id])
        if _is_shown(connection, release.release_id):
            raise SoukError(f"Release {release.release_id} is being served", "It needs no loading.")
        _drop(connection, release.release_id)
        counts = {table: _load_table(connection, dsn, table, release.release_id, folder) for table in TABLES}
        counts |= {"release": 1, "events": events}
        connection.execute(
            "insert into serving.release (release_id, shop, interval_end, state, content_hash, row_counts, encoder,"
            " is_generated, has_clock, landing_no) values (%s, %s, %s, 'candidate', %s, %s, %s, %s, %s, %s)"
            " on conflict (release_id) do update set state = 'candidate', row_counts = excluded.row_counts,"
            " landing_no = excluded.landing_no",
            [
                release.release_id,
                release.shop,
                release.interval_end,
                release.content_hash,
                Jsonb(counts),
                release.encoder,
                release.is_generated,
                release.has_clock,
                release.landing_no,
            ],
        )
        _measure(connection, release.release_id)
        connection.commit()
    return counts


def measure(dsn: str, release_id: str) -> None:
    """Measure how hard the vector indexes of a kept release must look, where that was not done when it was loaded."""
    with closing(connect(dsn)) as connection:
        row = connection.execute(
            "select metrics ? 'sequence_recall' from serving.release where release_id = %s", [release_id]
        ).fetchone()
        if row == (False,):
            _measure(connection, release_id)
        connection.commit()


def _measure(connection: Connection, release_id: str) -> None:
    texts, sequence = (
        index_effort.measure(connection, release_id, index) for index in (index_effort.TEXTS, index_effort.SEQUENCE)
    )
    found = {
        "index_effort": texts.ef_search,
        "index_recall": texts.recall,
        "sequence_effort": sequence.ef_search,
        "sequence_recall": sequence.recall,
    }
    connection.execute("update serving.release set metrics = %s where release_id = %s", [Jsonb(found), release_id])


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
        row = _move_pointer(connection, release_id)
        outcome = str(row[0]) if row else "refused"
        if outcome == "published":
            _sweep(connection)
    return outcome


def _move_pointer(connection: Connection, release_id: str) -> tuple[Any, ...] | None:
    for attempt in range(PUBLISH_ATTEMPTS):
        try:
            return connection.execute("select internal.publish_release(%s)", [release_id]).fetchone()
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            raise SoukError(str(error).splitlines()[0], "Run the audit gate first.") from None
        except psycopg.errors.LockNotAvailable:
            log.info("a transaction that changes products is open (attempt %s of %s)", attempt + 1, PUBLISH_ATTEMPTS)
    raise SoukError(
        f"Release {release_id} is not shown: a transaction that changes products stays open", "End it and run again."
    )


def _load_table(connection: Connection, dsn: str, table: str, release_id: str, folder: Path) -> int:
    parent, part = sql.Identifier("serving", table), sql.Identifier("serving", partition(table, release_id))
    # Rows of up to half a page stay whole: beside 3 kB of vectors even titles would be stored, and fetched, apart.
    connection.execute(
        sql.SQL(
            "create table {} (like {} including defaults including constraints including storage)"
            " with (toast_tuple_target = 4080)"
        ).format(part, parent)
    )
    count = _copy(connection, part, table, release_id, folder)
    set_resources(connection, count)
    like = connection.execute(
        "select pg_get_constraintdef(k.oid), pg_get_userbyid(c.relowner), c.relrowsecurity from pg_constraint as k"
        " inner join pg_class as c on c.oid = k.conrelid where k.contype = 'p' and c.oid = %s::regclass",
        [f"serving.{table}"],
    ).fetchone()
    key, owner, has_row_security = like or ("", "", False)
    connection.execute(
        sql.SQL("alter table {} add {}, add check (release_id = {})").format(
            part, sql.SQL(key), sql.Literal(release_id)
        )
    )
    for index in INDEXES.get(table, []):
        create_index(
            connection,
            dsn,
            sql.SQL("create " + index).format(table=part, graph=sql.SQL(graph_options(count))),
            f"{table}: {index.split('(')[1].split()[0]}",
            count,
        )
    connection.execute(sql.SQL("analyze {}").format(part))
    connection.execute(
        sql.SQL("alter table {} attach partition {} for values in ({})").format(parent, part, sql.Literal(release_id))
    )
    if has_row_security:
        # Without a policy of its own: its rows are read through the parent, by the parent's.
        connection.execute(sql.SQL("alter table {} enable row level security, force row level security").format(part))
    connection.execute(sql.SQL("alter table {} owner to {}").format(part, sql.Identifier(owner)))
    log.info("loaded %s: %s rows", table, f"{count:,}")
    return count


def _copy(connection: Connection, part: sql.Identifier, table: str, release_id: str, folder: Path) -> int:
    columns = _columns(connection, table)
    # Frozen: the table is new, and pages that all may see are read from the index alone.
    statement = sql.SQL("copy {} (release_id, {}) from stdin (format binary, freeze)").format(
        part, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    count = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(copy_binary.SIGNATURE)
        for batch in _batches(folder / f"{table}.parquet", SCHEMAS[table]):
            copy.write(copy_binary.encode(list(_fields(columns, batch)), release_id))
            count += len(batch)
        copy.write(copy_binary.TRAILER)
    return count


def _columns(connection: Connection, table: str) -> dict[str, str]:
    """Return the columns of a table that its file fills, with their types; a sparse vector is two columns there."""
    names = [name.removesuffix("_positions") for name in SCHEMAS[table].names]
    rows = connection.execute(
        "select a.attname, t.typname from pg_attribute as a inner join pg_type as t on t.oid = a.atttypid"
        " where a.attrelid = %s::regclass and a.attname = any(%s) order by a.attnum",
        [f"serving.{table}", names],
    ).fetchall()
    return {str(name): str(type_name) for name, type_name in rows}


def _batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_PER_BLOCK):
            yield batch.cast(schema)


def _fields(columns: Mapping[str, str], batch: pa.RecordBatch) -> Iterator[copy_binary.Parts]:
    for name, type_name in columns.items():
        if type_name == "sparsevec":
            positions, values = batch.column(f"{name}_positions"), batch.column(f"{name}_values")
            yield copy_binary.sparsevec(positions, values, LEXICAL_DIMENSION)
        else:
            yield copy_binary.ENCODERS[type_name](batch.column(name))


def _drop(connection: Connection, release_id: str) -> None:
    for table in TABLES:
        connection.execute(
            sql.SQL("drop table if exists {}").format(sql.Identifier("serving", partition(table, release_id)))
        )


def _sweep(connection: Connection) -> None:
    """Drop the tables of releases that are neither shown nor the last one of their shop shown before.

    What an open transaction still reads is left to the next publication: readers are not waited for.
    """
    connection.execute("set lock_timeout = '3s'")
    try:
        _drop_old(connection)
    except psycopg.errors.LockNotAvailable:
        log.info("an old release is still read, and is dropped with the next one")


def _drop_old(connection: Connection) -> None:
    # A detachment that was broken off bars every other of its table until it is finished.
    pending = connection.execute(
        "select p.relname, c.relname from pg_inherits as i inner join pg_class as c on c.oid = i.inhrelid"
        " inner join pg_class as p on p.oid = i.inhparent"
        " where i.inhdetachpending and p.relnamespace = 'serving'::regnamespace"
    ).fetchall()
    for table, name in pending:
        connection.execute(
            sql.SQL("alter table {} detach partition {} finalize").format(
                sql.Identifier("serving", str(table)), sql.Identifier("serving", str(name))
            )
        )
    old = connection.execute(
        "select release_id from ("
        "select r.release_id, row_number() over (partition by r.shop order by r.published_at desc nulls last) as place"
        " from serving.release as r where r.state = 'retired') as retired where place > 1"
    ).fetchall()
    tables = {
        str(name): bool(is_attached)
        for name, is_attached in connection.execute(
            "select c.relname, c.relispartition from pg_class as c"
            " where c.relnamespace = 'serving'::regnamespace and c.relkind = 'r'"
        ).fetchall()
    }
    for (release_id,) in old:
        for table in TABLES:
            name = partition(table, str(release_id))
            if tables.get(name):
                # Concurrently: readers of the release that is shown go on.
                connection.execute(
                    sql.SQL("alter table {} detach partition {} concurrently").format(
                        sql.Identifier("serving", table), sql.Identifier("serving", name)
                    )
                )
            if name in tables:
                connection.execute(sql.SQL("drop table {}").format(sql.Identifier("serving", name)))
