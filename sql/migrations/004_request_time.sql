-- Everything at request time: a release is laid out for reading. Products are numbered within a release, a product's
-- neighbours and a term's products are arrays, and what is compared lies beside the number, never out of line.
-- What was served before is dropped: the next run publishes it again in the new form.

-- Functions are made anew after every migration; those with new results cannot be replaced.
do $$
declare
    old record;
begin
    for old in
        select p.oid::regprocedure as name
        from pg_catalog.pg_proc as p
        where p.pronamespace in (to_regnamespace('api'), to_regnamespace('internal'))
    loop
        execute format('drop function %s', old.name);
    end loop;
end
$$;

drop table serving.item, serving.edge, serving.token_vector, serving.posting, serving.user_profile, serving.seen;
drop table serving.pointer;
update serving.release as r set state = 'retired'
where r.state <> 'candidate';

create table serving.pointer (
    shop text primary key,
    release_id text not null references serving.release,
    moved_at timestamptz not null default now()
);
comment on table serving.pointer is 'The release that readers see: one row for each shop.';

create table serving.item (
    release_id text not null,
    item_no integer not null check (item_no >= 0),
    item_id text not null,
    title text not null,
    description text not null,
    brand text,
    categories text[] not null,
    price numeric(12, 2),
    attributes jsonb not null default '{}',
    lang text not null,
    key_terms text[] not null,
    popularity real not null check (popularity between 0 and 1),
    is_available boolean not null default true,
    text_vector halfvec(384) not null,
    lexical sparsevec not null,
    primary key (release_id, item_no) include (popularity, is_available)
) partition by list (release_id);
alter table serving.item alter column text_vector set storage plain, alter column lexical set storage plain;
comment on table serving.item is 'One row per product of a release, and per product that applications added to it since.';
comment on column serving.item.item_no is 'Position in the release by falling popularity, from 0; the arrays of the other tables hold it.';
comment on column serving.item.popularity is 'log(1 + events) over the largest such value of the release; 0 means new.';
comment on column serving.item.text_vector is 'Meaning of the texts: unit length, centred on the catalogue.';
comment on column serving.item.lexical is 'Words of the texts: one number per term_no; its inner product with the features of a query is the lexical score.';

create table serving.popularity (
    release_id text not null,
    first_nos integer[] not null,
    vals real[] not null check (cardinality(vals) = cardinality(first_nos)),
    primary key (release_id)
) partition by list (release_id);
comment on table serving.popularity is 'Popularity by number, one row: products from first_nos[i] on have vals[i], until the next. A step to 0 ends it.';

create table serving.edge (
    release_id text not null,
    src integer not null,
    kind text not null check (kind in ('transition', 'tfidf', 'encoder', 'cooccurrence')),
    dst integer[] not null,
    val real[] not null check (cardinality(val) = cardinality(dst)),
    primary key (release_id, src, kind)
) partition by list (release_id);
comment on table serving.edge is 'Directed item graph: for each kind the at most 50 neighbours of a product, the nearest first.';

create table serving.term (
    release_id text not null,
    term text not null,
    term_no integer not null check (term_no between 1 and 1000000000),
    documents integer not null check (documents > 0),
    idf real not null check (idf > 0),
    item_nos integer[] not null,
    weights real[] not null check (cardinality(weights) = cardinality(item_nos)),
    vec halfvec(384),
    primary key (release_id, term)
) partition by list (release_id);
comment on table serving.term is 'Lexicon of a release: words, pairs of words, character n-grams (with a leading #), n-grams of Chinese.';
comment on column serving.term.term_no is 'Position of the term in serving.item.lexical. Words that came with a product after the release have numbers from 500000000.';
comment on column serving.term.documents is 'Products that hold the term.';
comment on column serving.term.item_nos is 'The products in which the term weighs most, the heaviest first; empty for terms that find no candidates.';
comment on column serving.term.vec is 'Query encoder: the sum of the vectors of a query''s terms, normalised, lies in the space of serving.item.text_vector; null where there is none.';

create table serving.spelling (
    release_id text not null,
    variant text not null,
    terms text[] not null,
    primary key (release_id, variant)
) partition by list (release_id);
comment on table serving.spelling is 'Words by what is left of them when one letter is gone: two words that meet here are one typo apart. The most frequent first.';

