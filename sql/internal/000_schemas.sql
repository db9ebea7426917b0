create schema if not exists internal;
comment on schema internal is 'Functions behind the api; no application calls them.';
create schema if not exists api;
comment on schema api is 'Everything that an application may call.';
