"""Vectors of a frame as rows of COPY BINARY: packed as bytes they are what they are as lists, and what is refused is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs.pgvector import rows
from spark_jobs.pgvector.decode import decode
from spark_jobs.pgvector.errors import RejectedRowsError
from spark_jobs.pgvector.kinds import Column

KEY = Column("item_id", "text", "text", -1, True, False, False)
VECTORS = [[0.5, -1.25, 3.0], None, [1e-7, 0.0, 2.0], [-65_000.0, 0.1, 1 / 3]]


def column(kind: str) -> Column:
    return Column("vec", kind, f"{kind}(3)", 3, False, True, False)


def packed(vectors: list[list[float] | None], kind: pa.DataType | None = None) -> pa.Array:
    values = [None if vector is None else np.array(vector, "<f4").tobytes() for vector in vectors]
    return pa.array(values, kind or pa.binary())


def batch(vectors: pa.Array) -> pa.RecordBatch:
    return pa.record_batch([pa.array([f"i{row}" for row in range(len(vectors))]), vectors], ["item_id", "vec"])


def encoded(vectors: pa.Array, kind: str) -> bytes:
    return rows.encode(batch(vectors), [KEY, column(kind)], ["item_id"])


@pytest.mark.parametrize("kind", ["halfvec", "vector"])
@pytest.mark.parametrize("bytes_kind", [pa.binary(), pa.large_binary()], ids=["binary", "large_binary"])
def test_packed_vectors_are_the_rows_that_lists_are(kind, bytes_kind):
    wanted = encoded(pa.array(VECTORS, pa.list_(pa.float32())), kind)
    assert len(wanted) > 4 * 3 * 2
    assert encoded(packed(VECTORS, bytes_kind), kind) == wanted
    assert encoded(packed(VECTORS[::-1], bytes_kind), kind) != wanted


@pytest.mark.parametrize("kind", ["halfvec", "vector"])
def test_a_part_of_a_batch_and_the_hidden_bytes_of_null_do_not_matter(kind):
    wanted = encoded(pa.array(VECTORS[1:], pa.list_(pa.float32())), kind)
    assert encoded(packed([[9.0, 9.0, 9.0], *VECTORS[1:]]).slice(1), kind) == wanted
    whole = packed([[9.0, 9.0, 9.0] if vector is None else vector for vector in VECTORS[1:]])
    _, offsets, data = whole.buffers()
    hidden = pa.Array.from_buffers(pa.binary(), 3, [pa.py_buffer(b"\x06"), offsets, data])
    assert hidden.to_pylist()[0] is None
    assert encoded(hidden, kind) == wanted


def test_no_vectors_and_null_alone_are_rows_too():
    assert encoded(packed([]), "halfvec") == b""
    assert encoded(packed([None]), "halfvec") == encoded(pa.array([None], pa.list_(pa.float32())), "halfvec") != b""


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (packed([[1.0, 1.0, 1.0], [1.0, 1.0]]), "item_id 'i1': vec has 8 bytes, not 12"),
        (pa.array([b"", b"\0" * 13]), "item_id 'i0': vec has 0 bytes, not 12; item_id 'i1': vec has 13 bytes, not 12"),
        (packed([None, [1.0, float("nan"), 1.0]]), "item_id 'i1': vec holds NaN or null"),
        (packed([[1.0, float("-inf"), 1.0]]), "item_id 'i0': vec holds infinity"),
        (packed([None, None, [0.0, 0.0, 0.0]]), "item_id 'i2': vec is all zeros"),
        (packed([[1e-9, 0.0, 0.0]]), "item_id 'i0': vec is all zeros"),
        (packed([[-70_000.0, 1.0, 1.0]]), "item_id 'i0': vec holds -70000, too large for halfvec"),
    ],
)
def test_what_a_packed_vector_may_not_be_is_named_by_key(vectors, said):
    with pytest.raises(RejectedRowsError) as raised:
        encoded(vectors, "halfvec")
    assert str(raised.value).split("rejected: ")[1] == said


@pytest.mark.parametrize(("kind", "size"), [("date", 4), ("timestamp", 8), ("timestamptz", 8)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_infinite_time_is_refused(kind: str, size: int, sign: int) -> None:
    """Postgres writes it as the smallest or largest number, which would be read as a day of another age."""
    infinity = (-(2 ** (8 * size - 1)) if sign < 0 else 2 ** (8 * size - 1) - 1).to_bytes(size, "big", signed=True)
    at = Column("at", kind, kind, -1, False, True, False)
    assert decode(at, [bytes(size), None]).null_count == 1
    with pytest.raises(ValueError, match="at holds infinity"):
        decode(at, [bytes(size), infinity])
