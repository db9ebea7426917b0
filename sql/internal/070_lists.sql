-- From scored candidates to a list: diversity, shares, impressions.

create or replace function internal.diversify(
    items integer[], scores double precision[], vectors halfvec[], k integer, diversity double precision
)
returns table (item_no integer, place integer, penalty double precision)
language plpgsql immutable rows 10
set search_path to pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    -- Similarity is made up to this many places; what follows keeps the penalty it has by then.
    v_steps integer := least(k, cardinality(items), 50);
    v_scale double precision := diversity * greatest(abs(scores[1]), 1e-9);
    v_near double precision[] := array_fill(0::double precision, array[cardinality(items)]);
    v_open boolean[] := array_fill(true, array[cardinality(items)]);
    v_best integer := 1;
begin
    if diversity = 0 then
        return query select u.item_no, u.place::integer, 0::double precision
        from unnest(items) with ordinality as u (item_no, place) where u.place <= k;
        return;
    end if;
    for v_step in 1 .. v_steps loop
        if v_step > 1 then
            v_near := array(
                select greatest(u.near, -(u.vector <#> vectors[v_best]))
                from unnest(vectors, v_near) with ordinality as u (vector, near, number)
                order by u.number
            );
            select u.number into v_best
            from unnest(scores, v_near, v_open) with ordinality as u (score, near, is_open, number)
            where u.is_open
            order by u.score - v_scale * u.near desc, u.number
            limit 1;
        end if;
        v_open[v_best] := false;
        item_no := items[v_best];
        place := v_step;
        penalty := v_scale * v_near[v_best];
        return next;
    end loop;
    return query
    select u.item_no, (v_steps + row_number() over (order by u.score - v_scale * u.near desc, u.number))::integer, v_scale * u.near
    from unnest(items, scores, v_near, v_open) with ordinality as u (item_no, score, near, is_open, number)
    where u.is_open
    order by 2
    limit k - v_steps;
end
$$;
comment on function internal.diversify(integer[], double precision[], halfvec[], integer, double precision) is
'Maximal marginal relevance (Carbonell and Goldstein, 1998): k of the items, best first, each by score minus diversity · best score · its largest cosine to those before it. Items come sorted by score.';

create or replace function internal.recommend_items(
    of_release text, of_user text, history integer[], seen integer[], disliked integer[],
    k integer, filters jsonb, diversity double precision, exploration double precision, max_per_category integer
)
returns table (rank integer, item_no integer, score double precision, contributions double precision[])
language plpgsql stable rows 10
set search_path to pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    v_new integer := floor(k * exploration);
    v_within integer[];
    v_first_new integer;
    v_last integer;
    v_start integer;
    v_pool integer := case when max_per_category is null then greatest(least(3 * k, k + 100), 30) else 1000 end;
    v_items integer[];
    v_scores double precision[];
    v_vectors halfvec[];
    v_heat real[];
    v_contributions double precision[];
begin
    if filters <> '{}' then
        v_within := internal.matching(of_release, filters);
    end if;
    if v_new > 0 then
        -- Numbers go by falling popularity: what has none comes last.
        select p.first_nos[cardinality(p.first_nos)], (select max(i.item_no) from serving.item as i where i.release_id = of_release)
        into v_first_new, v_last
        from serving.popularity as p where p.release_id = of_release;
        if v_first_new > v_last then
            v_new := 0;
        else
            -- Every shopper begins somewhere else among the new products, and elsewhere again the next day.
            v_start := v_first_new + abs(hashtext(concat(of_user, current_date))::bigint) % (v_last - v_first_new + 1);
        end if;
    end if;
    loop
        select
            coalesce(array_agg(e.item_no order by e.score desc, e.item_no), '{}'),
            array_agg(e.score order by e.score desc, e.item_no),
            array_agg(e.text_vector order by e.score desc, e.item_no),
            array_agg(e.popularity order by e.score desc, e.item_no),
            array_agg(e.contributions order by e.score desc, e.item_no)
        into v_items, v_scores, v_vectors, v_heat, v_contributions
        from (
            select
                s.item_no, s.score, s.popularity, s.contributions, i.text_vector,
                row_number() over (
                    partition by i.categories[cardinality(i.categories)] order by s.score desc, s.item_no
                ) as nth_of_category
            from internal.score(of_release, history, seen, disliked, filters, v_within, v_pool, v_new) as s
            inner join serving.item as i on i.release_id = of_release and i.item_no = s.item_no
        ) as e
        where max_per_category is null or e.nth_of_category <= max_per_category;
        -- A cap may need the whole catalogue to find k.
        exit when max_per_category is null or v_pool is null or cardinality(v_items) >= k;
        v_pool := null;
    end loop;
    return query
    with eligible as materialized (
        select u.item_no, u.score, u.popularity, array(select x.val from unnest(v_contributions[u.place:u.place]) as x (val)) as contributions
        from unnest(v_items, v_scores, v_heat) with ordinality as u (item_no, score, popularity, place)
    ),
    picked as materialized (
        select
            d.item_no, d.place, d.penalty, e.score, e.popularity, e.contributions,
            row_number() over (partition by e.popularity = 0 order by d.place desc) as from_last
        from internal.diversify(v_items, v_scores, v_vectors, k, diversity) as d
        inner join eligible as e on e.item_no = d.item_no
    ),
    missing as (
        select greatest(v_new - count(*) filter (where p.popularity = 0), 0) as new_items, count(*) as places
        from picked as p
    ),
    newcomers as materialized (
        select n.*
        from (
            select e.item_no, e.score, e.contributions, 0 as turn
            from eligible as e
            where e.popularity = 0 and not exists (select from picked as p where p.item_no = e.item_no)
            union all
            select f.item_no, 0, array_fill(0::double precision, array[6]), f.turn
            from (
                select b.turn, i.item_no
                from (values (1, v_start, v_last), (2, v_first_new, v_start - 1)) as b (turn, low, high)
                cross join lateral (
                    select x.item_no
                    from serving.item as x
                    where v_new > 0 and v_within is null and max_per_category is null
                        and x.release_id = of_release and x.item_no between b.low and b.high and x.is_available
                        and (filters = '{}' or internal.matches(filters, x.brand, x.categories, x.price, x.lang, x.attributes))
                        and x.item_no <> all(seen || v_items)
                    order by x.item_no
                    limit v_new
                ) as i
            ) as f
        ) as n
        order by n.turn, n.score desc, n.item_no
        limit (select m.new_items from missing as m)
    ),
    kept as (
        select p.*
        from picked as p
        cross join missing as m
        where p.popularity = 0 or p.from_last > m.places + (select count(*) from newcomers) - k
    ),
    listed as (
        select t.item_no, t.place, t.contributions || array[-t.penalty, 0] as contributions, t.score - t.penalty as score
        from kept as t
        union all
        select n.item_no, k + 1, n.contributions || array[0, greatest(f.lowest - n.score, 0)], greatest(f.lowest, n.score)
        from newcomers as n
        cross join (select coalesce(min(t.score - t.penalty), 0) as lowest from kept as t) as f
    )
    select (row_number() over (order by l.score desc, l.place, l.item_no))::integer, l.item_no, l.score, l.contributions
    from listed as l
    order by l.score desc, l.place, l.item_no;
end
$$;
comment on function internal.recommend_items(
    text, text, integer[], integer[], integer[], integer, jsonb, double precision, double precision, integer
) is
'A shopper''s list as numbers: scored, capped per leaf category, diversified, with a share of new products. Contributions: sequence, transition, tfidf, encoder, popularity, dislike, diversity, exploration; they sum to the score.';

create or replace function internal.terms() returns text[]
language sql immutable parallel safe
set search_path to pg_catalog, pg_temp
as $$
    select array['sequence', 'transition', 'tfidf', 'encoder', 'popularity', 'dislike', 'diversity', 'exploration'];
$$;
comment on function internal.terms() is 'Names of the contributions of a recommendation, in their order.';

create or replace function internal.recommend_rows(
    of_release text, of_user text, history integer[], seen integer[], disliked integer[],
    k integer, filters jsonb, diversity double precision, exploration double precision, max_per_category integer
)
returns setof api.list_row
language plpgsql stable rows 10
set search_path to pg_catalog, pg_temp
as $$
begin
    return query
    with listed as materialized (
        select l.rank, l.item_no, l.score, l.contributions
        from internal.recommend_items(
            of_release, of_user, history, seen, disliked, k, filters, diversity, exploration, max_per_category
        ) as l
    ),
    spoken as (
        select b.item_no, b.kind, jsonb_agg(jsonb_build_object('item_id', i.item_id, 'title', i.title) order by b.place) as items
        from internal.because(of_release, history, array(select l.item_no from listed as l)) as b
        inner join serving.item as i on i.release_id = of_release and i.item_no = b.src
        group by b.item_no, b.kind
    ),
    told as (
        select
            l.rank,
            l.item_no,
            l.score,
            jsonb_agg(
                jsonb_build_object('term', t.term, 'contribution', t.val, 'because', coalesce(s.items, '[]'))
                order by abs(t.val) desc, t.place
            ) as reasons
        from listed as l
        cross join lateral unnest(internal.terms(), l.contributions) with ordinality as t (term, val, place)
        left join spoken as s on s.item_no = l.item_no and s.kind = t.term
        where t.val <> 0 or t.term = 'popularity'
        group by l.rank, l.item_no, l.score
    )
    select p.*
    from internal.present(
        of_release,
        array(select row(t.item_no, t.score, t.reasons)::internal.scored from told as t order by t.rank),
        k,
        'only %s products match and are new to the shopper'
        || case when max_per_category is null then '' else format(', at most %s of a category', max_per_category) end
    ) as p;
end
$$;
comment on function internal.recommend_rows(
    text, text, integer[], integer[], integer[], integer, jsonb, double precision, double precision, integer
) is
'A shopper''s list with texts and reasons, as api.recommend returns it.';

create or replace function internal.popular_rows(of_release text, seen integer[], k integer, filters jsonb, note text)
returns setof api.list_row
language sql stable rows 10
set search_path to pg_catalog, pg_temp
as $$
    select p.*
    from internal.present(
        of_release,
        array(
            select row(l.item_no, l.score, jsonb_build_array(jsonb_build_object(
                'term', 'popularity', 'contribution', l.score, 'note', note
            )))::internal.scored
            from internal.recommend_items(of_release, null, '{}', seen, '{}', k, filters, 0, 0, null) as l
            order by l.rank
        ),
        k, 'only %s products match and are new to the shopper'
    ) as p;
$$;
comment on function internal.popular_rows(text, integer[], integer, jsonb, text) is
'What is popular and not in `seen`, where nothing better is known; the note of each reason says why.';
