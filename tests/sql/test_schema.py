from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from souk.postgres import create_database
from sql.migrate import migrate, read_migrations
from tests.sql.catalogue import assert_golden, schema

OLD = ["000_extensions.sql", "001_schemas_and_landing.sql", "002_serving.sql", "003_landing_staging.sql"]


# Functions of the first version: their arguments and results differ from today's.
OLD_FUNCTIONS = """
create schema internal; create schema api;
create function api.recommend(user_id text, k integer, filters jsonb, personalised boolean)
returns table (rank integer, item_id text) language sql as 'select 1, null::text';
create function api.search(query text, k integer, filters jsonb)
returns table (rank integer, item_id text) language sql as 'select 1, null::text';
create function internal.current_release() returns text language sql as 'select null::text';
"""


@pytest.fixture
def old(server, template):
    """The DSN of a database as the first version left it, with a release that was served."""
    name = "test_old"
    create_database(server.dsn("postgres"), name)
    dsn = make_conninfo(server.dsn("postgres"), dbname=name)
    migrations = [migration for migration in read_migrations() if migration.name in OLD]
    assert [migration.name for migration in migrations] == OLD
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "create schema migration; create table migration.applied"
            " (name text primary key, sha256 text not null, applied_at timestamptz not null default now())"
        )
        for migration in migrations:
            connection.execute(migration.text)
            connection.execute(
                "insert into migration.applied (name, sha256) values (%s, %s)", [migration.name, migration.sha256]
            )
        connection.execute(OLD_FUNCTIONS)
        connection.execute(
            "insert into serving.release (release_id, shop, state, content_hash, encoder, is_generated, has_clock)"
            " values ('r1', 'shop', 'published', 'r1', 'test', true, true)"
        )
        connection.execute("insert into serving.pointer (release_id) values ('r1')")
        connection.execute(
            "insert into live.event (event_id, shop, user_key, item_id, kind, event_at)"
            " values ('e1', 'shop', 'u1', 'tea', 'click', now())"
        )
    yield dsn
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


def test_the_schema_is_the_golden_one(database):
    with psycopg.connect(database) as connection:
        assert_golden("schema.txt", schema(connection))


def test_the_golden_schema_would_tell_a_change(database):
    with psycopg.connect(database) as connection:
        before = schema(connection)
        for statement in (
            "alter table raw.product alter column brand set not null",
            "alter table live.event alter column kind set default 'view'",
            "create index on live.event (item_id)",
            "drop policy of_shop on live.event",
            "alter table live.event no force row level security",
            "alter function api.profile(text) security invoker",
            "alter function api.profile(text) reset search_path",
        ):
            connection.execute(statement)
            assert schema(connection) != before
            connection.rollback()
        assert schema(connection) == before


def test_an_upgraded_database_is_a_fresh_one(old, database):
    assert migrate(old) == [migration.name for migration in read_migrations() if migration.name not in OLD]
    with psycopg.connect(old) as upgraded, psycopg.connect(database) as fresh:
        assert schema(upgraded).splitlines() == schema(fresh).splitlines()
        assert upgraded.execute("select event_id, landing_no from live.event").fetchall() == [("e1", None)]
        assert upgraded.execute("select state from serving.release").fetchall() == [("retired",)]
        assert upgraded.execute("select count(*) from serving.pointer").fetchone() == (0,)


def test_migrating_again_changes_nothing(database):
    with psycopg.connect(database) as connection:
        before = schema(connection)
        connection.rollback()
        assert migrate(database) == []
        assert schema(connection) == before
