"""Reading Parquet files in batches of plain Python values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from souk.errors import SoukError
from souk.sources.contract import CHUNK_ROWS, Row, unreadable


def parquet_rows(path: Path, columns: list[str] | None = None) -> Iterator[list[Row]]:
    """Yield the rows of a file in chunks.

    Times are cut to microseconds, which is what `datetime` holds; bytes are read as UTF-8, for some writers do not mark
    texts as such.

    Args:
        path: The file.
        columns: The columns to read; all of them by default.

    Raises:
        SoukError: The file is not Parquet or is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=columns):
                rows = batch.cast(_in_microseconds(batch.schema), safe=False).to_pylist()
                binary = [field.name for field in batch.schema if _is_binary(field.type)]
                yield [_decoded(row, binary) for row in rows] if binary else rows
    except (pa.ArrowException, OSError) as error:
        raise SoukError(f"{path} is not readable as Parquet: {error}", "Export it again.") from error


def _in_microseconds(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        field.with_type(pa.timestamp("us", field.type.tz)) if pa.types.is_timestamp(field.type) else field
        for field in schema
    )


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _decoded(row: Row, binary: list[str]) -> Row:
    for name in binary:
        value = row[name]
        if isinstance(value, bytes):
            try:
                row[name] = value.decode()
            except UnicodeDecodeError:
                return unreadable("bad_utf8", value)
    return row
