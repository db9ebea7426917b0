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
_OID = {"int4": 23, "int8": 20, "text": 25, "float4": 700, "float8": 701}
# Postgres counts days and microseconds from 2000, Arrow from 1970.
EPOCH_DAYS = 10_957
EPOCH_MICROSECONDS = EPOCH_DAYS * 86_400_000_000

# One field's bytes for each row, length included; some fields come in several parts.
Parts = list[Sequence[bytes]]


def encode(columns: Sequence[Parts], leading: str | None = None) -> bytes:
    """Return rows of a field of each column, after one text that all rows share.

    Args:
        columns: What the functions below make of each column; all of the same number of rows.
        leading: Value of a column before these; None where there is none.
    """
    head = (len(columns) + (leading is not None)).to_bytes(2, "big")
    if leading is not None:
        value = leading.encode()
        head += len(value).to_bytes(4, "big") + value
    return b"".join(chain.from_iterable(zip(repeat(head), *chain.from_iterable(columns), strict=False)))


def boolean(column: pa.BooleanArray) -> Parts:
    """Encode a boolean column."""
    return _scalar(">i1", column, column.cast(pa.int8()))


def int2(column: pa.Array) -> Parts:
    """Encode an int16 column."""
    return _scalar(">i2", column, column)


def int4(column: pa.Array) -> Parts:
    """Encode an int32 column."""
    return _scalar(">i4", column, column)


def int8(column: pa.Array) -> Parts:
    """Encode an int64 column."""
    return _scalar(">i8", column, column)


def float4(column: pa.Array) -> Parts:
    """Encode a float32 column."""
    return _scalar(">f4", column, column)


def float8(column: pa.Array) -> Parts:
    """Encode a float64 column."""
    return _scalar(">f8", column, column)


def date(column: pa.Array) -> Parts:
    """Encode a date32 column."""
    return _scalar(">i4", column, pc.subtract(column.cast(pa.int32()), EPOCH_DAYS))


def timestamp(column: pa.Array) -> Parts:
    """Encode a column of timestamps in microseconds, with a zone or without."""
    return _scalar(">i8", column, pc.subtract(column.cast(pa.int64()), EPOCH_MICROSECONDS))


def text(column: pa.Array) -> Parts:
    """Encode a string or binary column."""
    return [_slices(*_prefixed(column))]


def jsonb(column: pa.Array) -> Parts:
    """Encode a column of JSON texts."""
    # The value starts with the version of the format.
    return text(pc.binary_join_element_wise("\x01", column, ""))


