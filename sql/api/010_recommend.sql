create or replace function api.recommend(
    user_id text,
    k integer default 10,
    filters jsonb default '{}',
    personalised boolean default true
)
returns table (
    rank integer, item_id text, title text, description text, score double precision,
    interest_weight double precision, reasons jsonb, release_id text, fewer_because text
)
language plpgsql stable security definer rows 10
set search_path to pg_catalog, pg_temp
as $$
-- Output columns share names with table columns: the tables win.
#variable_conflict use_column
declare
    v_release text := internal.current_release();
    v_user text := case when personalised then internal.user_key(user_id) end;
    v_pool integer;
begin
    perform internal.check_arguments(k, filters);
    -- A filter may leave out any of the popular products: then all are candidates.
    v_pool := case when filters = '{}' then k end;
    return query
    with terms as materialized (
        select t.item_id, t.term, t.val, t.contribution, t.because
        from internal.candidate_terms(v_release, v_user, v_pool) as t
    ),
    scored as (
        select t.item_id, sum(t.contribution) as score from terms as t group by t.item_id
    ),
    matching as (
        select i.item_id, i.title, i.description, s.score, count(*) over () as found
        from scored as s
        inner join serving.item as i on i.release_id = v_release and i.item_id = s.item_id
        where internal.matches(filters, i.brand, i.categories, i.price, i.lang)
        order by s.score desc, i.item_id
        limit k
    )
    select
        (row_number() over (order by m.score desc, m.item_id))::integer,
        m.item_id,
        m.title,
        m.description,
        m.score,
        exp(m.score) / sum(exp(m.score)) over (),
        (
            select jsonb_agg(jsonb_build_object(
                'term', t.term,
                'contribution', t.contribution,
                'because', coalesce((
                    select jsonb_agg(jsonb_build_object('item_id', b.item_id, 'title', b.title))
                    from serving.item as b
                    where b.release_id = v_release and b.item_id = any(t.because)
                ), '[]')
            ) order by t.contribution desc, t.term)
            from terms as t where t.item_id = m.item_id
        ),
        v_release,
        case when m.found < k then format('only %s products match and are new to the shopper', m.found) end
    from matching as m
    order by m.score desc, m.item_id;
end
$$;
comment on function api.recommend(text, integer, jsonb, boolean) is
'Products for a shopper, best first, from the last 20 products including events logged a moment ago. The contributions in `reasons` sum to `score`; `interest_weight` is the softmax of the scores over the list. A shopper who is null, unknown or not to be personalised gets what is popular. Filters: brand, category, lang, min_price, max_price. Fewer than k rows come only with `fewer_because`.
Example: select rank, title, reasons from api.recommend(''u1_…'', 5, ''{"lang": "zh"}'');';
