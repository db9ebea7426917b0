"""Arrow columns as rows of COPY BINARY, encoded by numpy a column at a time.

A row is an int16 number of fields, then for each field its length (int32, -1 for null) and its value, big-endian
(PostgreSQL manual, COPY; the formats of halfvec, vector and sparsevec are those of pgvector's `*_send`). Writing rows
one by one in Python takes several times as long as Postgres takes to store them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise, repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_OID = {"int4": 23, "text": 25, "float4": 700}
# Postgres counts days from 2000, Arrow from 1970.
_EPOCH = 10_957

# One field's bytes for each row, length included; some fields come in several parts.
Parts = list[Sequence[bytes]]


def encode(leading: str, columns: Sequence[Parts]) -> bytes:
    """Return rows of one text that all share, followed by a field of each column.

    Args:
        leading: Value of the first column.
        columns: What the functions below make of each further column; all of the same number of rows.
    """
    value = leading.encode()
    head = (len(columns) + 1).to_bytes(2, "big") + len(value).to_bytes(4, "big") + value
    return b"".join(chain.from_iterable(zip(repeat(head), *chain.from_iterable(columns), strict=False)))


def int4(column: pa.Array) -> Parts:
    """Encode an int32 column without nulls."""
    return _fixed(">i4", column.to_numpy())


def float4(column: pa.Array) -> Parts:
    """Encode a float32 column without nulls."""
    return _fixed(">f4", column.to_numpy())


def float8(column: pa.Array) -> Parts:
    """Encode a float64 column without nulls."""
    return _fixed(">f8", column.to_numpy())


def date(column: pa.Array) -> Parts:
    """Encode a date32 column without nulls."""
    return _fixed(">i4", column.cast(pa.int32()).to_numpy() - _EPOCH)


def text(column: pa.Array) -> Parts:
    """Encode a string column."""
    data, bounds = _prefixed(column)
    return [_or_null(_slices(data, bounds), column)]


def jsonb(column: pa.Array) -> Parts:
    """Encode a column of JSON texts."""
    # The value starts with the version of the format.
    return text(pc.binary_join_element_wise("\x01", column, ""))


def numeric(column: pa.Array) -> Parts:
    """Encode a decimal column with two decimal places and at most twelve digits before them."""
    cents = pc.multiply(column, pa.scalar(100, pa.decimal128(3, 0))).cast(pa.int64()).fill_null(0).to_numpy()
    # Three digits to base 10,000 before the point, one after it; leading and trailing zeros are allowed.
    value = np.zeros(len(cents), dtype=[("head", ">i2", 4), ("digit", ">i2", 4)])
    value["head"] = [4, 2, 0, 2]
    value["head"][:, 2] = np.where(cents < 0, 0x4000, 0)
    whole, fraction = np.divmod(np.abs(cents), 100)
    for place in (2, 1, 0):
        whole, value["digit"][:, place] = np.divmod(whole, 10_000)
    value["digit"][:, 3] = fraction * 100
    return [_or_null(_fixed(value.dtype, value)[0], column)]


def halfvec(column: pa.FixedSizeListArray) -> Parts:
    """Encode a column of float16 vectors of one length."""
    return _vector(column, ">f2")


def vector(column: pa.FixedSizeListArray) -> Parts:
    """Encode a column of float32 vectors of one length."""
    return _vector(column, ">f4")


def sparsevec(positions: pa.ListArray, values: pa.ListArray, dimension: int) -> Parts:
    """Encode sparse vectors.

    Args:
        positions: int32, from 0, ascending.
        values: float32, not zero, as many.
        dimension: Of every vector.
    """
    bounds = positions.offsets.to_numpy()
    count = np.diff(bounds)
    head = np.zeros(len(count), dtype=[("length", ">i4"), ("dimension", ">i4"), ("count", ">i4"), ("unused", ">i4")])
    head["length"], head["dimension"], head["count"] = 12 + 8 * count, dimension, count
    own = values.offsets.to_numpy()
    return [
        _slices(head.tobytes(), np.arange(len(count) + 1) * head.itemsize),
        _slices(positions.values.to_numpy().astype(">i4").tobytes(), bounds * 4),
        _slices(values.values.to_numpy().astype(">f4").tobytes(), own * 4),
    ]


def int4_array(column: pa.ListArray) -> Parts:
    """Encode a column of int32 lists without nulls."""
    return _number_array(column, "int4", ">i4")


def float4_array(column: pa.ListArray) -> Parts:
    """Encode a column of float32 lists without nulls."""
    return _number_array(column, "float4", ">f4")


def text_array(column: pa.ListArray) -> Parts:
    """Encode a column of string lists without nulls."""
    data, ends = _prefixed(column.values)
    return _array(column.offsets.to_numpy(), "text", data, ends)


# By the name of the type in pg_type.
ENCODERS: dict[str, Callable[[pa.Array], Parts]] = {
    "int4": int4,
    "float4": float4,
    "float8": float8,
    "date": date,
    "text": text,
    "jsonb": jsonb,
    "numeric": numeric,
    "halfvec": halfvec,
    "vector": vector,
    "_int4": int4_array,
    "_float4": float4_array,
    "_text": text_array,
}


def _slices(data: bytes, bounds: Iterable[int]) -> list[bytes]:
    return [data[first:last] for first, last in pairwise(np.asarray(bounds).tolist())]


def _fixed(dtype: np.dtype[Any] | str, values: NDArray[Any]) -> Parts:
    field = np.zeros(len(values), dtype=[("length", ">i4"), ("value", dtype)])
    field["length"], field["value"] = field.dtype["value"].itemsize, values
    return [_slices(field.tobytes(), np.arange(len(values) + 1) * field.itemsize)]


def _or_null(cells: Sequence[bytes], column: pa.Array) -> Sequence[bytes]:
    if not column.null_count:
        return cells
    return [_NULL if is_null else cell for cell, is_null in zip(cells, column.is_null().to_pylist(), strict=True)]


def _prefixed(column: pa.StringArray) -> tuple[bytes, NDArray[np.int64]]:
    """Return all texts with their lengths before them, and the bounds of each."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    out = np.empty(bounds[-1] - bounds[0] + 4 * len(column), np.uint8)
    starts = bounds[:-1] - bounds[0] + 4 * np.arange(len(column))
    prefix = starts[:, None] + np.arange(4)
    out[prefix] = np.diff(bounds).astype(">i4").view(np.uint8).reshape(-1, 4)
    is_text = np.ones(len(out), bool)
    is_text[prefix] = False
    if data is not None:
        out[is_text] = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    return out.tobytes(), np.append(starts, len(out))


