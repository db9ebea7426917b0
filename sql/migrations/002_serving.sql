-- What is served. Every table is split by release; the pointer says which release readers see.

create schema serving;
comment on schema serving is 'Releases: filled, indexed and audited while hidden, then shown by moving one pointer.';
create schema live;
comment on schema live is 'What applications log between two releases.';

create table serving.release (
    release_id text primary key,
    shop text not null,
    interval_end timestamptz,
    state text not null check (state in ('candidate', 'audited', 'published', 'retired')),
    content_hash text not null,
    row_counts jsonb not null default '{}',
    metrics jsonb not null default '{}',
    encoder text not null,
    is_generated boolean not null,
    has_clock boolean not null,
    created_at timestamptz not null default now(),
    published_at timestamptz
);
comment on table serving.release is 'The ledger of releases: one row each, kept after the data is dropped.';

create table serving.pointer (
    is_only boolean primary key default true check (is_only),
    release_id text not null references serving.release,
    moved_at timestamptz not null default now()
);
comment on table serving.pointer is 'One row: the release that every reader sees.';

create table serving.publication (
    publication_no bigint generated always as identity primary key,
    release_id text not null references serving.release,
    outcome text not null check (outcome in ('published', 'unchanged', 'refused', 'rolled_back')),
    note text not null default '',
    decided_at timestamptz not null default now()
);
comment on table serving.publication is 'Every attempt to publish, with its outcome: unchanged means that identical content was already served.';

create table serving.item (
    release_id text not null,
    item_id text not null,
    title text not null,
    description text not null,
    brand text,
    categories text[] not null,
    price numeric(12, 2),
    lang text not null,
    key_terms text[] not null,
    popularity real not null check (popularity between 0 and 1),
    text_vector halfvec(384) not null,
    primary key (release_id, item_id)
) partition by list (release_id);
comment on table serving.item is 'One row per product of a release. text_vector: unit length, centred on the catalogue.';
comment on column serving.item.popularity is 'log(1 + events) over the largest such value of the release.';

create table serving.edge (
    release_id text not null,
    kind text not null check (kind in ('transition', 'tfidf', 'encoder')),
    src text not null,
    dst text not null,
    val real not null check (val > 0),
    primary key (release_id, src, kind, dst)
) partition by list (release_id);
comment on table serving.edge is 'Directed item graph: at most 50 neighbours of an item for each kind.';

create table serving.weight (
    release_id text not null,
    term text not null,
    min_history integer not null,
    val double precision not null,
    primary key (release_id, term, min_history)
) partition by list (release_id);
comment on table serving.weight is 'Weight of each term of the score, from a history length upwards; those of search apply to any (min_history 0).';

create table serving.token_vector (
    release_id text not null,
    token text not null,
    vec halfvec(384) not null,
    primary key (release_id, token)
) partition by list (release_id);
comment on table serving.token_vector is 'Query encoder: the sum of the vectors of a query''s tokens, normalised, lies in the space of serving.item.text_vector. A token that starts with # is a character n-gram.';

create table serving.posting (
    release_id text not null,
    term text not null,
    item_id text not null,
    weight real not null,
    primary key (release_id, term, item_id)
) partition by list (release_id);
comment on table serving.posting is 'Inverted index with the BM25 weight of a term in a product.';

create table serving.user_profile (
    release_id text not null,
    user_key text not null,
    history text[] not null,
    history_length integer not null,
    profile jsonb not null,
    primary key (release_id, user_key)
) partition by list (release_id);
comment on table serving.user_profile is 'One row per known shopper. history: up to 20 products, newest first, each once; what came later is in live.event.';

create table serving.seen (
    release_id text not null,
    user_key text not null,
    item_id text not null,
    primary key (release_id, user_key, item_id)
) partition by list (release_id);
comment on table serving.seen is 'Every product that a shopper has already dealt with: never recommended again.';

create table live.event (
    event_id text primary key,
    shop text not null,
    user_key text not null,
    item_id text not null,
    kind text not null check (kind in ('view', 'click', 'cart', 'purchase', 'dislike', 'return')),
    event_at timestamptz not null,
    logged_at timestamptz not null default clock_timestamp(),
    session_id text
);
comment on table live.event is 'Events logged by applications; the next landing takes them over.';
create index on live.event (shop, user_key, event_at desc);
