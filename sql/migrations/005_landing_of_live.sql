-- What applications logged lands, too: which list a product was chosen from, and the lists as they were served.

alter table raw.event add column request_id uuid;
comment on column raw.event.request_id is 'The list that the product was chosen from: raw.impression.request_id; null where the source does not tell.';

create table raw.impression (
    shop text not null,
    request_id uuid not null,
    user_key text,
    surface text not null,
    variant text not null,
    release_id text not null,
    item_ids text[] not null,
    served_at timestamptz not null,
    landing_no bigint not null references raw.landing,
    primary key (shop, request_id)
);
comment on table raw.impression is 'One row per list that was served and logged.';
comment on column raw.impression.surface is 'The function of the api that made the list.';
comment on column raw.impression.item_ids is 'The products in the order of the list; position 1 is the first.';
create index on raw.impression (landing_no);
