-- Who may do what. Group roles without login: grant them to the logins of your programs, and map every login of an
-- application to its shop in ops.tenant_role.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['souk_owner', 'souk_loader', 'souk_dbt', 'souk_app', 'souk_auditor'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
            begin
                execute format('create role %I nologin', wanted);
            exception when duplicate_object or unique_violation then
                null; -- Roles belong to the server: a migrator of another database made it just now.
            end;
        end if;
        -- An owner of the database who is no superuser acts as these roles by being their member.
        if not pg_catalog.pg_has_role(wanted, 'set') then
            execute format('grant %I to current_user with inherit true, set true', wanted);
        end if;
    end loop;
end
$$;

-- A superuser passes by row-level security, and so would its functions: all belongs to a role that cannot log in.
do $$
declare
    wanted record;
begin
    for wanted in
        select format('alter schema %I owner to souk_owner', n.nspname) as statement
        from pg_catalog.pg_namespace as n
        where n.nspname in ('raw', 'vault', 'ops', 'serving', 'live', 'internal', 'api')
            and n.nspowner <> 'souk_owner'::regrole
        union all
        select format('alter table %s owner to souk_owner', c.oid::regclass)
        from pg_catalog.pg_class as c
        where c.relnamespace::regnamespace::text in ('raw', 'vault', 'ops', 'serving', 'live')
            and c.relkind in ('r', 'p') and c.relowner <> 'souk_owner'::regrole
        union all
        -- Sequences of identity columns follow their tables.
        select format('alter sequence %s owner to souk_owner', c.oid::regclass)
        from pg_catalog.pg_class as c
        where c.relnamespace = 'raw'::regnamespace and c.relkind = 'S' and c.relowner <> 'souk_owner'::regrole
            and not exists (select from pg_catalog.pg_depend as d where d.objid = c.oid and d.deptype = 'i')
        union all
        select format('alter function %s owner to souk_owner', p.oid::regprocedure)
        from pg_catalog.pg_proc as p
        where p.pronamespace in ('internal'::regnamespace, 'api'::regnamespace) and p.proowner <> 'souk_owner'::regrole
        union all
        select format('alter type %s owner to souk_owner', t.oid::regtype)
        from pg_catalog.pg_type as t
        inner join pg_catalog.pg_class as c on c.oid = t.typrelid and c.relkind = 'c'
        where t.typnamespace in ('internal'::regnamespace, 'api'::regnamespace) and t.typowner <> 'souk_owner'::regrole
    loop
        execute wanted.statement;
    end loop;
end
$$;

-- Rows about people are seen by the shop that they belong to. The loader and dbt work for all shops.
do $$
declare
    wanted record;
begin
    for wanted in
        select
            c.oid::regclass as name,
            c.relnamespace = 'raw'::regnamespace and c.relname in ('event', 'query', 'review', 'impression') as for_dbt
        from pg_catalog.pg_class as c
        inner join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attname = 'user_key'
        where not c.relrowsecurity and not c.relispartition and c.relkind in ('r', 'p')
            and c.relnamespace in ('raw'::regnamespace, 'vault'::regnamespace, 'serving'::regnamespace, 'live'::regnamespace)
    loop
        execute format('alter table %s enable row level security, force row level security', wanted.name);
        execute format(
            'create policy of_shop on %s for all to souk_owner using (shop = (select internal.current_shop()))', wanted.name
        );
        execute format('create policy all_shops on %s for all to souk_loader using (true)', wanted.name);
        if wanted.for_dbt then
            execute format('create policy read_all_shops on %s for select to souk_dbt using (true)', wanted.name);
        end if;
    end loop;
end
$$;

-- Functions are executable by everybody unless it is taken away.
revoke execute on all functions in schema internal, api from public;

grant usage on schema api, public to souk_app;
grant execute on all functions in schema api to souk_app;

grant usage on schema raw, vault, ops, serving, live, internal to souk_loader;
grant select, insert, update, delete on all tables in schema raw, vault, ops, serving, live to souk_loader;
grant usage on all sequences in schema raw to souk_loader;
grant execute on all functions in schema internal to souk_loader;

grant usage on schema raw to souk_dbt;
grant select on all tables in schema raw to souk_dbt;

grant usage on schema ops, serving to souk_auditor;
grant select on ops.gate_result, ops.tenant_role, serving.release, serving.pointer, serving.publication to souk_auditor;
grant select on ops.refinement, ops.refinement_rejection, ops.refinement_approval to souk_auditor;
