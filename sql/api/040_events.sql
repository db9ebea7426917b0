create or replace function api.log_event(
    user_id text,
    item_id text,
    kind text,
    event_id text default uuidv7()::text,
    event_at timestamptz default clock_timestamp(),
    session_id text default null,
    request_id uuid default null
)
returns text
language plpgsql volatile security definer
set search_path to pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_shop text;
    v_release text;
    v_user text;
    v_payload jsonb;
    v_reason text;
begin
    select s.shop, s.release_id into v_shop, v_release from internal.shown() as s;
    v_user := internal.user_key(user_id);
    item_id := internal.stripped(item_id);
    event_id := internal.stripped(event_id);
    session_id := nullif(internal.stripped(session_id), '');
    v_reason := case
        when v_user is null then 'missing_user_id'
        when coalesce(item_id, '') = '' then 'missing_item_id'
        when coalesce(event_id, '') = '' then 'missing_event_id'
        when length(event_id) > 200 then 'bad_event_id'
        when coalesce(kind, '') not in ('view', 'click', 'cart', 'purchase', 'dislike', 'return') then 'unknown_kind'
        when event_at is null then 'missing_event_at'
        when event_at < '1970-01-01' then 'bad_event_at'
        when event_at > clock_timestamp() + interval '5 minutes' then 'future_timestamp'
        when not exists (
            select from serving.item as i where i.release_id = v_release and i.item_id = log_event.item_id
        ) then 'unknown_item'
    end;
    if v_reason is not null then
        v_payload := jsonb_build_object(
            'event_id', left(event_id, 200), 'item_id', left(item_id, 200), 'kind', left(kind, 200), 'event_at', event_at
        );
        insert into ops.quarantine (shop, entity, reason, row_hash, row_key, payload, landing_no)
        values (v_shop, 'event', v_reason, md5(v_payload::text), left(event_id, 200), v_payload, 0)
        on conflict do nothing;
        return v_reason;
    end if;
    if exists (select from raw.event as e where e.shop = v_shop and e.event_id = log_event.event_id) then
        return 'duplicate';
    end if;
    insert into live.event (event_id, shop, user_key, item_id, kind, event_at, session_id, request_id)
    values (event_id, v_shop, v_user, item_id, kind, event_at, left(session_id, 200), request_id)
    on conflict do nothing;
    return case when found then 'recorded' else 'duplicate' end;
end
$$;
comment on function api.log_event(text, text, text, text, timestamptz, text, uuid) is
'Record what a shopper did: view, click, cart, purchase, dislike or return. The next statement sees it. request_id: of the list that the product was chosen from.
Returns recorded; duplicate (the event_id is known, nothing changes); or, as landing does with a bad row, the reason for which the event went to quarantine: unknown_item, unknown_kind, future_timestamp, missing_… . An event may be late.
Example: select api.log_event(''u1_…'', ''42'', ''click'', request_id => ''…'');';

create or replace function api.set_personalisation(user_id text, allowed boolean) returns void
language plpgsql volatile security definer
set search_path to pg_catalog, pg_temp
as $$
declare
    v_shop text;
    v_user text := internal.user_key(user_id);
begin
    select s.shop into v_shop from internal.shown() as s;
    if v_user is null or allowed is null then
        raise exception 'who may be shown personal lists, and may they?' using errcode = 'null_value_not_allowed',
            hint = 'Example: select api.set_personalisation(''u1_…'', false);';
    elsif allowed then
        delete from live.opt_out as o where o.shop = v_shop and o.user_key = v_user;
    else
        insert into live.opt_out (shop, user_key) values (v_shop, v_user) on conflict do nothing;
    end if;
end
$$;
comment on function api.set_personalisation(text, boolean) is
'Opt a shopper out of personal lists (false), or in again (true). Every function honours it from the next statement on.
Example: select api.set_personalisation(''u1_…'', false);';

create or replace function api.upsert_product(
    item_id text,
    title text,
    description text default '',
    brand text default null,
    categories text[] default '{}',
    price numeric default null,
    currency text default null,
    attributes jsonb default '{}',
    is_available boolean default true
)
returns text
language plpgsql volatile security definer
set search_path to pg_catalog, pg_temp
-- Vectors pass through text: a session that rounds must not store rounded ones.
set extra_float_digits to '1'
as $$
#variable_conflict use_variable
declare
    v_shop text;
    v_release text;
    v_categories text[];
begin
    item_id := internal.stripped(item_id);
    title := internal.stripped(title);
    description := internal.stripped(description);
    brand := internal.stripped(brand);
    v_categories := array(
        select internal.stripped(c.name) from unnest(categories) as c (name) where internal.stripped(c.name) <> ''
    );
    if coalesce(item_id, '') = '' or length(item_id) > 200 or coalesce(title, '') = '' then
        raise exception 'a product needs an item_id of at most 200 characters and a title'
            using errcode = 'invalid_parameter_value';
    elsif length(title) > 2000 or length(description) > 1000000 then
        raise exception 'product % has a title of more than 2,000 characters, or a description of more than a million', item_id
            using errcode = 'string_data_right_truncation';
    elsif length(brand) > 200 or cardinality(v_categories) > 32 or exists (
        select from unnest(v_categories) as c (name) where length(c.name) > 200
    ) then
        raise exception 'product % has a brand or a category of more than 200 characters, or more than 32 categories', item_id
            using errcode = 'string_data_right_truncation';
    elsif price < 0 or price >= 1e10 or price = 'NaN' then
        raise exception 'price % of product % is not between 0 and 10,000,000,000', price, item_id
            using errcode = 'numeric_value_out_of_range';
    elsif jsonb_typeof(attributes) <> 'object' then
        raise exception 'attributes of product % must be a JSON object, not %', item_id, jsonb_typeof(attributes)
            using errcode = 'invalid_parameter_value';
    end if;
    -- A publication under way has carried over what it knows of: what comes now belongs to the release that it shows.
    v_shop := (select s.shop from internal.shown() as s);
    select p.release_id into v_release from serving.pointer as p where p.shop = v_shop for share;
    -- Before the row of the product: a transaction of several waits here, not for a row that another holds.
    perform pg_advisory_xact_lock(hashtext('souk.put_item'), hashtext(v_release));
    insert into live.item as l (
        shop, item_id, title, description, brand, categories, price, currency, attributes, is_available
    )
    values (
        v_shop, item_id, title, coalesce(description, ''), nullif(brand, ''), v_categories,
        price, currency, coalesce(attributes, '{}'), coalesce(is_available, true)
    )
    on conflict on constraint item_pkey do update set
        title = excluded.title, description = excluded.description, brand = excluded.brand,
        categories = excluded.categories, price = excluded.price, currency = excluded.currency,
        attributes = excluded.attributes, is_available = excluded.is_available,
        upserted_at = clock_timestamp(), landing_no = null;
    perform internal.put_item(v_shop, v_release, item_id);
    return item_id;
end
$$;
comment on function api.upsert_product(text, text, text, text, text[], numeric, text, jsonb, boolean) is
'Add a product, or change one as a whole. The next statement finds and recommends it, by a vector computed here from its words; the next release replaces that by the encoder''s. is_available => false hides a product that is out of stock until it is available again.
Example: select api.upsert_product(''77'', ''Alpine tent for two'', ''Waterproof, 2 kg'', ''Alpine'', array[''Outdoor'', ''Tents''], 129.90);';
