"""Batches of a frame as rows of COPY BINARY; what the table cannot hold is rejected with the row's key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from . import copy_binary
from .errors import RejectedRowsError
from .kinds import VECTORS, Column

_SAID = 10
# A number of a packed vector: float32, little-endian.
_PACKED = np.dtype("<f4")
_HALF_MAX = 65_504.0
# Half of the smallest half-precision number: what is not larger becomes zero.
_HALF_ZERO = 2.0**-25


def encode(batch: pa.RecordBatch, columns: Sequence[Column], key: Sequence[str]) -> bytes:
    """Return the rows of a batch.

    Args:
        batch: With one column for each of `columns`, by name.
        columns: Of the table, in the order of the fields.
        key: Columns that name a row.

    Raises:
        RejectedRowsError: A value is null where the table has none; a vector has another dimension than its column,
            holds null, NaN or infinity (in the precision of its column) or is all zeros.
    """
    rejected: dict[int, str] = {}
    parts = []
    for column in columns:
        values = batch.column(column.name)
        if values.null_count and not column.is_nullable:
            for row in np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)):
                rejected.setdefault(int(row), f"{column.name} is null")
        elif column.kind in VECTORS:
            values = _vectors(values, column, rejected)
        else:
            values = values.cast(column.arrow)
        if not rejected:
            parts.append(copy_binary.ENCODERS[column.kind](values))
    if rejected:
        names = keys(batch, key)
        said = "; ".join(f"{name_row(names, row)}: {rejected[row]}" for row in sorted(rejected)[:_SAID])
        more = f"; and {len(rejected) - _SAID} more" if len(rejected) > _SAID else ""
        raise RejectedRowsError(f"{_count(len(rejected))} rejected: {said}{more}")
    return copy_binary.encode(parts)


def keys(batch: pa.RecordBatch, key: Sequence[str]) -> pa.RecordBatch:
    """Return the columns that name the rows of a batch, copied: they keep no memory of the batch."""
    return batch.select(list(key)).take(pa.array(range(len(batch)), pa.int64()))


def name_row(names: pa.RecordBatch, row: int) -> str:
    """Return what names a row: `item_id 'a'`."""
    return ", ".join(f"{column} {names.column(column)[row].as_py()!r}" for column in names.schema.names)


def refused_by_postgres(error: psycopg.Error, names: Sequence[pa.RecordBatch]) -> RejectedRowsError | None:
    """Return an error with the key of the row at which COPY stopped; None where Postgres did not say which.

    Args:
        error: What Postgres said.
        names: Keys of all rows sent so far.
    """
    found = re.search(r"COPY \S+, line (\d+)(?:, column (\S+))?", error.diag.context or "")
    if found is None:
        return None
    row = int(found[1]) - 1
    for batch in names:
        if row < len(batch):
            column = f"{found[2].rstrip(':')}: " if found[2] else ""
            return RejectedRowsError(
                f"{_count(1)} rejected: {name_row(batch, row)}: {column}{error.diag.message_primary}"
            )
        row -= len(batch)
    return None


def _count(rows: int) -> str:
    return "1 row is" if rows == 1 else f"{rows} rows are"


def _vectors(values: pa.Array, column: Column, rejected: dict[int, str]) -> pa.Array:
    """Return vectors in the precision of their column, and note those that it cannot hold.

    Args:
        values: Lists of numbers, or packed numbers.
        column: What they are written to.
        rejected: What is wrong, by row; added to.
    """
    dimension = column.modifier
    is_packed = pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    values = values.cast(pa.binary() if is_packed else column.arrow)
    wanted, unit = (dimension * _PACKED.itemsize, "bytes") if is_packed else (dimension, "dimensions")
    is_null = values.is_null().to_numpy(zero_copy_only=False)
    measure = pc.binary_length if is_packed else pc.list_value_length
    lengths = measure(values).fill_null(wanted).to_numpy()
    wrong = np.flatnonzero(lengths != wanted)
    for row in wrong:
        rejected.setdefault(int(row), f"{column.name} has {lengths[row]} {unit}, not {wanted}")
    if len(wrong):
        return values
    # Null is skipped; inside of a list it turns into NaN.
    given = _unpacked(values, wanted) if is_packed else values.flatten().to_numpy(zero_copy_only=False)
    given = given.reshape(-1, dimension)
    is_half = column.kind == "halfvec"
    with np.errstate(over="ignore"):
        stored = given.astype(np.float16) if is_half else given
        doubtful = _doubtful(given, is_half)
    rows = np.flatnonzero(~is_null)
    for place in doubtful:
        if fault := _fault(given[place], stored[place]):
            rejected.setdefault(int(rows[place]), f"{column.name} {fault}")
    if is_null.any():
        stored, valid = np.zeros((len(values), dimension), stored.dtype), stored
        stored[rows] = valid
        return pa.FixedSizeListArray.from_arrays(pa.array(stored.ravel()), dimension, mask=pa.array(is_null))
    return pa.FixedSizeListArray.from_arrays(pa.array(stored.ravel()), dimension)


def _unpacked(values: pa.BinaryArray, size: int) -> NDArray[np.float32]:
    """Return the numbers of all values, each of so many bytes."""
    fixed = values.drop_null().cast(pa.binary(size))
    data = fixed.buffers()[1] or b""
    return np.frombuffer(data, _PACKED, len(fixed) * size // _PACKED.itemsize, fixed.offset * size)


def _doubtful(vectors: NDArray[np.float32], is_half: bool) -> NDArray[np.intp]:
    """Return the places of vectors that may be faulty, by their length: it is cheaper than looking at each number."""
    square = np.einsum("nd,nd->n", vectors, vectors)
    low = vectors.shape[1] * _HALF_ZERO**2 if is_half else 0.0
    high = _HALF_MAX**2 if is_half else np.inf
    return np.flatnonzero(~((square > low) & (square < high)))


def _fault(given: NDArray[np.float32], stored: NDArray[Any]) -> str | None:
    if np.isnan(given).any():
        return "holds NaN or null"
    if np.isinf(given).any():
        return "holds infinity"
    if np.isinf(stored).any():
        return f"holds {given[np.argmax(np.abs(given))]:g}, too large for halfvec"
    if not stored.any():
        return "is all zeros"
    return None
