"""Attempts at the same rows, late ones and dead ones: a write is stored once, as a whole, or not at all. Without Spark."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest

from spark_jobs.pgvector import writes
from spark_jobs.pgvector.errors import ClosedWriteError, RejectedRowsError, SourceError
from spark_jobs.pgvector.kinds import find_table, match_reading, match_writing

FRAME = [("item_id", "string"), ("vec", "array<float>")]
STAGING = "staging"


@pytest.fixture
def items(module_database: str) -> Iterator[psycopg.Connection]:
    """A connection to a database with an empty table `items` and without a staging schema."""
    with psycopg.connect(module_database, autocommit=True) as connection:
        connection.execute(f"drop table if exists items, odd, sums; drop schema if exists {STAGING} cascade")
        connection.execute(
            "create table items (item_id text primary key, vec halfvec(3) not null, attributes jsonb, n int default 7)"
        )
        yield connection


def begin(
    dsn: str, name: str = "items", *, frame: list[tuple[str, str]] = FRAME, replaces: bool = False
) -> writes.Write:
    with psycopg.connect(dsn) as connection:
        table = find_table(connection, "items")
    return writes.begin(dsn, STAGING, name, table, match_writing(table, frame), ("item_id",), replaces)


def rows(*ids: str, vec: list[float | None] | None = None) -> pa.RecordBatch:
    vectors = pa.array([[0.5, 0, 1]] * len(ids) if vec is None else [vec] * len(ids), pa.list_(pa.float32()))
    return pa.record_batch([pa.array(ids), vectors], ["item_id", "vec"])


def stored(items: psycopg.Connection) -> list[str]:
    return [row[0] for row in items.execute("select item_id from items order by item_id").fetchall()]


def left_over(items: psycopg.Connection) -> list[str]:
    return [
        row[0]
        for row in items.execute(
            f"select tablename from pg_tables where schemaname = '{STAGING}' and tablename <> 'write'"
            f" union all select write_id from {STAGING}.write"
        ).fetchall()
    ]


def test_nothing_is_seen_before_the_commit_and_all_after_it(items, module_database):
    write = begin(module_database)
    stages = [writes.copy(write, 1, 11, [rows("c")]), writes.copy(write, 0, 10, [rows("a"), rows(), rows("b")])]
    assert stored(items) == []
    assert writes.commit(write, stages) == 3
    assert stored(items) == ["a", "b", "c"]
    assert items.execute("select distinct n, vec::text from items").fetchall() == [(7, "[0.5,0,1]")]
    assert left_over(items) == []


def test_an_empty_partition_has_no_stage(items, module_database):
    write = begin(module_database)
    stage = writes.copy(write, 0, 1, iter([rows()]))
    assert (stage.table, stage.rows) == (None, 0)
    assert writes.commit(write, [stage]) == 0
    assert left_over(items) == []


def test_a_retried_task_does_not_double_its_rows(items, module_database):
    write = begin(module_database)
    writes.copy(write, 0, 1, [rows("a", "b")])
    again = writes.copy(write, 0, 2, [rows("a", "b")])
    assert len(left_over(items)) == 3
    writes.commit(write, [again])
    assert stored(items) == ["a", "b"]
    assert left_over(items) == []


def test_a_partition_that_is_reported_twice_is_refused(items, module_database):
    write = begin(module_database)
    stages = [writes.copy(write, 0, attempt, [rows("a")]) for attempt in (1, 2)]
    with pytest.raises(RuntimeError, match="twice"):
        writes.commit(write, stages)
    assert stored(items) == []


def test_a_stage_that_lost_rows_is_noticed(items, module_database):
    write = begin(module_database)
    stage = writes.copy(write, 0, 1, [rows("a", "b")])
    items.execute(f"delete from {STAGING}.{stage.table} where item_id = 'a'")
    with pytest.raises(RuntimeError, match="partition 0 has 1 rows of 2"):
        writes.commit(write, [stage])
    assert stored(items) == []
    writes.abort(write)
    assert left_over(items) == []


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_a_task_that_comes_after_the_end_stores_nothing(items, module_database, end):
    write = begin(module_database)
    stage = writes.copy(write, 0, 1, [rows("a")])
    writes.commit(write, [stage]) if end == "commit" else writes.abort(write)
    with pytest.raises(ClosedWriteError, match="attempt 2 at partition 0"):
        writes.copy(write, 0, 2, [rows("a")])
    with pytest.raises(ClosedWriteError):
        writes.commit(write, [stage])
    assert stored(items) == (["a"] if end == "commit" else [])
    assert left_over(items) == []


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_a_duplicate_that_still_copies_is_ended_and_not_waited_for(items, module_database, end):
    write = begin(module_database)
    has_started, may_go_on = threading.Event(), threading.Event()
    failures = []

    def orphan() -> None:
        def batches() -> Iterator[pa.RecordBatch]:
            yield rows("a")
            has_started.set()
            assert may_go_on.wait(60)
            yield rows("b")

        try:
            writes.copy(write, 0, 2, batches())
        except psycopg.OperationalError as error:
            failures.append(error)

    stage = writes.copy(write, 0, 1, [rows("a"), rows("b")])
    task = threading.Thread(target=orphan)
    task.start()
    assert has_started.wait(60)
    writes.commit(write, [stage]) if end == "commit" else writes.abort(write)
    may_go_on.set()
    task.join(60)
    assert not task.is_alive()
    assert len(failures) == 1
    assert stored(items) == (["a", "b"] if end == "commit" else [])
    assert left_over(items) == []


def test_a_write_whose_driver_died_is_taken_over(items, module_database):
    dead = begin(module_database)
    stage = writes.copy(dead, 0, 1, [rows("a")])
    other = begin(module_database, "another")
    write = begin(module_database)
    assert sorted(left_over(items)) == sorted([other.write_id, write.write_id])
    # A driver that was only thought dead.
    with pytest.raises(ClosedWriteError, match="a later one named items took over"):
        writes.commit(dead, [stage])
    writes.commit(write, [writes.copy(write, 0, 2, [rows("a")])])
    assert stored(items) == ["a"]


def test_replacing_happens_in_the_moment_of_the_commit(items, module_database):
    items.execute("insert into items values ('old', '[1,1,1]')")
    write = begin(module_database, replaces=True)
    stage = writes.copy(write, 0, 1, [rows("new")])
    assert stored(items) == ["old"]
    writes.commit(write, [stage])
    assert stored(items) == ["new"]


def test_a_commit_that_fails_leaves_the_table_as_it_was(items, module_database):
    items.execute("insert into items values ('a', '[1,1,1]')")
    write = begin(module_database)
    stages = [writes.copy(write, 0, 1, [rows("b")]), writes.copy(write, 1, 2, [rows("a")])]
    with pytest.raises(psycopg.errors.UniqueViolation, match=r"\(item_id\)=\(a\)"):
        writes.commit(write, stages)
    writes.abort(write)
    assert stored(items) == ["a"]
    assert left_over(items) == []


@pytest.mark.parametrize(
    ("vec", "said"),
    [
        ([0.5, float("nan"), 1], "item_id 'bad': vec holds NaN or null"),
        ([0.5, None, 1], "item_id 'bad': vec holds NaN or null"),
        ([0.5, float("-inf"), 1], "item_id 'bad': vec holds infinity"),
        ([0.5, -70_000, 1], "item_id 'bad': vec holds -70000, too large for halfvec"),
        ([0, 0, 0], "item_id 'bad': vec is all zeros"),
        ([0, -0.0, 1e-9], "item_id 'bad': vec is all zeros"),
        ([1, 2], "item_id 'bad': vec has 2 dimensions, not 3"),
        ([], "item_id 'bad': vec has 0 dimensions, not 3"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_vector_may_not_be_is_named_by_key(items, module_database, vec, said, is_first):
    write = begin(module_database)
    good, bad = (
        rows("good"),
        pa.Table.from_batches([rows("fine"), rows("bad", vec=vec)]).combine_chunks().to_batches()[0],
    )
    with pytest.raises(RejectedRowsError) as raised:
        writes.copy(write, 0, 1, [bad, good] if is_first else [good, bad])
    assert str(raised.value) == f"1 row is rejected: {said}"
    assert left_over(items) == [write.write_id]


def test_small_and_large_halves_are_stored(items, module_database):
    write = begin(module_database)
    vectors = {"large": [65_504.0, 65_000, -65_504], "small": [6e-8, 0, 0]}
    writes.commit(write, [writes.copy(write, 0, 1, [rows(name, vec=vec) for name, vec in vectors.items()])])
    assert stored(items) == ["large", "small"]


def test_null_and_many_rejected_rows_are_named(items, module_database):
    write = begin(module_database)
    batch = pa.record_batch(
        [pa.array([f"i{n}" for n in range(12)]), pa.array([None] * 12, pa.list_(pa.float32()))], ["item_id", "vec"]
    )
    with pytest.raises(RejectedRowsError, match=r"12 rows are rejected: item_id 'i0': vec is null; .*; and 2 more"):
        writes.copy(write, 0, 1, [batch])


def test_what_postgres_refuses_is_named_by_key(items, module_database):
    write = begin(module_database, frame=[*FRAME, ("attributes", "string")])
    batches = [
        rows(*ids).append_column("attributes", pa.array(texts))
        for ids, texts in ((["a", "b"], ["{}", None]), (["c", "d"], ['{"x": 1}', "{x}"]))
    ]
    with pytest.raises(RejectedRowsError, match=r"^1 row is rejected: item_id 'd': attributes: invalid input syntax"):
        writes.copy(write, 0, 1, batches)
    assert left_over(items) == [write.write_id]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (
            [*FRAME, ("colour", "string"), ("n", "string")],
            "there is no column colour; n is integer, which string does not fit",
        ),
        ([("item_id", "string"), ("vec", "string")], r"vec is halfvec\(3\), which string does not fit"),
        ([("item_id", "string")], "vec is missing"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_before_anything_is_written(items, module_database, frame, said):
    with pytest.raises(SourceError, match=said):
        begin(module_database, frame=frame)
    assert items.execute("select to_regclass(%s)", [f"{STAGING}.write"]).fetchone() == (None,)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("vec vector", r"vec has no dimension: declare it as vector\(n\)"),
        ("vec vector(3) generated always as ('[1,2,3]') stored", "vec is computed by Postgres"),
        ("vec point", "vec is point, which is not supported"),
        ("vec numeric", "vec is numeric, which is not supported"),
    ],
)
def test_a_table_that_cannot_be_filled_is_refused(items, column, said):
    items.execute(f"create table odd (item_id text, {column})")
    with pytest.raises(SourceError, match=said):
        match_writing(find_table(items, "odd"), FRAME)


@pytest.mark.parametrize("name", ["nothing", "no.schema", "not a name", 'a"'])
def test_an_unknown_table_is_named(items, name):
    with pytest.raises(SourceError, match="there is no table " + name.split()[0]):
        find_table(items, name)


def test_numbers_are_taken_where_they_fit(items):
    items.execute("create table sums (small numeric(6,2), wide int8)")
    table = find_table(items, "sums")
    assert match_writing(table, [("small", "decimal(5,1)"), ("wide", "int")])
    for spark in ("decimal(7,2)", "decimal(6,3)", "double"):
        with pytest.raises(SourceError, match=r"small is numeric\(6,2\), which"):
            match_writing(table, [("small", spark)])
    with pytest.raises(SourceError, match="wide is bigint"):
        match_reading(table, [("wide", "int")])
