"""Reading Parquet files in batches of plain Python values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from souk.errors import SoukError
from souk.sources.contract import CHUNK_ROWS, Row


def parquet_rows(path: Path, columns: list[str] | None = None) -> Iterator[list[Row]]:
    """Yield the rows of a file in chunks; times are cut to microseconds, which is what `datetime` holds.

    Args:
        path: The file.
        columns: The columns to read; all of them by default.

    Raises:
        SoukError: The file is not Parquet or is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=columns):
                yield batch.cast(_in_microseconds(batch.schema), safe=False).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise SoukError(f"{path} is not readable as Parquet: {error}", "Export it again.") from error


def _in_microseconds(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        field.with_type(pa.timestamp("us", field.type.tz)) if pa.types.is_timestamp(field.type) else field
        for field in schema
    )
