create or replace function api.recommend(
    user_id text,
    k integer default 10,
    filters jsonb default '{}',
    diversity double precision default 0.1,
    personalised boolean default true,
    exploration double precision default 0.1,
    max_per_category integer default null,
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
    perform internal.check_share('diversity', diversity), internal.check_share('exploration', exploration);
    if max_per_category < 1 then
        raise exception 'max_per_category is %, but must be 1 or more', max_per_category
            using errcode = 'invalid_parameter_value';
    end if;
    select s.shop, s.release_id into v_shop, v_release from internal.shown() as s;
    v_user := internal.listener(v_shop, user_id, personalised);
    return query
    select * from internal.serve(
        array(
            select r
            from internal.shopper(v_shop, v_release, v_user) as s
            cross join lateral internal.recommend_rows(
                v_release, v_user, s.history, s.seen, s.disliked, k, filters, diversity, exploration, max_per_category
            ) as r
        ),
        v_shop, v_release, v_user, 'recommend', variant, request_id
    );
end
$$;
comment on function api.recommend(
    text, integer, jsonb, double precision, boolean, double precision, integer, uuid, text
) is
'Products for a shopper, best first, from the last 20 products including events logged a moment ago. What was disliked or returned pushes its like away; what the shopper has had is not shown again, unless its category repeats. The contributions in `reasons` sum to `score`.
A shopper who is null, unknown, opted out or not to be `personalised` gets what is popular.
diversity: 0 orders by relevance alone, 1 weighs difference as much (maximal marginal relevance). exploration: share of the list that goes to products without events, if there are any. max_per_category: rows of one leaf category at most. filters: brand, category, lang, min_price, max_price, attributes.
Exactly k rows, or `fewer_because` says why not.
Example: select rank, title, reasons from api.recommend(''u1_…'', 5, ''{"lang": "zh", "max_price": 100}'');';
