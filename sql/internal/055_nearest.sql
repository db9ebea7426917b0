-- The one place that reads the vector indexes.

create or replace function internal.nearest(
    of_release text, to_vector halfvec, without integer[], k integer, filters jsonb, effort integer default null
)
returns table (item_no integer, score double precision)
language plpgsql stable rows 10
set search_path to pg_catalog, public, pg_temp
set "hnsw.iterative_scan" to 'relaxed_order'
set "hnsw.max_scan_tuples" to '100000'
set "hnsw.ef_search" to '200' -- put back at the end, whatever `effort` makes of it
-- The planner cannot know how many products pass a filter; but those that reach the index are many.
set enable_seqscan to 'off'
set enable_sort to 'off'
as $$
#variable_conflict use_column
declare
    -- The first that the index meets are not quite the nearest.
    v_wanted integer := greatest(k, 30);
    v_size double precision;
    v_few double precision;
    v_apart integer;
    v_items integer[];
    v_scores double precision[];
    v_first integer;
    v_within integer[];
    v_found integer;
begin
    effort := coalesce(
        effort,
        (select (r.metrics ->> 'index_effort')::integer from serving.release as r where r.release_id = of_release),
        200
    );
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
    -- Where m of n pass, the index looks at wanted · n / m products, each at the cost of comparing about twelve at once.
    v_size := (select max(i.item_no) + 1 from serving.item as i where i.release_id = of_release);
    v_few := sqrt(12 * v_wanted * v_size);
    v_within := internal.matching(of_release, filters, v_few::integer);
    if v_within is null then
        -- If those that pass lay anywhere, the index would in 98 of 100 cases meet one among so many.
        v_apart := ceil(4 * v_size / v_few);
        select array_agg(n.item_no), array_agg(n.score), min(n.place) into v_items, v_scores, v_first
        from (
            select p.item_no, p.score, p.place
            from (
                select l.item_no, l.score, l.passes, row_number() over () as place
                from (
                    select
                        i.item_no, -(i.text_vector <#> to_vector) as score,
                        internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes) as passes
                    from serving.item as i
                    where i.release_id = of_release and i.is_available and i.item_no <> all(without)
                    order by i.text_vector <=> to_vector
                    limit v_wanted * v_apart
                ) as l
            ) as p
            where p.passes
            limit v_wanted
        ) as n;
        if cardinality(v_items) = v_wanted and v_first <= v_apart then
            v_within := '{}';
        else
            -- They lie far away: all are compared, unless k of them are found and they are too many.
            v_within := internal.matching(
                of_release, filters, case when cardinality(v_items) >= k then (3 * v_few)::integer end
            );
        end if;
    end if;
    if cardinality(v_within) > 0 then
        return query
        select i.item_no, -(i.text_vector <#> to_vector)
        from unnest(v_within) as w (item_no)
        inner join serving.item as i on i.release_id = of_release and i.item_no = w.item_no
        where i.item_no <> all(without)
        order by i.text_vector <#> to_vector, i.item_no
        limit k;
    else
        return query
        select u.item_no, u.score from unnest(v_items, v_scores) as u (item_no, score)
        order by u.score desc, u.item_no
        limit k;
    end if;
end
$$;
comment on function internal.nearest(text, halfvec, integer[], integer, jsonb, integer) is
'The k products nearest to a vector by cosine, but for those in `without`: exact where few pass the filters, or where they lie far from it, else from the HNSW index, which goes on until k are found. effort is hnsw.ef_search: that of the release if null.';

create or replace function internal.likely(
    of_release text, taste halfvec, without integer[], k integer, filters jsonb, effort integer default null
)
returns table (item_no integer, logit double precision)
language plpgsql stable rows 200
set search_path to pg_catalog, public, pg_temp
set "hnsw.iterative_scan" to 'relaxed_order'
set "hnsw.ef_search" to '100' -- put back at the end, whatever `effort` makes of it
set enable_seqscan to 'off'
set enable_sort to 'off'
as $$
#variable_conflict use_column
begin
    effort := coalesce(
        effort,
        (select (r.metrics ->> 'sequence_effort')::integer from serving.release as r where r.release_id = of_release),
        100
    );
    perform set_config('hnsw.ef_search', effort::text, true);
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
comment on function internal.likely(text, halfvec, integer[], integer, jsonb, integer) is
'About the k products that a shopper of this taste (internal.taste) takes next most likely, but for those in `without`, with their logits; fewer where an index scan does not meet as many that pass the filters. effort is hnsw.ef_search: that of the release if null.';
