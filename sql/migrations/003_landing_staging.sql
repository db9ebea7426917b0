-- Chunks wait here until the whole input is read; then one transaction moves them. A stopped landing goes on from its
-- last chunk, and nobody sees half of it.

alter table raw.landing add column chunks jsonb not null default '{}';
comment on column raw.landing.chunks is 'Chunks of each entity that are staged: where a stopped landing goes on.';

create table raw.product_staging (like raw.product including defaults, row_no bigint generated always as identity);
create table raw.event_staging (like raw.event, row_no bigint generated always as identity);
create table raw.query_staging (like raw.query including defaults, row_no bigint generated always as identity);
create table raw.review_staging (like raw.review including defaults, row_no bigint generated always as identity);
create table vault.person_staging (like vault.person, landing_no bigint not null);
comment on table raw.product_staging is 'Products of landings under way.';
comment on table raw.event_staging is 'Events of landings under way.';
comment on table raw.query_staging is 'Searches of landings under way.';
comment on table raw.review_staging is 'Reviews of landings under way.';
comment on table vault.person_staging is 'Sealed contact data of landings under way.';
