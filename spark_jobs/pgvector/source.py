"""The data source `pgvector` of Spark: read and write tables of Postgres with COPY BINARY."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql
from pyspark import TaskContext
from pyspark.sql.datasource import (
    DataSource,
    DataSourceArrowWriter,
    DataSourceReader,
    InputPartition,
    WriterCommitMessage,
)
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from . import writes
from .decode import decode, select_list
from .errors import SourceError
from .kinds import Column, Table, find_table, match_reading, match_writing

DEFAULTS = {
    "url": "",
    "table": "",
    "key": "",
    "write": "",
    "staging": "pgvector_staging",
    "where": "",
    "partitions": "4",
}
ROWS_PER_BATCH = 10_000


class PgvectorSource(DataSource):
    """Tables of Postgres; `docs/pgvector-source.md` says which options there are.

    Raises:
        SourceError: An option is missing or unknown; the table, a column or a type is.
    """

    def __init__(self, options: MutableMapping[str, str]) -> None:
        super().__init__(options)
        self._options = _check(options)

    @classmethod
    def name(cls) -> str:
        """Return what `format` is called with."""
        return "pgvector"

    def schema(self) -> str:
        """Return all columns of the table."""
        table = self._find()
        match_reading(table, [(column.name, column.spark[-1] if column.spark else "") for column in table.columns])
        return ", ".join(f"`{column.name.replace('`', '``')}` {column.spark[-1]}" for column in table.columns)

    def reader(self, schema: StructType) -> PgvectorReader:
        """Return a reader of some columns of the table."""
        table = self._find()
        return PgvectorReader(self._options, table, match_reading(table, _fields(schema)), schema)

    def writer(self, schema: StructType, overwrite: bool) -> PgvectorWriter:
        """Begin a write; `overwrite` removes what the table holds in the moment in which the new rows appear."""
        table = self._find()
        columns = match_writing(table, _fields(schema))
        names = [column.name for column in columns]
        key = [name.strip() for name in self._options["key"].split(",") if name.strip()]
        if unknown := [name for name in key if name not in names]:
            raise SourceError(f"{table}: the key {', '.join(unknown)} is no column of the frame")
        write = writes.begin(
            self._options["url"],
            self._options["staging"],
            self._options["write"] or str(table),
            table,
            columns,
            tuple(key or [name for name in table.key if name in names] or names[:1]),
            overwrite,
        )
        return PgvectorWriter(write)

    def _find(self) -> Table:
        with psycopg.connect(self._options["url"], connect_timeout=10) as connection:
            return find_table(connection, self._options["table"])


@dataclass(frozen=True)
class Committed(WriterCommitMessage):
    """What a task tells the driver."""

    stage: writes.Stage


class PgvectorWriter(DataSourceArrowWriter):
    """Writes the partitions of a frame."""

    def __init__(self, write: writes.Write) -> None:
        self._write = write

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Committed:
        """Copy a partition into a stage."""
        context = TaskContext.get()
        if context is None:
            raise RuntimeError("there is no Spark task")
        return Committed(writes.copy(self._write, context.partitionId(), context.taskAttemptId(), iterator))

    def commit(self, messages: Sequence[WriterCommitMessage | None]) -> None:
        """Store the rows of all partitions."""
        stages = [message.stage for message in messages if isinstance(message, Committed)]
        if len(stages) != len(messages):
            raise RuntimeError(f"{self._write.table}: {len(messages) - len(stages)} partitions are missing")
        writes.commit(self._write, stages)

    def abort(self, messages: Sequence[WriterCommitMessage | None]) -> None:
        """Leave nothing."""
        writes.abort(self._write)


@dataclass(frozen=True)
class Pages(InputPartition):
    """Neighbouring pages of a table.

    Attributes:
        schema: Of the table.
        table: Its name.
        first: Number of the first page.
        last: Number of the page after them; None for all that follow.
    """

    schema: str
    table: str
    first: int
    last: int | None


class PgvectorReader(DataSourceReader):
    """Reads a table in parts."""

    def __init__(
        self, options: Mapping[str, str], table: Table, columns: tuple[Column, ...], schema: StructType
    ) -> None:
        self._options, self._table, self._columns, self._schema = options, table, columns, schema

    def partitions(self) -> list[Pages]:
        """Cut the table, or each table that it consists of, into ranges of pages; a view is one range."""
        with psycopg.connect(self._options["url"], connect_timeout=10) as connection:
            leaves = connection.execute(
                "select n.nspname, c.relname, pg_relation_size(c.oid) / current_setting('block_size')::int,"
                " row_security_active(c.oid) from pg_partition_tree(%s) as leaf"
                " inner join pg_class as c on c.oid = leaf.relid inner join pg_namespace as n on n.oid = c.relnamespace"
                " where leaf.isleaf order by 1, 2",
                [self._table.identifier.as_string(connection)],
            ).fetchall()
        if not leaves or any(is_guarded for *_, is_guarded in leaves):
            # A view has no pages; and the policies of a partitioned table are its own.
            return [Pages(self._table.schema, self._table.name, 0, None)]
        wanted = int(self._options["partitions"])
        size = max(-(-sum(pages for _, _, pages, _ in leaves) // wanted), 1)
        return [part for schema, name, pages, _ in leaves for part in _ranges(schema, name, pages, size)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Read one range of pages."""
        assert isinstance(partition, Pages)
        types = to_arrow_schema(self._schema, timezone="UTC")
        with (
            psycopg.connect(self._options["url"], connect_timeout=10) as connection,
            connection.cursor() as cursor,
            cursor.copy(self._statement(partition)) as stream,
        ):
            # As bytes, which are left as they come.
            stream.set_types(["bytea"] * len(self._columns))
            rows = stream.rows()
            while block := list(islice(rows, ROWS_PER_BATCH)):
                cells: list[tuple[Any, ...]] = list(zip(*block, strict=True))
                arrays = [
                    decode(column, values).cast(field.type)
                    for column, values, field in zip(self._columns, cells, types, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=types)

    def _statement(self, pages: Pages) -> sql.Composed:
        conditions = []
        if pages.first:
            conditions.append(sql.SQL("ctid >= {}").format(sql.Literal(f"({pages.first},0)")))
        if pages.last is not None:
            conditions.append(sql.SQL("ctid < {}").format(sql.Literal(f"({pages.last},0)")))
        if self._options["where"]:
            conditions.append(sql.SQL("({})").format(sql.SQL(self._options["where"])))
        return sql.SQL("copy (select {} from {}{}{}) to stdout (format binary)").format(
            select_list(self._columns),
            sql.Identifier(pages.schema, pages.table),
            sql.SQL(" where " if conditions else ""),
            sql.SQL(" and ").join(conditions),
        )


def _check(options: Mapping[str, str]) -> dict[str, str]:
    given = {name.lower(): value for name, value in options.items()}
    if unknown := sorted(given.keys() - DEFAULTS.keys()):
        raise SourceError(f"there is no option {', '.join(unknown)}; there are {', '.join(DEFAULTS)}")
    checked = DEFAULTS | given
    if missing := [name for name in ("url", "table") if not checked[name]]:
        raise SourceError(f"the option {' and '.join(missing)} is missing")
    if not checked["partitions"].isdecimal() or not int(checked["partitions"]):
        raise SourceError(f"the option partitions is {checked['partitions']}, not a number from 1")
    return checked


def _fields(schema: StructType) -> list[tuple[str, str]]:
    return [(field.name, field.dataType.simpleString()) for field in schema.fields]


def _ranges(schema: str, table: str, pages: int, size: int) -> Iterator[Pages]:
    """Yield ranges of `size` pages; the last is open, for a table that grows meanwhile."""
    starts = range(0, max(pages, 1), size)
    for first in starts:
        yield Pages(schema, table, first, None if first + size >= pages else first + size)
