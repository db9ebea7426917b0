-- Schemas, and the tables that landing fills. Every row belongs to a shop, so several data sets live side by side.

create schema raw;
comment on schema raw is 'What landed, cleaned but not interpreted. Written by the loader only.';
create schema vault;
comment on schema vault is 'Contact data, encrypted by the client before it arrives. No role but the loader reads it.';
create schema ops;
comment on schema ops is 'How the pipeline went: quarantine and gate verdicts.';

create sequence raw.landing_no;

create table raw.landing (
    landing_no bigint primary key default nextval('raw.landing_no'),
    shop text not null,
    source text not null,
    manifest_hash text not null,
    is_generated boolean not null,
    has_clock boolean not null,
    state text not null check (state in ('started', 'complete')),
    row_counts jsonb not null default '{}',
    watermark timestamptz,
    started_at timestamptz not null default now(),
    completed_at timestamptz,
    unique (shop, manifest_hash)
);
comment on table raw.landing is 'One row per landed input, named by the hash of its content: landing the same input again finds this row.';
comment on column raw.landing.has_clock is 'False where the source has only an order of events; event_at is then an ordinal and no time is read from it.';
comment on column raw.landing.watermark is 'Latest event_at in the input: the end of the data interval.';

create table raw.product (
    shop text not null,
    item_id text not null,
    title text not null,
    description text not null default '',
    brand text,
    categories text[] not null default '{}',
    price numeric(12, 2),
    currency text,
    attributes jsonb not null default '{}',
    listed_at timestamptz,
    landing_no bigint not null references raw.landing,
    primary key (shop, item_id)
);
comment on table raw.product is 'One row per product of a shop: the latest landed version.';
comment on column raw.product.categories is 'Path from the widest category to the leaf.';

create table raw.event (
    shop text not null,
    event_id text not null,
    user_key text not null,
    item_id text not null,
    kind text not null check (kind in ('view', 'click', 'cart', 'purchase', 'dislike', 'return')),
    event_at timestamptz not null,
    session_id text,
    query_id text,
    quantity integer,
    landing_no bigint not null references raw.landing,
    primary key (shop, event_id)
);
comment on table raw.event is 'One row per event of a shopper with a product.';
comment on column raw.event.user_key is 'Keyed pseudonym (HMAC-SHA-256), never the id that the shop uses.';
create index on raw.event (landing_no);

create table raw.query (
    shop text not null,
    query_id text not null,
    user_key text,
    session_id text,
    query_text text not null,
    lang text not null,
    searched_at timestamptz not null,
    shown_item_ids text[] not null default '{}',
    landing_no bigint not null references raw.landing,
    primary key (shop, query_id)
);
comment on table raw.query is 'One row per search, with the products that were shown in their order.';
create index on raw.query (landing_no);

create table raw.review (
    shop text not null,
    review_id text not null,
    user_key text not null,
    item_id text not null,
    rating real check (rating between 1 and 5),
    body text not null default '',
    lang text not null,
    sentiment real not null check (sentiment between -1 and 1),
    reviewed_at timestamptz not null,
    landing_no bigint not null references raw.landing,
    primary key (shop, review_id)
);
comment on table raw.review is 'One row per review.';
comment on column raw.review.sentiment is 'Sentiment of the text, -1 to 1; 0 where there is no text.';
create index on raw.review (landing_no);

create table vault.person (
    shop text not null,
    user_key text not null,
    key_version smallint not null,
    sealed bytea not null,
    primary key (shop, user_key)
);
comment on table vault.person is 'Contact data of a shopper: AES-GCM, nonce first; the key never enters the database.';

create table ops.quarantine (
    shop text not null,
    entity text not null check (entity in ('product', 'event', 'query', 'review')),
    reason text not null,
    row_hash text not null,
    row_key text,
    payload jsonb not null,
    landing_no bigint not null,
    first_seen_at timestamptz not null default now(),
    primary key (shop, entity, reason, row_hash)
);
comment on table ops.quarantine is 'Rows that did not land, each with a reason code; personal columns are removed from the payload.';

create table ops.gate_result (
    shop text not null,
    run_id text not null,
    gate text not null,
    is_passed boolean not null,
    evaluated integer not null,
    verdict text not null,
    decided_at timestamptz not null default now(),
    primary key (shop, run_id, gate)
);
comment on table ops.gate_result is 'The last verdict of each gate in each run, as one sentence; never sample values.';
