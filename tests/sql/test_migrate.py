from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from souk.postgres import create_database
from sql.migrate import FROZEN, ROOT, MigrationError, migrate, read_migrations


@pytest.fixture
def empty(server):
    name = "test_empty"
    create_database(server.dsn("postgres"), name)
    yield make_conninfo(server.dsn("postgres"), dbname=name)
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


def test_twenty_migrators_at_once_apply_everything_once(empty):
    with ThreadPoolExecutor(20) as pool:
        applied = list(pool.map(lambda _: migrate(empty), range(20)))
    names = [migration.name for migration in read_migrations()]
    assert len(names) >= 4
    assert sorted(applied, key=len)[-1] == names
    assert sum(map(len, applied)) == len(names)


def test_an_edited_migration_is_refused(database, tmp_path):
    copy = tmp_path / "sql"
    shutil.copytree(ROOT, copy)
    assert migrate(database, copy) == []
    with (copy / "migrations" / "002_serving.sql").open("a") as file:
        file.write("-- a harmless remark\n")
    with pytest.raises(MigrationError, match=r"002_serving\.sql was changed"):
        migrate(database, copy)


def test_a_failing_migration_leaves_nothing(database, tmp_path):
    copy = tmp_path / "sql"
    shutil.copytree(ROOT, copy)
    (copy / "migrations" / "999_broken.sql").write_text("create table ops.half (id int); select 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(database, copy)
    with psycopg.connect(database) as connection:
        assert connection.execute("select to_regclass('ops.half')").fetchone() == (None,)


def test_frozen_hashes_are_those_of_the_files():
    frozen = dict(reversed(line.split()) for line in FROZEN.read_text().splitlines())
    assert frozen == {migration.name: migration.sha256 for migration in read_migrations()}
    assert hashlib.sha256((ROOT / "migrations" / "000_extensions.sql").read_bytes()).hexdigest() in frozen.values()


def test_every_object_has_a_comment(database):
    with psycopg.connect(database) as connection:
        functions = connection.execute(
            "select p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc') from pg_proc as p"
            " where p.pronamespace in ('api'::regnamespace, 'internal'::regnamespace)"
        ).fetchall()
        tables = connection.execute(
            "select c.oid::regclass::text, obj_description(c.oid, 'pg_class') from pg_class as c"
            " where c.relkind in ('r', 'p') and c.relnamespace::regnamespace::text"
            " in ('raw', 'ops', 'serving', 'live', 'vault')"
        ).fetchall()
    assert len(functions) > 10
    assert len(tables) > 15
    assert [name for name, comment in functions + tables if not comment] == []
