from __future__ import annotations

import psycopg
import pytest

from tests.sql.catalogue import SCHEMAS, assert_golden

MATRIX = """
with roles as (
    select r.rolname::text as role, r.oid from pg_roles as r
    where r.rolname in ('souk_owner', 'souk_loader', 'souk_dbt', 'souk_app', 'souk_auditor')
    union all
    select 'PUBLIC', 0
),
objects as (
    select 1 as place, 'schema ' || n.nspname as name, n.oid, n.nspacl as acl, n.nspowner as owner, 'n' as kind
    from pg_namespace as n where n.nspname = any(%(schemas)s)
    union all
    select
        2, case c.relkind when 'S' then 'sequence ' when 'v' then 'view ' else 'table ' end || n.nspname || '.' || c.relname,
        c.oid, c.relacl, c.relowner, case c.relkind when 'S' then 's' else 'r' end
    from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = any(%(schemas)s) and c.relkind in ('r', 'p', 'v', 'S') and not c.relispartition
    union all
    select 3, 'function ' || p.oid::regprocedure, p.oid, p.proacl, p.proowner, 'f'
    from pg_proc as p inner join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = any(%(schemas)s)
),
verbs as (
    select 'n' as kind, unnest(array['USAGE', 'CREATE']) as verb
    union all
    select 's', unnest(array['USAGE', 'SELECT', 'UPDATE'])
    union all
    select 'r', unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'])
    union all
    select 'f', 'EXECUTE'
),
held as (
    select o.place, o.name, r.role, v.verb
    from objects as o
    inner join verbs as v on v.kind = o.kind
    cross join roles as r
    where case
        -- PUBLIC is no role that can be asked: its rights are entries of the list, or those that objects have by default.
        when r.oid = 0 then exists (
            select from aclexplode(coalesce(o.acl, acldefault(o.kind::"char", o.owner))) as a
            where a.grantee = 0 and a.privilege_type = v.verb
        )
        when o.kind = 'n' then has_schema_privilege(r.oid, o.oid, v.verb)
        when o.kind = 's' then has_sequence_privilege(r.oid, o.oid, v.verb)
        when o.kind = 'r' then has_table_privilege(r.oid, o.oid, v.verb)
        else has_function_privilege(r.oid, o.oid, v.verb)
    end
)
select o.name, coalesce(string_agg(h.role || ' ' || h.verbs, '; ' order by h.role), 'nobody but the owner')
from objects as o
left join (
    select x.name, x.role, string_agg(x.verb, ',' order by x.verb) as verbs from held as x
    where x.role <> 'souk_owner' group by x.name, x.role
) as h on h.name = o.name
group by o.place, o.name
order by o.place, o.name
"""


def matrix(connection):
    rows = connection.execute(MATRIX, {"schemas": SCHEMAS}).fetchall()
    return "\n".join(f"{name}: {held}" for name, held in rows) + "\n"


def test_who_may_do_what_is_the_golden_matrix(database):
    with psycopg.connect(database) as connection:
        assert_golden("access.txt", matrix(connection))


@pytest.mark.parametrize(
    "statement",
    [
        "grant select on serving.item to souk_app",
        "grant execute on function internal.shown() to public",
        "grant usage on schema live to souk_auditor",
        "grant usage on sequence raw.landing_no to souk_dbt",
        "alter default privileges in schema live grant select on tables to public; create table live.fresh (id int)",
    ],
)
def test_the_matrix_would_tell_a_change(database, statement):
    with psycopg.connect(database) as connection:
        before = matrix(connection)
        connection.execute(statement)
        assert matrix(connection) != before


def test_an_application_reaches_the_api_alone(database):
    with psycopg.connect(database) as connection:
        lines = matrix(connection).splitlines()
    held = {line.split(": ", 1)[0] for line in lines if "souk_app" in line}
    assert len(held) > 10
    assert all(name == "schema api" or name.startswith("function api.") for name in held)
    assert not [line for line in lines if "PUBLIC" in line]


def test_the_roles_are_groups_and_the_owner_is_weak(database):
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "select rolname, rolsuper, rolcanlogin, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication"
            " from pg_roles where rolname like 'souk\\_%' order by 1"
        ).fetchall()
        members = connection.execute(
            "select count(*) from pg_auth_members as m inner join pg_roles as r on r.oid = m.roleid"
            " inner join pg_roles as g on g.oid = m.member where r.rolname = 'souk_owner' and not g.rolsuper"
            " and g.oid <> (select datdba from pg_database where datname = current_database())"
        ).fetchone()
    assert [row[0] for row in rows] == ["souk_app", "souk_auditor", "souk_dbt", "souk_loader", "souk_owner"]
    assert not any(any(row[1:]) for row in rows)
    assert members == (0,)


def test_functions_that_act_as_the_owner_are_pinned(database):
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "select p.oid::regprocedure::text, pg_get_userbyid(p.proowner), p.proconfig, p.pronamespace::regnamespace::text"
            " from pg_proc as p where p.prosecdef"
        ).fetchall()
        # The language of a body that is parsed when it is called matters: C functions of extensions are none of ours.
        unpinned = connection.execute(
            "select p.oid::regprocedure::text from pg_proc as p where p.pronamespace = 'api'::regnamespace"
            " and not exists (select from unnest(p.proconfig) as c where c like 'search\\_path=%')"
        ).fetchall()
    assert len(rows) > 10
    assert {row[3] for row in rows} == {"api", "internal"}
    for name, owner, settings, _ in rows:
        assert owner == "souk_owner", name
        [path] = [setting for setting in settings if setting.startswith("search_path=")]
        assert path in ("search_path=pg_catalog, pg_temp", "search_path=pg_catalog, public, pg_temp"), name
    assert unpinned == []


def test_every_table_about_people_is_guarded_by_row(database):
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "select c.oid::regclass::text, c.relrowsecurity and c.relforcerowsecurity from pg_class as c"
            " inner join pg_attribute as a on a.attrelid = c.oid and a.attname = 'user_key'"
            " where c.relkind in ('r', 'p') and c.relnamespace::regnamespace::text = any(%s)",
            [SCHEMAS],
        ).fetchall()
    assert len(rows) >= 9
    assert [name for name, is_guarded in rows if not is_guarded] == []


def test_nobody_may_create_in_a_schema_that_functions_look_into(database):
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "select n.nspname, r.rolname from pg_namespace as n cross join pg_roles as r"
            " where n.nspname in ('public', 'pg_catalog', 'api', 'internal') and r.rolname in"
            " ('souk_app', 'souk_loader', 'souk_dbt', 'souk_auditor') and has_schema_privilege(r.oid, n.oid, 'CREATE')"
        ).fetchall()
    assert rows == []