def _vector(column: pa.FixedSizeListArray, dtype: str) -> Parts:
    dimension = column.type.list_size
    values = column.values.slice(column.offset * dimension, len(column) * dimension)
    field = np.zeros(len(column), dtype=[("dimension", ">u2"), ("unused", ">u2"), ("value", dtype, dimension)])
    field["dimension"] = dimension
    field["value"] = values.to_numpy(zero_copy_only=False).reshape(-1, dimension)
    return [_or_null(_fixed(field.dtype, field)[0], column)]


def _number_array(column: pa.ListArray, element: str, dtype: str) -> Parts:
    values = column.values.to_numpy()
    cells = np.zeros(len(values), dtype=[("length", ">i4"), ("value", dtype)])
    cells["length"], cells["value"] = 4, values
    return _array(column.offsets.to_numpy(), element, cells.tobytes(), np.arange(len(values) + 1) * cells.itemsize)


def _array(bounds: NDArray[np.integer], element: str, data: bytes, ends: NDArray[np.integer]) -> Parts:
    """Encode lists whose elements lie one after the other in `data`, element i between ends[i] and ends[i + 1]."""
    count = np.diff(bounds)
    places = ends[bounds]
    names = ("length", "dimensions", "has_nulls", "element", "size", "first")
    head = np.zeros(len(count), dtype=[(name, ">i4") for name in names])
    is_filled = count > 0
    head["length"] = np.where(is_filled, 20 + np.diff(places), 12)
    head["dimensions"], head["element"], head["size"], head["first"] = is_filled, _OID[element], count, 1
    # An array without elements has no dimensions, and ends before their sizes.
    starts = np.arange(len(count)) * head.itemsize
    heads = head.tobytes()
    cells = [
        heads[first:last]
        for first, last in zip(starts.tolist(), (starts + np.where(is_filled, 24, 16)).tolist(), strict=True)
    ]
    return [cells, _slices(data, places)]