create table serving.category (
    release_id text not null,
    input text not null check (input in ('query', 'user')),
    category text not null,
    bias real not null,
    vec vector(384) not null,
    primary key (release_id, input, category)
) partition by list (release_id);
comment on table serving.category is 'Category model: P(category | x) = softmax(vec · x + bias), x being the vector of a query or of a shopper.';

create table serving.item_day (
    release_id text not null,
    day date not null,
    item_no integer not null,
    events integer not null check (events > 0),
    primary key (release_id, day, item_no)
) partition by list (release_id);
comment on table serving.item_day is 'Events of a product on each of the last 28 days of the data; empty where the source has no clock.';

create table serving.user_profile (
    release_id text not null,
    shop text not null,
    user_key text not null,
    history integer[] not null,
    seen integer[] not null,
    disliked integer[] not null,
    praise halfvec(384),
    complaint halfvec(384),
    profile jsonb not null,
    primary key (release_id, user_key)
) partition by list (release_id);
comment on table serving.user_profile is 'One row per known shopper; what came later is in live.event.';
comment on column serving.user_profile.history is 'Up to 20 products, newest first, each once.';
comment on column serving.user_profile.seen is 'Products that are not recommended again: all that the shopper dealt with, but what a category that repeats sold long enough ago.';
comment on column serving.user_profile.disliked is 'Up to 20 products that were disliked or returned, newest first.';
comment on column serving.user_profile.praise is 'What the shopper''s reviews praise, in the space of serving.item.text_vector; null without such a review. Likewise complaint.';

create table live.item (
    shop text not null,
    item_id text not null,
    title text not null,
    description text not null default '',
    brand text,
    categories text[] not null default '{}',
    price numeric(12, 2),
    currency text,
    attributes jsonb not null default '{}',
    is_available boolean not null default true,
    upserted_at timestamptz not null default clock_timestamp(),
    landing_no bigint,
    primary key (shop, item_id)
);
comment on table live.item is 'Products that applications added or changed: written into the shown release at once, landed by the next run, removed by the release that has them.';
comment on column live.item.landing_no is 'The landing that took this version over; null before.';
comment on column live.item.is_available is 'False hides the product, in this release and in those to come, until it is available again.';

-- A key that an application chooses is its shop's own.
alter table live.event drop constraint event_pkey, add primary key (shop, event_id);
alter table serving.release add column landing_no bigint;
comment on column serving.release.landing_no is 'The last landing that the release holds: what is logged since is added to it at request time.';
alter table live.event add column request_id uuid, add column landing_no bigint;
comment on column live.event.landing_no is 'The landing that took the event over; null before.';
comment on column live.event.request_id is 'The list that the product was chosen from: live.impression.request_id.';
create index on live.event (shop, event_at);

create table live.opt_out (
    shop text not null,
    user_key text not null,
    since timestamptz not null default clock_timestamp(),
    primary key (shop, user_key)
);
comment on table live.opt_out is 'Shoppers who do not want personal lists.';

-- Not logged: a read must not wait for the disk. A crash costs the impressions since the last landing.
create unlogged table live.impression (
    shop text not null,
    request_id uuid not null,
    user_key text,
    surface text not null,
    variant text not null,
    release_id text not null,
    item_ids text[] not null,
    served_at timestamptz not null default clock_timestamp(),
    primary key (shop, request_id)
);
comment on table live.impression is 'Lists as they were served; position 1 is the first of item_ids.';

create table ops.tenant_role (
    role_name text primary key,
    shop text not null
);
comment on table ops.tenant_role is 'The shop that a login serves: row-level security and every function of the api go by it.';

create table ops.serving_setting (
    shop text primary key,
    impression_share real not null default 1 check (impression_share between 0 and 1)
);
comment on table ops.serving_setting is 'How a shop is served; a shop without a row has the defaults.';
comment on column ops.serving_setting.impression_share is 'Share of served lists that are logged.';

create schema if not exists internal;
create type internal.scored as (item_no integer, score double precision, reasons jsonb);
comment on type internal.scored is 'A product of a list, before it has its texts: internal.present makes a row of the api of it.';

create schema if not exists api;
create type api.list_row as (
    rank integer, item_id text, title text, description text, score double precision, interest_weight double precision,
    reasons jsonb, release_id text, fewer_because text, request_id uuid
);
comment on type api.list_row is
'A row of every list. reasons: contributions that sum to score. interest_weight: softmax of the scores over the list, so a list of one product has weight 1. fewer_because: why there are fewer than k rows, else null. request_id: the key to log clicks with.';
