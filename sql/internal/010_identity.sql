-- Who asks, and which release answers.

create or replace function internal.hmac_sha256(key bytea, message bytea) returns bytea
language plpgsql immutable strict parallel safe
set search_path to pg_catalog, pg_temp
as $$
declare
    block bytea := case when length(key) > 64 then sha256(key) else key end;
    inner_pad bytea := decode(repeat('36', 64), 'hex');
    outer_pad bytea := decode(repeat('5c', 64), 'hex');
begin
    for i in 0 .. length(block) - 1 loop
        inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(block, i));
        outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(block, i));
    end loop;
    return sha256(outer_pad || sha256(inner_pad || message));
end
$$;
comment on function internal.hmac_sha256(bytea, bytea) is 'HMAC-SHA-256 (RFC 2104) out of the core function sha256().';

create or replace function internal.user_key(user_id text) returns text
language plpgsql stable
set search_path to pg_catalog, pg_temp
as $$
declare
    key text := current_setting('souk.pseudonym_key', true);
begin
    if user_id is null or user_id ~ '^u1_[0-9a-f]{32}$' then
        return user_id;
    end if;
    if coalesce(key, '') = '' then
        raise exception 'the session cannot turn user ids into pseudonyms'
            using errcode = 'invalid_parameter_value',
            hint = 'Pass a pseudonym (u1_…), or: set souk.pseudonym_key to the key that landing used.';
    end if;
    return 'u1_' || left(encode(
        internal.hmac_sha256(decode(key, 'hex'), convert_to(user_id, 'UTF8')), 'hex'
    ), 32);
end
$$;
comment on function internal.user_key(text) is
'Pseudonym of a shopper: a pseudonym is returned as it is, a raw id is keyed with the session''s souk.pseudonym_key.';

create or replace function internal.current_release() returns text
language sql stable
set search_path to pg_catalog, pg_temp
as $$
    select p.release_id from serving.pointer as p;
$$;
comment on function internal.current_release() is 'The published release; null before the first.';

create or replace function internal.history(of_release text, of_user text)
returns table (item_id text, age integer)
language sql stable rows 20
set search_path to pg_catalog, pg_temp
as $$
    -- Live events come first: they happened after the release was made.
    with taken as (
        select e.item_id, 0 as part, row_number() over (order by e.event_at desc, e.event_id) as place
        from live.event as e
        inner join serving.release as r on r.release_id = of_release and r.shop = e.shop
        where e.user_key = of_user and e.kind in ('view', 'click', 'cart', 'purchase')
        union all
        select h.item_id, 1, h.place
        from serving.user_profile as p
        cross join unnest(p.history) with ordinality as h (item_id, place)
        where p.release_id = of_release and p.user_key = of_user
    ),
    once as (
        select distinct on (t.item_id) t.item_id, t.part, t.place
        from taken as t
        order by t.item_id, t.part, t.place
    )
    select o.item_id, (row_number() over (order by o.part, o.place) - 1)::integer
    from once as o
    order by o.part, o.place
    limit 20;
$$;
comment on function internal.history(text, text) is
'A shopper''s last 20 products, each once, newest first (age 0): logged events, then the release''s.';

create or replace function internal.seen(of_release text, of_user text)
returns table (item_id text)
language sql stable rows 50
set search_path to pg_catalog, pg_temp
as $$
    select s.item_id from serving.seen as s where s.release_id = of_release and s.user_key = of_user
    union
    select e.item_id
    from live.event as e
    inner join serving.release as r on r.release_id = of_release and r.shop = e.shop
    where e.user_key = of_user;
$$;
comment on function internal.seen(text, text) is 'Every product that a shopper has dealt with, disliked ones included.';

create or replace function internal.matches(filters jsonb, brand text, categories text[], price numeric, lang text)
returns boolean
language sql immutable parallel safe
set search_path to pg_catalog, pg_temp
as $$
    select
        (not filters ? 'brand' or brand = filters ->> 'brand')
        and (not filters ? 'category' or categories @> array[filters ->> 'category'])
        and (not filters ? 'lang' or lang = filters ->> 'lang')
        and (not filters ? 'min_price' or price >= (filters ->> 'min_price')::numeric)
        and (not filters ? 'max_price' or price <= (filters ->> 'max_price')::numeric);
$$;
comment on function internal.matches(jsonb, text, text[], numeric, text) is
'Does a product pass the filters {brand, category, lang, min_price, max_price}; absent keys do not filter.';

create or replace function internal.check_arguments(k integer, filters jsonb) returns void
language plpgsql immutable
set search_path to pg_catalog, pg_temp
as $$
declare
    unknown text;
begin
    if k is null or k not between 1 and 1000 then
        raise exception 'k is %, but must lie between 1 and 1000', coalesce(k::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    select f into unknown from jsonb_object_keys(filters) as f
    where f not in ('brand', 'category', 'lang', 'min_price', 'max_price') limit 1;
    if unknown is not null then
        raise exception 'there is no filter %', unknown
            using errcode = 'invalid_parameter_value', hint = 'Filters: brand, category, lang, min_price, max_price.';
    end if;
end
$$;
comment on function internal.check_arguments(integer, jsonb) is 'Refuse a k or a filter that no list function understands.';
