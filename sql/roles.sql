-- Who may do what. Group roles without login: grant them to the logins of your programs.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['souk_loader', 'souk_dbt', 'souk_app', 'souk_auditor'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
            begin
                execute format('create role %I nologin', wanted);
            exception when duplicate_object or unique_violation then
                null; -- Roles belong to the server: a migrator of another database made it just now.
            end;
        end if;
    end loop;
end
$$;

-- Functions are executable by everybody unless it is taken away.
revoke execute on all functions in schema internal, api from public;

grant usage on schema api, public to souk_app;
grant execute on all functions in schema api to souk_app;

grant usage on schema raw, vault, ops, serving, live, internal to souk_loader;
grant select, insert, update, delete on all tables in schema raw, vault, ops, serving to souk_loader;
grant usage on all sequences in schema raw to souk_loader;
grant select on all tables in schema live to souk_loader;
grant execute on function internal.publish_release(text) to souk_loader;

grant usage on schema raw to souk_dbt;
grant select on all tables in schema raw to souk_dbt;

grant usage on schema ops, serving to souk_auditor;
grant select on ops.gate_result, serving.release, serving.pointer, serving.publication to souk_auditor;
