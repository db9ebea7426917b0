"""Fields of COPY BINARY as Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg import sql

from .copy_binary import EPOCH_DAYS, EPOCH_MICROSECONDS
from .kinds import VECTORS, Column

Cells = Sequence[bytes | None]
# As they come, and what they count from; by the name in pg_type.
_SCALARS = {
    "bool": (">i1", 0),
    "int2": (">i2", 0),
    "int4": (">i4", 0),
    "int8": (">i8", 0),
    "float4": (">f4", 0),
    "float8": (">f8", 0),
    "date": (">i4", EPOCH_DAYS),
    "timestamp": (">i8", EPOCH_MICROSECONDS),
    "timestamptz": (">i8", EPOCH_MICROSECONDS),
}
_ELEMENTS = {"_int4": ">i4", "_int8": ">i8", "_float4": ">f4", "_float8": ">f8", "halfvec": ">f2", "vector": ">f4"}
_ARRAY_HEAD = 20


def select_list(columns: Sequence[Column]) -> sql.Composed:
    """Return what to select so that `decode` can read it."""
    as_text = {"numeric", "json", "jsonb"}
    return sql.SQL(", ").join(
        sql.SQL("{}::text").format(sql.Identifier(column.name))
        if column.kind in as_text
        else sql.Identifier(column.name)
        for column in columns
    )


def decode(column: Column, cells: Cells) -> pa.Array:
    """Return the values of a column in its type of Arrow.

    Args:
        column: The column.
        cells: Its field of each row, None for null.

    Raises:
        ValueError: An array has several dimensions, or a date or time is infinite.
    """
    if column.kind in _SCALARS:
        return _scalars(column, cells)
    if column.kind in VECTORS:
        values = np.frombuffer(b"".join(cell[4:] for cell in cells if cell), _ELEMENTS[column.kind])
        sizes = [(len(cell) - 4) // values.itemsize if cell else 0 for cell in cells]
        return _lists(column, cells, sizes, pa.array(values.astype(np.float32)))
    if column.kind.startswith("_"):
        sizes = [_size(column, cell) for cell in cells]
        return _lists(column, cells, sizes, _elements(column, cells, sum(sizes)))
    return (
        pa.array(cells, pa.binary()).cast(pa.string()).cast(column.arrow)
        if column.kind != "bytea"
        else pa.array(cells, pa.binary())
    )


def _scalars(column: Column, cells: Cells) -> pa.Array:
    dtype, epoch = _SCALARS[column.kind]
    zero = bytes(np.dtype(dtype).itemsize)
    values = np.frombuffer(b"".join(zero if cell is None else cell for cell in cells), dtype)
    native = values.astype(values.dtype.newbyteorder("="))
    if epoch:
        limits = np.iinfo(native.dtype)
        if ((native == limits.min) | (native == limits.max)).any():
            raise ValueError(f"{column.name} holds infinity, which Spark's dates and times do not have")
        native = native + epoch
    is_null = np.array([cell is None for cell in cells], bool)
    return pa.array(native, mask=is_null).cast(column.arrow)


def _lists(column: Column, cells: Cells, sizes: Sequence[int], values: pa.Array) -> pa.Array:
    bounds = pa.array([0, *accumulate(sizes)], pa.int32())
    is_null = pa.array([cell is None for cell in cells], pa.bool_())
    return pa.ListArray.from_arrays(bounds, values, mask=is_null).cast(column.arrow)


def _size(column: Column, cell: bytes | None) -> int:
    if cell is None or len(cell) == 12:
        return 0
    dimensions = int.from_bytes(cell[:4], "big")
    if dimensions != 1:
        raise ValueError(f"{column.name} holds an array of {dimensions} dimensions; only lists can be read")
    return int.from_bytes(cell[12:16], "big")


def _elements(column: Column, cells: Cells, count: int) -> pa.Array:
    """Return the elements of all arrays; each has its length before it, -1 for null."""
    data = b"".join(cell[_ARRAY_HEAD:] for cell in cells if cell and len(cell) > 12)
    dtype = _ELEMENTS.get(column.kind)
    if dtype is not None:
        field = np.dtype([("length", ">i4"), ("value", dtype)])
        if len(data) == count * field.itemsize:
            values = np.frombuffer(data, field)["value"]
            return pa.array(values.astype(values.dtype.newbyteorder("=")))
    elements: list[Any] = []
    place = 0
    for _ in range(count):
        length = int.from_bytes(data[place : place + 4], "big", signed=True)
        place += 4
        elements.append(None if length < 0 else data[place : place + length])
        place += max(length, 0)
    if dtype is None:
        return pa.array(elements, pa.binary()).cast(pa.string())
    return pa.array(
        [None if cell is None else np.frombuffer(cell, dtype)[0].item() for cell in elements], column.arrow.value_type
    )
