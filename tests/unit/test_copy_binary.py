from __future__ import annotations

from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs.pgvector import copy_binary

# Expected bytes as PostgreSQL's and pgvector's *_send functions write them.
NULL = b"\xff\xff\xff\xff"


def field(parts: copy_binary.Parts) -> list[bytes]:
    return [b"".join(row) for row in zip(*parts, strict=True)]


def test_rows_start_with_their_number_of_fields_and_the_shared_text():
    rows = copy_binary.encode([copy_binary.int4(pa.array([1, -2], pa.int32()))], "r1")
    head = b"\0\2" + b"\0\0\0\2r1" + b"\0\0\0\4"
    assert rows == head + b"\0\0\0\1" + head + b"\xff\xff\xff\xfe"


def test_no_rows_are_no_bytes():
    assert copy_binary.encode([copy_binary.text(pa.array([], pa.string()))], "r1") == b""


def test_texts_have_their_length_in_bytes():
    column = pa.array(["tea", "茶", "", None, "x"])
    assert field(copy_binary.text(column)) == [b"\0\0\0\3tea", b"\0\0\0\3\xe8\x8c\xb6", b"\0\0\0\0", NULL, b"\0\0\0\1x"]
    assert field(copy_binary.text(column.slice(1, 3))) == field(copy_binary.text(column))[1:4]


def test_json_starts_with_its_version():
    assert field(copy_binary.jsonb(pa.array(["{}"]))) == [b"\0\0\0\3\1{}"]


@pytest.mark.parametrize(
    ("price", "digits"),
    [("0.05", [0, 0, 0, 500]), ("129.90", [0, 0, 129, 9000]), ("9999999999.99", [99, 9999, 9999, 9900])],
)
def test_prices_are_digits_to_base_ten_thousand(price, digits):
    column = pa.array([Decimal(price), None, -Decimal(price)], pa.decimal128(12, 2))
    positive, null, negative = field(copy_binary.numeric(column))
    assert np.frombuffer(positive, ">i2").tolist() == [0, 16, 4, 2, 0, 2, *digits]
    assert np.frombuffer(negative, ">i2").tolist() == [0, 16, 4, 2, 0x4000, 2, *digits]
    assert null == NULL


def test_days_count_from_2000():
    assert field(copy_binary.date(pa.array([date(2000, 1, 3)]))) == [b"\0\0\0\4\0\0\0\2"]


def test_lists_may_be_empty():
    column = pa.array([[7, 8], [], [9]], pa.list_(pa.int32()))
    rows = field(copy_binary.int4_array(column))
    assert [np.frombuffer(row, ">i4").tolist() for row in rows] == [
        [36, 1, 0, 23, 2, 1, 4, 7, 4, 8],
        [12, 0, 0, 23],
        [28, 1, 0, 23, 1, 1, 4, 9],
    ]
    assert field(copy_binary.int4_array(column.slice(1, 2))) == rows[1:]


def test_lists_of_texts():
    rows = field(copy_binary.text_array(pa.array([["ab", "茶"], []], pa.list_(pa.string()))))
    assert rows[0][:24] == np.array([33, 1, 0, 25, 2, 1], ">i4").tobytes()
    assert rows[0][24:] == b"\0\0\0\2ab" + b"\0\0\0\3\xe8\x8c\xb6"
    assert rows[1] == np.array([12, 0, 0, 25], ">i4").tobytes()


def test_vectors_may_be_null():
    column = pa.array([[1.0, -0.5], None, [0.25, 2.0]], pa.list_(pa.float16(), 2))
    rows = field(copy_binary.halfvec(column))
    assert rows[0] == b"\0\0\0\x08\0\2\0\0" + np.array([1, -0.5], ">f2").tobytes()
    assert rows[1] == NULL
    assert field(copy_binary.halfvec(column.slice(1, 2))) == rows[1:]
    single = field(copy_binary.vector(pa.array([[1.0, -0.5]], pa.list_(pa.float32(), 2))))
    assert single == [b"\0\0\0\x0c\0\2\0\0" + np.array([1, -0.5], ">f4").tobytes()]


def test_sparse_vectors_are_positions_then_values():
    positions = pa.array([[2, 9], []], pa.list_(pa.int32()))
    values = pa.array([[0.5, 1.5], []], pa.list_(pa.float32()))
    rows = field(copy_binary.sparsevec(positions, values, 10))
    assert rows[0] == np.array([28, 10, 2, 0, 2, 9], ">i4").tobytes() + np.array([0.5, 1.5], ">f4").tobytes()
    assert rows[1] == np.array([12, 10, 0, 0], ">i4").tobytes()
