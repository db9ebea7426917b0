from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from souk import pipeline
from souk.errors import SoukError
from souk.postgres import create_database
from souk.settings import Settings
from sql.migrate import FROZEN, ROOT, MigrationError, migrate, read_migrations

ROLES = ("souk_owner", "souk_loader", "souk_dbt", "souk_app", "souk_auditor")


@pytest.fixture
def empty(server, template):
    name = "test_empty"
    create_database(server.dsn("postgres"), name)
    yield make_conninfo(server.dsn("postgres"), dbname=name)
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"drop database if exists {name} with (force)")


def test_twenty_migrators_at_once_apply_everything_once(empty):
    with ThreadPoolExecutor(20) as pool:
        applied = list(pool.map(lambda _: migrate(empty), range(20)))
    names = [migration.name for migration in read_migrations()]
    assert len(names) >= 4
    assert sorted(applied, key=len)[-1] == names
    assert sum(map(len, applied)) == len(names)


def test_a_login_that_may_not_grant_the_roles_is_refused_until_it_may(server, empty):
    settings = replace(Settings.from_env({}), database_url=make_conninfo(empty, user="test_second", password="second"))
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        admin.execute("create role test_second login createrole password 'second'")
        admin.execute("alter database test_empty owner to test_second")
        try:
            with pytest.raises(SoukError, match=r"permission denied to create extension.*docs/own-postgres\.md"):
                pipeline.database(settings)
            with psycopg.connect(empty) as connection:
                connection.execute("create extension vector")
            with pytest.raises(SoukError, match=r"permission denied to grant role.*docs/own-postgres\.md"):
                pipeline.database(settings)
            admin.execute(f"grant {', '.join(ROLES)} to test_second with admin option")
            assert pipeline.database(settings) == settings.database_url
            assert migrate(empty) == []
        finally:
            admin.execute("drop database test_empty with (force)")
            admin.execute("drop role test_second")


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
