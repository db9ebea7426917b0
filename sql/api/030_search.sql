create or replace function api.encode(query text) returns halfvec
language plpgsql stable security definer
set search_path to pg_catalog, public, pg_temp
set plan_cache_mode to 'force_generic_plan'
as $$
begin
    return (select internal.encode(s.release_id, query) from internal.shown() as s);
end
$$;
comment on function api.encode(text) is
'The vector of a query, computed here from the release''s lexicon, in the space of the products'' vectors; null if nothing of it is known: search is lexical then, and says so. Chinese and English.
Example: select api.encode(''无线 mouse'');';

create or replace function api.search(
    query text,
    k integer default 10,
    filters jsonb default '{}',
    user_id text default null,
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
        array(select r from internal.search_rows(v_shop, v_release, v_user, query, k, filters) as r),
        v_shop, v_release, v_user, 'search', variant, request_id
    );
end
$$;
comment on function api.search(text, integer, jsonb, text, uuid, text) is
'Products for a query in Chinese or English: words, character n-grams, pairs and numbers, plus the cosine of the query vector computed here, with weights fitted on held-out queries; typos are corrected. With a `user_id` the shopper''s interest counts, too, by the weight `search_personal` that training found; it is 0 where interest does not tell what shoppers choose. The contributions in `reasons` sum to `score`; `known` is false where no word has a vector and search is lexical only. A query of which nothing is known gets what is popular, and the reason says so.
Example: select rank, title, score from api.search(''cordless drill'', 5, ''{"max_price": 100}'');';

create or replace function api.interest_weights(query text, item_ids text[], temperature double precision default null)
returns table (item_id text, cosine double precision, interest_weight double precision)
language plpgsql stable security definer rows 10
set search_path to pg_catalog, public, pg_temp
set plan_cache_mode to 'force_generic_plan'
as $$
#variable_conflict use_column
declare
    v_release text;
    v_vector halfvec;
    v_tau double precision;
begin
    select s.release_id into v_release from internal.shown() as s;
    v_vector := internal.encode(v_release, query);
    v_tau := coalesce(temperature, internal.weight(v_release, 'interest_temperature', 0.1));
    if v_tau not between 1e-6 and 1e6 then
        raise exception 'temperature is %, but must lie between 0.000001 and 1,000,000', v_tau using errcode = 'invalid_parameter_value';
    end if;
    return query
    select c.item_id, c.cosine, exp(greatest((c.cosine - c.highest) / v_tau, -500)) / sum(exp(greatest((c.cosine - c.highest) / v_tau, -500))) over ()
    from (
        select i.item_id, n.cosine, max(n.cosine) over () as highest
        from (select distinct u.item_id from unnest(item_ids) as u (item_id)) as w
        inner join serving.item as i on i.release_id = v_release and i.item_id = w.item_id
        -- A query of which nothing is known is equally interested in everything.
        cross join lateral (select coalesce(-(i.text_vector <#> v_vector), 0) as cosine) as n
    ) as c
    order by c.cosine desc, c.item_id;
end
$$;
comment on function api.interest_weights(text, text[], double precision) is
'Interest weight w = softmax(q · d / τ) of a query over a set of candidate products: the weights sum to 1. It is a share of the set that is given, so the weight of a single product is always 1. τ is the release''s, fitted on held-out texts, unless `temperature` is given. Unknown products are left out.
Example: select * from api.interest_weights(''绿茶'', array[''1'', ''2'', ''3'']);';
