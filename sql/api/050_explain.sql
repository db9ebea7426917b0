create or replace function api.explain(user_id text, for_item text)
returns table (
    item_id text, title text, rank integer, score double precision, reasons jsonb, counterfactuals jsonb,
    note text, release_id text
)
language plpgsql stable security definer rows 1
set search_path to pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_shop text;
    v_release text;
    v_history integer[];
    v_seen integer[];
    v_disliked integer[];
    v_number integer;
    v_standing record;
begin
    select s.shop, s.release_id into v_shop, v_release from internal.shown() as s;
    v_number := internal.item_number(v_release, for_item);
    select s.history, s.seen, s.disliked into v_history, v_seen, v_disliked
    from internal.shopper(v_shop, v_release, internal.listener(v_shop, user_id, true)) as s;
    select s.* into v_standing from internal.standing(v_release, v_history, v_seen, v_disliked, v_number) as s;
    return query
    with spoken as materialized (
        select b.kind, i.item_no as src, p.nth, i.item_id, i.title
        from internal.causes(v_release, v_history, array[v_number]) as b
        cross join lateral unnest(b.places) with ordinality as p (place, nth)
        inner join serving.item as i on i.release_id = v_release and i.item_no = v_history[p.place]
    ),
    without as (
        select s.item_id, s.title, n.rank, n.score
        from (select distinct on (x.src) x.src, x.item_id, x.title from spoken as x order by x.src) as s
        cross join lateral internal.standing(
            v_release, array_remove(v_history, s.src), v_seen, v_disliked, v_number
        ) as n
    )
    select
        i.item_id,
        i.title,
        v_standing.rank,
        v_standing.score,
        (
            select jsonb_agg(jsonb_build_object(
                'term', t.term,
                'contribution', t.val,
                'because', coalesce((
                    select jsonb_agg(jsonb_build_object('item_id', s.item_id, 'title', s.title) order by s.nth)
                    from spoken as s where s.kind = t.term
                ), '[]')
            ) order by abs(t.val) desc, t.place)
            from unnest(internal.terms(), v_standing.contributions) with ordinality as t (term, val, place)
            where t.val is not null
        ),
        coalesce((
            select jsonb_agg(jsonb_build_object(
                'without', w.item_id, 'title', w.title, 'rank', w.rank, 'score', w.score,
                'text', format(
                    'without %s: rank %s → %s', w.title,
                    coalesce(v_standing.rank::text, 'beyond 1000'), coalesce(w.rank::text, 'beyond 1000')
                )
            ) order by w.score, w.item_id)
            from without as w
        ), '[]'),
        case
            when v_number = any(v_seen) then 'the shopper has it or dislikes it: it is not recommended'
            when not i.is_available then 'it is not available: it is not recommended'
            when v_history = '{}' then 'nothing is known of the shopper: the score is the popularity'
        end,
        v_release
    from serving.item as i
    where i.release_id = v_release and i.item_no = v_number;
end
$$;
comment on function api.explain(text, text) is
'Why a product stands where it stands for a shopper: its rank by relevance (null beyond the first 1,000), the contributions that sum to its score, the products of the history behind them, and counterfactuals: rank and score if the shopper had not taken one of these. Diversity and exploration belong to a list and are not part of it.
Example: select rank, reasons, counterfactuals from api.explain(''u1_…'', ''42'');';

create or replace function api.profile(user_id text) returns jsonb
language plpgsql stable security definer
set search_path to pg_catalog, pg_temp
as $$
declare
    v_shop text;
    v_release text;
    v_user text := internal.user_key(user_id);
    v_history integer[];
    v_seen integer[];
    v_disliked integer[];
begin
    select s.shop, s.release_id into v_shop, v_release from internal.shown() as s;
    if v_user is null then
        raise exception 'a profile is of a user' using errcode = 'null_value_not_allowed';
    end if;
    select s.history, s.seen, s.disliked into v_history, v_seen, v_disliked
    from internal.shopper(v_shop, v_release, v_user) as s;
    return jsonb_build_object(
        'user_key', v_user,
        'release_id', v_release,
        'is_known', v_history <> '{}' or v_seen <> '{}',
        'is_personalised', not exists (select from live.opt_out as o where o.shop = v_shop and o.user_key = v_user),
        'history', internal.titles(v_release, v_history),
        'disliked', internal.titles(v_release, v_disliked),
        'seen', cardinality(array(select distinct s.item_no from unnest(v_seen) as s (item_no))),
        'next_categories', coalesce((
            select jsonb_object_agg(c.category, c.probability)
            from internal.categories(v_release, 'user', internal.interest(v_release, v_history), 3) as c
        ), '{}'),
        'marts', coalesce((
            select p.profile from serving.user_profile as p where p.release_id = v_release and p.user_key = v_user
        ), '{}')
    );
end
$$;
comment on function api.profile(text) is
'What souk believes about a shopper, as JSON: the last products (events logged a moment ago included), what was disliked, the likeliest next categories, whether lists may be personal, and what the marts know (`marts`).
Example: select jsonb_pretty(api.profile(''u1_…''));';

create or replace function api.recommend_category(
    user_id text default null, query text default null, k integer default 5
)
returns table (rank integer, category text, probability double precision, basis text, release_id text)
language plpgsql stable security definer rows 5
set search_path to pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    v_shop text;
    v_release text;
    v_history integer[];
    v_vector halfvec;
begin
    perform internal.check_list(k, '{}');
    select s.shop, s.release_id into v_shop, v_release from internal.shown() as s;
    if recommend_category.query is not null then
        v_vector := internal.encode(v_release, recommend_category.query);
    else
        select s.history into v_history
        from internal.shopper(v_shop, v_release, internal.listener(v_shop, recommend_category.user_id, true)) as s;
        v_vector := internal.interest(v_release, v_history);
    end if;
    return query
    select
        c.rank, c.category, c.probability,
        case when v_vector is null then 'prior' when recommend_category.query is null then 'history' else 'query' end,
        v_release
    from internal.categories(
        v_release, case when recommend_category.query is null then 'user' else 'query' end, v_vector, k
    ) as c
    order by c.rank;
end
$$;
comment on function api.recommend_category(text, text, integer) is
'Probability of each category for a query, or else for what a shopper takes next: softmax of a linear model on the vector of the query or of the shopper''s history. `basis` says what it rests on: query, history, or prior where neither is known.
Example: select * from api.recommend_category(query => ''帐篷'');';
