-- Search: lexical and vector candidates, scored exactly.

create or replace function internal.search_rows(
    of_shop text, of_release text, of_user text, query text, k integer, filters jsonb
)
returns setof api.list_row
language plpgsql stable rows 10
set search_path to pg_catalog, public, pg_temp
-- Products are looked up by their numbers, however many the planner takes them for.
set enable_seqscan to 'off'
set enable_hashjoin to 'off'
set enable_mergejoin to 'off'
as $$
#variable_conflict use_column
declare
    -- On judged queries, more than these find no better first k; a filter that most fail needs more words' proposals.
    v_near integer := 40 + 2 * k;
    v_proposals integer := case when filters = '{}' then 50 + 5 * k else 300 + 5 * k end;
    v_read record;
    v_within integer[];
    v_interest halfvec;
    v_semantic double precision := internal.weight(of_release, 'search_semantic', 1);
    v_personal double precision := internal.weight(of_release, 'search_personal', 0);
begin
    select r.* into v_read from internal.read_query(of_release, query, v_proposals) as r;
    if v_read.vector is null and coalesce(cardinality(v_read.matched), 0) = 0 then
        return query
        select p.*
        from internal.popular_rows(
            of_release, '{}', k, filters, 'no word of the query is known: these are popular'
        ) as p;
        return;
    end if;
    if filters <> '{}' then
        v_within := internal.matching(of_release, filters);
    end if;
    if of_user is not null and v_personal > 0 then
        select internal.interest(of_release, s.history) into v_interest
        from internal.shopper(of_shop, of_release, of_user) as s;
    end if;
    return query
    with near as (
        select n.item_no
        -- Little effort: what it misses, the words find.
        from internal.nearest(of_release, v_read.vector, '{}', v_near, filters, least(v_near, 100)) as n
        where v_within is null and v_read.vector is not null
    ),
    candidates as (
        select n.item_no from near as n
        union
        select l.item_no from unnest(v_read.item_nos) as l (item_no) where v_within is null
        union
        select w.item_no from unnest(v_within) as w (item_no)
    ),
    terms as (
        select
            i.item_no,
            coalesce(-(i.lexical <#> v_read.lexical), 0) as lexical,
            coalesce(-v_semantic * (i.text_vector <#> v_read.vector), 0) as semantic,
            coalesce(-v_personal * (i.text_vector <#> v_interest), 0) as personal
        from candidates as c
        inner join serving.item as i on i.release_id = of_release and i.item_no = c.item_no
        where i.is_available and (
            filters = '{}' or internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes)
        )
    ),
    best as (
        select t.* from terms as t order by t.lexical + t.semantic + t.personal desc, t.item_no limit k
    ),
    -- A score is what its reasons sum to; the lexical vector as a whole is rounded otherwise than its parts.
    told as (
        select
            b.item_no,
            f.lexical + b.semantic + b.personal as score,
            f.reasons
            || jsonb_build_object('term', 'semantic', 'contribution', b.semantic, 'known', v_read.vector is not null)
            || case
                when b.personal <> 0 then jsonb_build_array(jsonb_build_object('term', 'personal', 'contribution', b.personal))
                else '[]'
            end as reasons
        from best as b
        inner join serving.item as i on i.release_id = of_release and i.item_no = b.item_no
        cross join lateral (
            select
                coalesce(sum(u.val), 0) as lexical,
                coalesce(
                    jsonb_agg(jsonb_build_object('term', u.family, 'contribution', u.val) order by u.val desc, u.family)
                    filter (where u.val <> 0), '[]'
                ) as reasons
            from (
                select x.family, -(i.lexical <#> x.features) as val
                from unnest(v_read.families, v_read.family_features) as x (family, features)
            ) as u
        ) as f
    )
    select p.*
    from internal.present(
        of_release,
        array(select row(t.item_no, t.score, t.reasons)::internal.scored from told as t order by t.score desc, t.item_no),
        k, 'only %s products match', internal.weight(of_release, 'interest_temperature', 1)
    ) as p;
end
$$;
comment on function internal.search_rows(text, text, text, text, integer, jsonb) is
'Products for a query, as api.search returns them: candidates from the postings and from the vector index, or all that pass a rare filter; each scored exactly.';
