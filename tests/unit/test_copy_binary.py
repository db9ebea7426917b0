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


def test_lists_may_be_null_or_hold_null():
    rows = field(copy_binary.int4_array(pa.array([[7, None], None, [9]], pa.list_(pa.int32()))))
    assert rows[0] == np.array([32, 1, 1, 23, 2, 1, 4, 7, -1], ">i4").tobytes()
    assert rows[1] == NULL
    assert rows[2] == np.array([28, 1, 1, 23, 1, 1, 4, 9], ">i4").tobytes()
    texts = field(copy_binary.text_array(pa.array([[None, "茶"], None], pa.list_(pa.string()))))
    assert texts == [np.array([31, 1, 1, 25, 2, 1, -1, 3], ">i4").tobytes() + "茶".encode(), NULL]


def test_a_null_list_may_have_elements_of_its_own():
    offsets, values = pa.array([0, 2, 3], pa.int32()), pa.array([7, 8, 9], pa.int32())
    hidden = pa.ListArray.from_arrays(offsets, values, mask=pa.array([True, False]))
    assert field(copy_binary.int4_array(hidden)) == [NULL, np.array([28, 1, 0, 23, 1, 1, 4, 9], ">i4").tobytes()]


@pytest.mark.parametrize(
    ("encode", "column", "expected"),
    [
        (copy_binary.boolean, pa.array([True, None, False]), [b"\0\0\0\1\1", NULL, b"\0\0\0\1\0"]),
        (copy_binary.int2, pa.array([-2, None], pa.int16()), [b"\0\0\0\2\xff\xfe", NULL]),
        (copy_binary.int8, pa.array([1], pa.int64()), [b"\0\0\0\x08" + bytes(7) + b"\1"]),
        (copy_binary.float8, pa.array([None, 1.0]), [NULL, b"\0\0\0\x08\x3f\xf0" + bytes(6)]),
        (
            copy_binary.timestamp,
            pa.array([946_684_800_000_001], pa.timestamp("us")),
            [b"\0\0\0\x08" + bytes(7) + b"\1"],
        ),
        (copy_binary.text, pa.array([b"\0", None], pa.binary()), [b"\0\0\0\1\0", NULL]),
    ],
)
def test_scalars_may_be_null(encode, column, expected):
    assert field(encode(column)) == expected


@pytest.mark.parametrize(
    ("digits", "number", "expected"),
    [
        ((5, 0), "-12345", [2, 1, 0x4000, 0, 1, 2345]),
        ((4, 4), "0.0123", [1, -1, 0, 4, 123]),
        ((18, 16), "98.0000000000000001", [5, 0, 0, 16, 98, 0, 0, 0, 1]),
    ],
)
def test_numbers_of_any_scale(digits, number, expected):
    (cell,) = field(copy_binary.numeric(pa.array([Decimal(number)], pa.decimal128(*digits))))
    assert np.frombuffer(cell[4:], ">i2").tolist() == expected
