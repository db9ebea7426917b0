"""A write of many tasks, stored as a whole or not at all.

`<staging schema>.write` has a row for each write that is under way. A task copies into a stage of its own while it
holds that row `for share`; the driver locks it `for update`, moves the stages that count into the table and deletes the
row, all in one transaction. Whoever comes later finds no row and stores nothing. A stage has the write, the partition
and the attempt in its name: two attempts at a partition never share one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql

from . import copy_binary, rows
from .errors import ClosedWriteError
from .kinds import Column, Table

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Write:
    """A write that is under way.

    Attributes:
        url: Connection string of the database.
        staging: Schema of the stages.
        write_id: 32 hexadecimal digits.
        name: At most one write of a name is under way.
        table: Where the rows go.
        columns: Those that the rows fill.
        key: Columns that name a row.
        replaces: Whether what the table holds is removed.
    """

    url: str = field(repr=False)
    staging: str
    write_id: str
    name: str
    table: Table
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    replaces: bool


@dataclass(frozen=True)
class Stage:
    """What an attempt at a partition has stored.

    Attributes:
        table: Name of the stage; None for a partition without rows, which has none.
        partition: Number of the partition.
        rows: Number of rows.
    """

    table: str | None
    partition: int
    rows: int


def begin(
    url: str, staging: str, name: str, table: Table, columns: tuple[Column, ...], key: tuple[str, ...], replaces: bool
) -> Write:
    """Open a write. One of the same name that never ended is closed, and what it has stored is dropped."""
    write = Write(url, staging, uuid.uuid4().hex, name, table, columns, key, replaces)
    with _connect(url, "driver") as connection:
        _make_schema(connection, staging)
        connection.execute("select pg_advisory_xact_lock(hashtext('pgvector.write'), hashtext(%s))", [name])
        older = connection.execute(sql.SQL("select write_id from {} where name = %s").format(_writes(staging)), [name])
        for (write_id,) in older.fetchall():
            _lock(connection, staging, write_id)
            _forget(connection, staging, write_id)
        connection.execute(
            sql.SQL("insert into {} (write_id, name, target) values (%s, %s, %s)").format(_writes(staging)),
            [write.write_id, name, str(table)],
        )
    return write


def copy(write: Write, partition: int, attempt: int, batches: Iterable[pa.RecordBatch]) -> Stage:
    """Copy the rows of a partition into a stage of this attempt, which is there whole or not at all.

    Args:
        write: The write.
        partition: Number of the partition.
        attempt: Another number for each attempt at it.
        batches: Its rows.

    Raises:
        ClosedWriteError: The write is not open any more.
        RejectedRowsError: The table cannot hold a row.
    """
    batches = iter(batches)
    first = next((batch for batch in batches if len(batch)), None)
    if first is None:
        return Stage(None, partition, 0)
    # Rejected before anything is written, where the first rows are wrong already.
    encoded = rows.encode(first, write.columns, write.key)
    name = f"stage_{write.write_id}_{partition}_{attempt}"
    stage = sql.Identifier(write.staging, name)
    count = 0
    with _connect(write.url, f"task {write.write_id}") as connection:
        is_open = connection.execute(
            sql.SQL("select 1 from {} where write_id = %s for share").format(_writes(write.staging)), [write.write_id]
        ).fetchone()
        if not is_open:
            raise ClosedWriteError(
                f"the write to {write.table} has ended: attempt {attempt} at partition {partition} is late"
            )
        # Not logged: what a crash of the server empties is missed when the rows are counted.
        connection.execute(
            sql.SQL("create unlogged table {} as select {} from {} with no data").format(
                stage, _names(write.columns), write.table.identifier
            )
        )
        names: list[pa.RecordBatch] = []
        try:
            with (
                connection.cursor() as cursor,
                cursor.copy(sql.SQL("copy {} from stdin (format binary, freeze)").format(stage)) as stream,
            ):
                stream.write(copy_binary.SIGNATURE)
                for batch, data in _encoded(first, encoded, batches, write):
                    names.append(rows.keys(batch, write.key))
                    count += len(batch)
                    stream.write(data)
                stream.write(copy_binary.TRAILER)
        except psycopg.Error as error:
            if (rejected := rows.refused_by_postgres(error, names)) is not None:
                raise rejected from error
            raise
    return Stage(name, partition, count)


def commit(write: Write, stages: Sequence[Stage]) -> int:
    """Move the rows of one attempt at each partition into the table, and drop all stages, in one transaction.

    Returns:
        Number of rows.

    Raises:
        ClosedWriteError: The write is not open any more.
        RuntimeError: A partition is there twice, or a stage does not hold the rows that its task stored.
    """
    if len({stage.partition for stage in stages}) != len(stages):
        raise RuntimeError(f"{write.table}: a partition was reported twice")
    with _connect(write.url, "driver") as connection:
        if not _lock(connection, write.staging, write.write_id):
            raise ClosedWriteError(f"the write to {write.table} has ended, or a later one named {write.name} took over")
        if write.replaces:
            connection.execute(sql.SQL("truncate {}").format(write.table.identifier))
        for stage in sorted(stages, key=lambda stage: stage.partition):
            if stage.table is None:
                continue
            moved = connection.execute(
                sql.SQL("insert into {} ({}) select * from {}").format(
                    write.table.identifier, _names(write.columns), sql.Identifier(write.staging, stage.table)
                )
            ).rowcount
            if moved != stage.rows:
                raise RuntimeError(f"{write.table}: partition {stage.partition} has {moved} rows of {stage.rows}")
        _forget(connection, write.staging, write.write_id)
    return sum(stage.rows for stage in stages)


def abort(write: Write) -> None:
    """Close a write and drop what its tasks have stored; one that has ended is left alone."""
    with _connect(write.url, "driver") as connection:
        _lock(connection, write.staging, write.write_id)
        _forget(connection, write.staging, write.write_id)


@contextmanager
def _connect(url: str, role: str) -> Iterator[Connection]:
    """Open a transaction that ends with the block."""
    with psycopg.connect(url, connect_timeout=10, application_name=f"pgvector {role}") as connection:
        yield connection


def _writes(staging: str) -> sql.Identifier:
    return sql.Identifier(staging, "write")


def _names(columns: Sequence[Column]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)


def _make_schema(connection: Connection, staging: str) -> None:
    connection.execute("select pg_advisory_xact_lock(hashtext('pgvector.schema'), hashtext(%s))", [staging])
    exists = connection.execute(
        "select 1 from pg_tables where schemaname = %s and tablename = 'write'", [staging]
    ).fetchone()
    if not exists:
        connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(staging)))
        connection.execute(
            sql.SQL(
                "create table {} (write_id text primary key, name text not null unique, target text not null,"
                " started_at timestamptz not null default now())"
            ).format(_writes(staging))
        )


def _lock(connection: Connection, staging: str, write_id: str) -> bool:
    """Lock the row of a write against its tasks, and tell whether it is there.

    A task that still copies is no longer waited for: its session is ended.
    """
    before = connection.execute("show lock_timeout").fetchone()
    while True:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s",
            [f"pgvector task {write_id}"],
        )
        try:
            with connection.transaction():
                connection.execute("set local lock_timeout = '500ms'")
                row = connection.execute(
                    sql.SQL("select 1 from {} where write_id = %s for update").format(_writes(staging)), [write_id]
                ).fetchone()
                connection.execute("select set_config('lock_timeout', %s, true)", before)
        except psycopg.errors.LockNotAvailable:
            continue
        return row is not None


def _forget(connection: Connection, staging: str, write_id: str) -> None:
    """Delete the row of a write, and drop its stages."""
    connection.execute(sql.SQL("delete from {} where write_id = %s").format(_writes(staging)), [write_id])
    stages = connection.execute(
        "select tablename from pg_tables where schemaname = %s and starts_with(tablename, %s)",
        [staging, f"stage_{write_id}_"],
    ).fetchall()
    for (name,) in stages:
        connection.execute(sql.SQL("drop table {}").format(sql.Identifier(staging, name)))


def _encoded(
    first: pa.RecordBatch, encoded: bytes, batches: Iterator[pa.RecordBatch], write: Write
) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    yield first, encoded
    for batch in batches:
        if len(batch):
            yield batch, rows.encode(batch, write.columns, write.key)
