-- The one place that reads the vector indexes.

create or replace function internal.nearest(
    of_release text, to_vector halfvec, without integer[], k integer, filters jsonb, effort integer default 200
)
returns table (item_no integer, score double precision)
language plpgsql stable rows 10
set search_path to pg_catalog, public, pg_temp
set "hnsw.iterative_scan" to 'relaxed_order'
set "hnsw.ef_search" to '200' -- put back at the end, whatever `effort` makes of it
-- The planner cannot know how many products pass a filter; but those that reach the index are many.
set enable_seqscan to 'off'
set enable_sort to 'off'
as $$
#variable_conflict use_column
declare
    v_within integer[];
    v_items integer[];
    v_scores double precision[];
    v_found integer;
begin
    perform set_config('hnsw.ef_search', effort::text, true);
    if filters = '{}' then
        return query
        select n.item_no, n.score
        from (
            select i.item_no, -(i.text_vector <#> to_vector) as score
            from serving.item as i
            where i.release_id = of_release and i.is_available and i.item_no <> all(without)
            order by i.text_vector <=> to_vector
            limit k
        ) as n
        order by n.score desc, n.item_no;
        get diagnostics v_found = row_count;
        if v_found < k then
            -- Fewer than k can be had; or the index has none for products whose texts say nothing.
            return query
            select i.item_no, -(i.text_vector <#> to_vector)
            from serving.item as i
            where i.release_id = of_release and i.is_available and i.item_no <> all(without)
                and l2_norm(i.text_vector) = 0
            order by i.item_no
            limit k - v_found;
        end if;
        return;
    end if;
    -- Up to so many all are compared in the time that the index takes to find far ones with certainty.
    v_within := internal.matching(of_release, filters, 6000);
    if v_within is null then
        select array_agg(n.item_no), array_agg(n.score) into v_items, v_scores
        from (
            select i.item_no, -(i.text_vector <#> to_vector) as score
            from serving.item as i
            where i.release_id = of_release and i.is_available and i.item_no <> all(without)
                and internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes)
            order by i.text_vector <=> to_vector
            -- The first that pass are not the nearest, where those that pass lie far from the vector.
            limit greatest(k, 30)
        ) as n;
        if cardinality(v_items) >= k then
            return query
            select u.item_no, u.score from unnest(v_items, v_scores) as u (item_no, score)
            order by u.score desc, u.item_no
            limit k;
            return;
        end if;
        -- Many pass, but all of them far away: the index scan gave up before it met k of them.
        v_within := internal.matching(of_release, filters, null);
    end if;
    return query
    select i.item_no, -(i.text_vector <#> to_vector)
    from unnest(v_within) as w (item_no)
    inner join serving.item as i on i.release_id = of_release and i.item_no = w.item_no
    where i.item_no <> all(without)
    order by i.text_vector <#> to_vector, i.item_no
    limit k;
end
$$;
comment on function internal.nearest(text, halfvec, integer[], integer, jsonb, integer) is
'The k products nearest to a vector by cosine, but for those in `without`: exact where few pass the filters, else from the HNSW index, which goes on until k are found. effort is hnsw.ef_search: 200 finds 99 of 100.';

create or replace function internal.likely(
    of_release text, taste halfvec, without integer[], k integer, filters jsonb
)
returns table (item_no integer, logit double precision)
language plpgsql stable rows 200
set search_path to pg_catalog, public, pg_temp
set "hnsw.iterative_scan" to 'relaxed_order'
set "hnsw.ef_search" to '100' -- some of the nearest are known to the shopper
set enable_seqscan to 'off'
set enable_sort to 'off'
as $$
#variable_conflict use_column
begin
    if filters = '{}' then
        return query
        select i.item_no, -(i.sequence_output <#> taste)
        from serving.item as i
        where i.release_id = of_release and i.is_available and i.item_no <> all(without)
        order by i.sequence_output <#> taste
        limit k;
    else
        return query
        select i.item_no, -(i.sequence_output <#> taste)
        from serving.item as i
        where i.release_id = of_release and i.is_available and i.item_no <> all(without)
            and internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes)
        order by i.sequence_output <#> taste
        limit k;
    end if;
end
$$;
comment on function internal.likely(text, halfvec, integer[], integer, jsonb) is
'About the k products that a shopper of this taste (internal.taste) takes next most likely, but for those in `without`, with their logits; fewer where an index scan does not meet as many that pass the filters.';
