"""What the database is made of, as text: the golden files of tests/golden, read in a review like code.

They are written anew by: SOUK_WRITE_GOLDEN=1 python -m pytest tests/sql/test_schema.py tests/sql/test_access.py
"""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SCHEMAS = ["raw", "vault", "ops", "serving", "live", "internal", "api"]

RELATIONS = """
select n.nspname || '.' || c.relname,
    case c.relkind when 'v' then 'view' when 'S' then 'sequence' when 'c' then 'type' else 'table' end
        || case c.relpersistence when 'u' then ' unlogged' else '' end
        || coalesce(' partition by ' || pg_get_partkeydef(c.oid), '')
        || case when c.relrowsecurity then ' row security' else '' end
        || case when c.relforcerowsecurity then ' forced' else '' end
        || ' owner ' || pg_get_userbyid(c.relowner)
from pg_class as c
inner join pg_namespace as n on n.oid = c.relnamespace
where n.nspname = any(%(schemas)s) and c.relkind in ('r', 'p', 'v', 'S', 'c') and not c.relispartition
order by 1
"""
DETAILS = """
select n.nspname || '.' || c.relname, d.line
from pg_class as c
inner join pg_namespace as n on n.oid = c.relnamespace
cross join lateral (
    select 1 as place, a.attnum as number,
        a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
            || case when a.attnotnull then ' not null' else '' end
            || case a.attidentity when 'a' then ' generated always' else '' end
            || coalesce(' default ' || pg_get_expr(v.adbin, v.adrelid), '')
            || case when a.attstorage <> t.typstorage then ' storage ' || a.attstorage::text else '' end as line
    from pg_attribute as a
    inner join pg_type as t on t.oid = a.atttypid
    left join pg_attrdef as v on v.adrelid = a.attrelid and v.adnum = a.attnum
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    union all
    select 2, row_number() over (order by k.conname collate "C"), k.conname || ' ' || pg_get_constraintdef(k.oid)
    from pg_constraint as k where k.conrelid = c.oid and k.contype <> 'n'
    union all
    select 3, row_number() over (order by x.indexrelid::regclass::text collate "C"), pg_get_indexdef(x.indexrelid)
    from pg_index as x
    where x.indrelid = c.oid and not exists (select from pg_constraint as k where k.conindid = x.indexrelid)
    union all
    select 4, row_number() over (order by p.polname collate "C"),
        format('policy %%s for %%s to %%s using %%s', p.polname, p.polcmd,
            array(select pg_get_userbyid(r.r) from unnest(p.polroles) as r (r) order by 1),
            pg_get_expr(p.polqual, p.polrelid) || coalesce(' check ' || pg_get_expr(p.polwithcheck, p.polrelid), ''))
    from pg_policy as p where p.polrelid = c.oid
) as d
where n.nspname = any(%(schemas)s) and c.relkind in ('r', 'p', 'v', 'c') and not c.relispartition
order by 1, d.place, d.number
"""
FUNCTIONS = """
select n.nspname || '.' || p.proname || '(' || pg_get_function_arguments(p.oid) || ')',
    'returns ' || pg_get_function_result(p.oid)
        || ' ' || (select l.lanname from pg_language as l where l.oid = p.prolang)
        || ' ' || case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end
        || case when p.prosecdef then ' security definer' else '' end
        || ' owner ' || pg_get_userbyid(p.proowner),
    coalesce(p.proconfig, '{}')
from pg_proc as p
inner join pg_namespace as n on n.oid = p.pronamespace
where n.nspname = any(%(schemas)s)
order by 1
"""


def schema(connection) -> str:
    """Tables, views, sequences, types and functions, one block each."""
    parameters = {"schemas": SCHEMAS}
    with connection.transaction():
        # Names of tables are written with their schemas.
        connection.execute("set local search_path to pg_catalog")
        details = connection.execute(DETAILS, parameters).fetchall()
        blocks = [
            "\n    ".join([f"{name} {kind}", *(line for of, line in details if of == name)])
            for name, kind in connection.execute(RELATIONS, parameters).fetchall()
        ]
        blocks += [
            "\n    ".join([name, form, *(f"set {setting}" for setting in settings)])
            for name, form, settings in connection.execute(FUNCTIONS, parameters).fetchall()
        ]
    return "\n\n".join(blocks) + "\n"


def assert_golden(name: str, text: str) -> None:
    """Compare with a golden file, or write it if SOUK_WRITE_GOLDEN is set."""
    path = GOLDEN / name
    if os.environ.get("SOUK_WRITE_GOLDEN"):
        path.write_text(text)
    assert text.splitlines() == path.read_text().splitlines(), (
        f"{path} differs; tests/sql/catalogue.py says how to write it"
    )
