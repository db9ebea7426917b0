"""Which types of Postgres are read and written, and which types of Spark they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql

from .errors import SourceError

_TEXT = (pa.string(), ("string",))
_VECTOR = (pa.list_(pa.float32()), ("binary", "array<double>", "array<float>"))
# By the name in pg_type: the type in Arrow, and what a column may be in Spark; it is read as the last of these.
_KINDS: dict[str, tuple[pa.DataType, tuple[str, ...]]] = {
    "bool": (pa.bool_(), ("boolean",)),
    "int2": (pa.int16(), ("tinyint", "smallint")),
    "int4": (pa.int32(), ("tinyint", "smallint", "int")),
    "int8": (pa.int64(), ("tinyint", "smallint", "int", "bigint")),
    "float4": (pa.float32(), ("float",)),
    "float8": (pa.float64(), ("float", "double")),
    "date": (pa.date32(), ("date",)),
    "timestamp": (pa.timestamp("us"), ("timestamp_ntz",)),
    "timestamptz": (pa.timestamp("us", "UTC"), ("timestamp",)),
    "text": _TEXT,
    "varchar": _TEXT,
    "json": _TEXT,
    "jsonb": _TEXT,
    "bytea": (pa.binary(), ("binary",)),
    "_int4": (pa.list_(pa.int32()), ("array<int>",)),
    "_int8": (pa.list_(pa.int64()), ("array<int>", "array<bigint>")),
    "_float4": (pa.list_(pa.float32()), ("array<float>",)),
    "_float8": (pa.list_(pa.float64()), ("array<float>", "array<double>")),
    "_text": (pa.list_(pa.string()), ("array<string>",)),
    "halfvec": _VECTOR,
    "vector": _VECTOR,
}
VECTORS = ("halfvec", "vector")
# The encoder does its sums in 64 bits.
_NUMERIC_DIGITS, _NUMERIC_SCALE = 18, 16


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        kind: Its type by the name in pg_type: `halfvec`, `_text`.
        type_text: Its type as SQL writes it: `halfvec(384)`, `text[]`.
        modifier: Dimension of a vector, precision and scale of a numeric as Postgres packs them; -1 for none.
        is_required: It has to be given: without null and without a default.
        is_nullable: Whether it may be null.
        is_generated: Whether Postgres computes it.
    """

    name: str
    kind: str
    type_text: str
    modifier: int
    is_required: bool
    is_nullable: bool
    is_generated: bool

    @property
    def spark(self) -> tuple[str, ...]:
        """What it may be in Spark, as Spark's `simpleString` says it; empty for a type that is not supported."""
        if self.kind == "numeric":
            precision, scale = self.digits
            is_small = precision <= _NUMERIC_DIGITS and scale <= min(precision, _NUMERIC_SCALE)
            return (f"decimal({precision},{scale})",) if is_small else ()
        return _KINDS[self.kind][1] if self.kind in _KINDS else ()

    @property
    def arrow(self) -> pa.DataType:
        """What it is in Arrow."""
        return pa.decimal128(*self.digits) if self.kind == "numeric" else _KINDS[self.kind][0]

    @property
    def digits(self) -> tuple[int, int]:
        """Precision and scale of a numeric; one without them may have any."""
        packed = self.modifier - 4
        return (packed >> 16, packed & 0x7FF) if self.modifier >= 0 else (1000, 0)


@dataclass(frozen=True)
class Table:
    """A table as the catalogue of Postgres has it.

    Attributes:
        schema: Its schema.
        name: Its name.
        columns: In its order.
        key: Columns of its primary key; empty without one.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def identifier(self) -> sql.Identifier:
        """Its name, quoted."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def find_table(connection: psycopg.Connection[Any], name: str) -> Table:
    """Look a table up.

    Args:
        connection: To its database.
        name: As SQL writes it: `items`, `serving.item`, `"Odd".name`.

    Raises:
        SourceError: There is no such table.
    """
    try:
        found = connection.execute(
            "select c.oid, n.nspname, c.relname from pg_class as c"
            " inner join pg_namespace as n on n.oid = c.relnamespace where c.oid = to_regclass(%s)",
            [name],
        ).fetchone()
    except psycopg.errors.SyntaxError:
        found = None
    if not found:
        raise SourceError(f"there is no table {name}")
    oid, schema, table = found
    rows = connection.execute(
        "select a.attname, t.typname, format_type(a.atttypid, a.atttypmod), a.atttypmod,"
        " a.attnotnull and not a.atthasdef and a.attidentity = '', not a.attnotnull,"
        " a.attgenerated <> '' or a.attidentity = 'a'"
        " from pg_attribute as a inner join pg_type as t on t.oid = a.atttypid"
        " where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum",
        [oid],
    ).fetchall()
    key = connection.execute(
        "select a.attname from pg_index as i cross join unnest(i.indkey) with ordinality as k (attnum, place)"
        " inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum"
        " where i.indrelid = %s and i.indisprimary order by k.place",
        [oid],
    ).fetchall()
    return Table(schema, table, tuple(Column(*row) for row in rows), tuple(str(row[0]) for row in key))


def match(table: Table, fields: Sequence[tuple[str, str]], fits: Callable[[Column, str], bool]) -> tuple[Column, ...]:
    """Return the columns that the fields of a frame stand for.

    Args:
        table: The table.
        fields: Name and Spark type of each.
        fits: Tells whether a column may be of that Spark type.

    Raises:
        SourceError: The table lacks one of them, or has it with another type; all of them are named.
    """
    known = {column.name: column for column in table.columns}
    wrong = []
    for name, spark in fields:
        if name not in known:
            wrong.append(f"there is no column {name}")
        elif not known[name].spark:
            wrong.append(f"{name} is {known[name].type_text}, which is not supported")
        elif not fits(known[name], spark):
            wrong.append(f"{name} is {known[name].type_text}, which {spark} does not fit")
    if wrong:
        raise SourceError(f"{table}: {'; '.join(wrong)}")
    return tuple(known[name] for name, _ in fields)


def match_writing(table: Table, fields: Sequence[tuple[str, str]]) -> tuple[Column, ...]:
    """Return the columns that a frame is written to.

    Raises:
        SourceError: As `match`; or a column that must be filled is not, or one cannot be.
    """
    columns = match(table, fields, _takes)
    names = {column.name for column in columns}
    wrong = [f"{column.name} is missing" for column in table.columns if column.is_required and column.name not in names]
    for column in columns:
        if column.is_generated:
            wrong.append(f"{column.name} is computed by Postgres")
        if column.kind in VECTORS and column.modifier < 0:
            wrong.append(f"{column.name} has no dimension: declare it as {column.kind}(n)")
    if wrong:
        raise SourceError(f"{table}: {'; '.join(wrong)}")
    return columns


def match_reading(table: Table, fields: Sequence[tuple[str, str]]) -> tuple[Column, ...]:
    """Return the columns that a frame is read from.

    Raises:
        SourceError: As `match`.
    """
    return match(table, fields, lambda column, spark: spark == column.spark[-1])


def _takes(column: Column, spark: str) -> bool:
    if column.kind != "numeric" or not spark.startswith("decimal"):
        return spark in column.spark
    precision, scale = (int(part) for part in spark.removeprefix("decimal(").removesuffix(")").split(","))
    own_precision, own_scale = column.digits
    return scale <= own_scale and precision - scale <= own_precision - own_scale
