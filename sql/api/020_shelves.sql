create or replace function api.similar(
    to_item text,
    k integer default 10,
    filters jsonb default '{}',
    request_id uuid default null,
    variant text default 'default'
)
returns setof api.list_row
language plpgsql volatile security definer rows 10
set search_path to pg_catalog, pg_temp
set plan_cache_mode to 'force_generic_plan'
as $$
declare
    v_shop text;
    v_release text;
begin
    perform internal.check_list(k, filters);
    select s.shop, s.release_id into v_shop, v_release from internal.shown() as s;
    return query
    select * from internal.serve(
        array(select r from internal.similar_rows(v_release, to_item, k, filters) as r),
        v_shop, v_release, null, 'similar', variant, request_id
    );
end
$$;
comment on function api.similar(text, integer, jsonb, uuid, text) is
'Products whose texts mean nearly the same, by cosine. `reasons` names the terms that both share. An unknown product raises no_data_found.
Example: select rank, title, score from api.similar(''42'', 5);';

create or replace function api.also_bought(
    with_item text,
    k integer default 10,
    filters jsonb default '{}',
    request_id uuid default null,
    variant text default 'default'
)
returns setof api.list_row
language plpgsql volatile security definer rows 10
set search_path to pg_catalog, pg_temp
set plan_cache_mode to 'force_generic_plan'
as $$
declare
    v_shop text;
    v_release text;
begin
    perform internal.check_list(k, filters);
    select s.shop, s.release_id into v_shop, v_release from internal.shown() as s;
    return query
    select * from internal.serve(
        array(select r from internal.also_bought_rows(v_release, with_item, k, filters) as r),
        v_shop, v_release, null, 'also_bought', variant, request_id
    );
end
$$;
comment on function api.also_bought(text, integer, jsonb, uuid, text) is
'Products that the same shoppers bought (took, where the source knows no purchases), by the cosine of the two sets of shoppers (reason `together`); filled up with products of nearly the same meaning (reason `text`).
Example: select rank, title, reasons from api.also_bought(''42'', 5);';

create or replace function api.trending(
    k integer default 10,
    period interval default '7 days',
    category text default null,
    filters jsonb default '{}',
    request_id uuid default null,
    variant text default 'default'
)
returns setof api.list_row
language plpgsql volatile security definer rows 10
set search_path to pg_catalog, pg_temp
set plan_cache_mode to 'force_generic_plan'
as $$
declare
    v_shop text;
    v_release text;
    v_filters jsonb;
begin
    perform internal.check_list(k, filters);
    if period is null or period <= interval '0' or period > interval '28 days' then
        raise exception 'period is %, but must be longer than 0 and at most 28 days', coalesce(period::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    v_filters := filters || case when category is null then '{}' else jsonb_build_object('category', category) end;
    select s.shop, s.release_id into v_shop, v_release from internal.shown() as s;
    return query
    select * from internal.serve(
        array(select r from internal.trending_rows(v_shop, v_release, k, period, v_filters) as r),
        v_shop, v_release, null, 'trending', variant, request_id
    );
end
$$;
comment on function api.trending(integer, interval, text, jsonb, uuid, text) is
'Products with more events in the last `period` than usual: the standard score (recent - usual) / √(usual + 1), `usual` being the share of the last 28 days. Time is the data''s: it ends with the last event; of a day (UTC) that is partly within, the same part of its events counts. Below them, and where the source has no clock, what is popular.
Example: select rank, title, reasons from api.trending(5, ''2 days'', ''Tents'');';

create or replace function api.recommend_by_description(
    user_id text,
    k integer default 10,
    filters jsonb default '{}',
    request_id uuid default null,
    variant text default 'default'
)
returns setof api.list_row
language plpgsql volatile security definer rows 10
set search_path to pg_catalog, pg_temp
set plan_cache_mode to 'force_generic_plan'
as $$
declare
    v_shop text;
    v_release text;
    v_user text;
begin
    perform internal.check_list(k, filters);
    select s.shop, s.release_id into v_shop, v_release from internal.shown() as s;
    v_user := internal.listener(v_shop, user_id, true);
    return query
    select * from internal.serve(
        array(select r from internal.described_rows(v_shop, v_release, v_user, k, filters) as r),
        v_shop, v_release, v_user, 'recommend_by_description', variant, request_id
    );
end
$$;
comment on function api.recommend_by_description(text, integer, jsonb, uuid, text) is
'Products whose texts agree with what the shopper''s own reviews praise (`praised`) and differ from what they complain of (`complained`). Without reviews: what is popular, and the reason says so.
Example: select rank, title, reasons from api.recommend_by_description(''u1_…'', 5);';