def numeric(column: pa.Array) -> Parts:
    """Encode a decimal column of at most 18 digits, 16 of them after the point."""
    whole_digits, scale = column.type.precision - column.type.scale, column.type.scale
    units = pc.multiply(column, pa.scalar(10**scale, pa.decimal128(scale + 1, 0))).cast(pa.int64())
    units = units.fill_null(0).to_numpy()
    # Digits are to base 10,000; leading and trailing zeros are allowed.
    before, after = -(-whole_digits // 4), -(-scale // 4)
    value = np.zeros(len(units), dtype=[("head", ">i2", 4), ("digit", ">i2", before + after)])
    value["head"] = [before + after, before - 1, 0, scale]
    value["head"][:, 2] = np.where(units < 0, 0x4000, 0)
    whole, fraction = np.divmod(np.abs(units), 10**scale)
    fraction = fraction * 10 ** (4 * after - scale)
    for place in range(before - 1, -1, -1):
        whole, value["digit"][:, place] = np.divmod(whole, 10_000)
    for place in range(before + after - 1, before - 1, -1):
        fraction, value["digit"][:, place] = np.divmod(fraction, 10_000)
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
    """Encode a column of int32 lists."""
    return _number_array(column, "int4", ">i4")


def int8_array(column: pa.ListArray) -> Parts:
    """Encode a column of int64 lists."""
    return _number_array(column, "int8", ">i8")


def float4_array(column: pa.ListArray) -> Parts:
    """Encode a column of float32 lists."""
    return _number_array(column, "float4", ">f4")


def float8_array(column: pa.ListArray) -> Parts:
    """Encode a column of float64 lists."""
    return _number_array(column, "float8", ">f8")


def text_array(column: pa.ListArray) -> Parts:
    """Encode a column of string lists."""
    data, ends = _prefixed(column.values)
    return _array(column, "text", data, ends)


# By the name of the type in pg_type.
ENCODERS: dict[str, Callable[[pa.Array], Parts]] = {
    "bool": boolean,
    "int2": int2,
    "int4": int4,
    "int8": int8,
    "float4": float4,
    "float8": float8,
    "numeric": numeric,
    "date": date,
    "timestamp": timestamp,
    "timestamptz": timestamp,
    "text": text,
    "varchar": text,
    "bytea": text,
    "json": text,
    "jsonb": jsonb,
    "halfvec": halfvec,
    "vector": vector,
    "_int4": int4_array,
    "_int8": int8_array,
    "_float4": float4_array,
    "_float8": float8_array,
    "_text": text_array,
}


def _slices(data: bytes, bounds: Iterable[int]) -> list[bytes]:
    return [data[first:last] for first, last in pairwise(np.asarray(bounds).tolist())]


def _fixed(dtype: np.dtype[Any] | str, values: NDArray[Any]) -> Parts:
    field = np.zeros(len(values), dtype=[("length", ">i4"), ("value", dtype)])
    field["length"], field["value"] = field.dtype["value"].itemsize, values
    # One number of a void type is its bytes.
    return [field.view(f"V{field.itemsize}").tolist()]


def _scalar(dtype: str, column: pa.Array, numbers: pa.Array) -> Parts:
    return [_or_null(_fixed(dtype, numbers.fill_null(0).to_numpy(zero_copy_only=False))[0], column)]


def _or_null(cells: Sequence[bytes], column: pa.Array, null: bytes = _NULL) -> Sequence[bytes]:
    if not column.null_count:
        return cells
    return [null if is_null else cell for cell, is_null in zip(cells, column.is_null().to_pylist(), strict=True)]


def _prefixed(column: pa.StringArray | pa.BinaryArray) -> tuple[bytes, NDArray[np.int64]]:
    """Return all texts with their lengths (-1 for null) before them, and the bounds of each."""
    is_null = column.is_null().to_numpy(zero_copy_only=False)
    if column.null_count:
        # A null may have bytes of its own.
        column = column.fill_null("" if pa.types.is_string(column.type) else b"")
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    out = np.empty(bounds[-1] - bounds[0] + 4 * len(column), np.uint8)
    starts = bounds[:-1] - bounds[0] + 4 * np.arange(len(column))
    prefix = starts[:, None] + np.arange(4)
    out[prefix] = np.where(is_null, -1, np.diff(bounds)).astype(">i4").view(np.uint8).reshape(-1, 4)
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
    elements = column.values
    is_null = elements.is_null().to_numpy(zero_copy_only=False)
    cells = np.zeros(len(elements), dtype=[("length", ">i4"), ("value", dtype)])
    cells["length"], cells["value"] = np.where(is_null, -1, np.dtype(dtype).itemsize), elements.fill_null(0).to_numpy()
    if not elements.null_count:
        return _array(column, element, cells.tobytes(), np.arange(len(cells) + 1) * cells.itemsize)
    # A null is a length without a value.
    is_kept = np.ones((len(cells), cells.itemsize), bool)
    is_kept[is_null, 4:] = False
    data = cells.view(np.uint8).reshape(is_kept.shape)[is_kept].tobytes()
    return _array(column, element, data, np.append(0, np.cumsum(is_kept.sum(axis=1))))


def _array(column: pa.ListArray, element: str, data: bytes, ends: NDArray[np.integer]) -> Parts:
    """Encode lists whose elements lie one after the other in `data`, element i between ends[i] and ends[i + 1]."""
    bounds = column.offsets.to_numpy()
    count = np.diff(bounds)
    places = ends[bounds]
    names = ("length", "dimensions", "has_nulls", "element", "size", "first")
    head = np.zeros(len(count), dtype=[(name, ">i4") for name in names])
    is_filled = count > 0
    head["length"] = np.where(is_filled, 20 + np.diff(places), 12)
    head["dimensions"], head["element"], head["size"], head["first"] = is_filled, _OID[element], count, 1
    head["has_nulls"] = column.values.null_count > 0
    # An array without elements has no dimensions, and ends before their sizes.
    starts = np.arange(len(count)) * head.itemsize
    heads = head.tobytes()
    cells = [
        heads[first:last]
        for first, last in zip(starts.tolist(), (starts + np.where(is_filled, 24, 16)).tolist(), strict=True)
    ]
    return [_or_null(cells, column), _or_null(_slices(data, places), column, b"")]
