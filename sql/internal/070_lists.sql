-- From scored candidates to a list: diversity, shares, impressions.

create or replace function internal.diversify(
    scores double precision[], vectors halfvec[], k integer, diversity double precision
)
returns table (number integer, penalty double precision)
language plpgsql immutable rows 10
set search_path to pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    v_size integer := cardinality(scores);
    -- Similarity is made up to this many places; what follows keeps the penalty it has by then.
    v_steps integer := least(k, v_size, 50);
    v_scale double precision := diversity * greatest(abs(scores[1]), 1e-9);
    -- The largest cosine to the first v_met of those picked.
    v_near double precision[] := array_fill(0::double precision, array[v_size]);
    v_met integer[] := array_fill(0, array[v_size]);
    v_picked integer[] := '{}';
    v_best integer;
    v_most double precision;
begin
    for v_step in 1 .. v_steps loop
        v_best := null;
        v_most := '-infinity';
        for v_at in 1 .. v_size loop
            -- A penalty only grows: what is no better by the part that is known needs no more similarities.
            exit when scores[v_at] <= v_most;
            continue when v_met[v_at] < 0 or scores[v_at] - v_scale * v_near[v_at] <= v_most;
            for v_other in v_met[v_at] + 1 .. v_step - 1 loop
                v_near[v_at] := greatest(v_near[v_at], -(vectors[v_at] <#> vectors[v_picked[v_other]]));
            end loop;
            v_met[v_at] := v_step - 1;
            if scores[v_at] - v_scale * v_near[v_at] > v_most then
                v_best := v_at;
                v_most := scores[v_at] - v_scale * v_near[v_at];
            end if;
        end loop;
        v_met[v_best] := -1;
        v_picked[v_step] := v_best;
        number := v_best;
        penalty := v_scale * v_near[v_best];
        return next;
    end loop;
    if k > v_steps then
        for v_at in 1 .. v_size loop
            for v_other in v_met[v_at] + 1 .. v_steps - 1 loop
                exit when v_met[v_at] < 0;
                v_near[v_at] := greatest(v_near[v_at], -(vectors[v_at] <#> vectors[v_picked[v_other]]));
            end loop;
        end loop;
        return query
        select u.number::integer, v_scale * u.near
        from unnest(scores, v_near, v_met) with ordinality as u (score, near, met, number)
        where u.met >= 0
        order by u.score - v_scale * u.near desc, u.number
        limit k - v_steps;
    end if;
end
$$;
comment on function internal.diversify(double precision[], halfvec[], integer, double precision) is
'Maximal marginal relevance (Carbonell and Goldstein, 1998): the numbers of k items, best first, each by score minus diversity · best score · its largest cosine to those before it. Scores come sorted, the best first.';

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
    v_pool integer := case when max_per_category is null then greatest(least(3 * k, k + 100), 30) else 1000 end;
    v_items integer[];
    v_scores double precision[];
    v_heat real[];
    v_contributions double precision[];
    v_picked integer[];
    v_penalties double precision[];
    v_missing integer;
    v_newcomers integer[] := '{}';
    v_strangers integer[] := '{}';
    v_lowest double precision;
begin
    if filters <> '{}' then
        v_within := internal.matching(of_release, filters);
    end if;
    loop
        -- In the order of internal.score: the best first.
        select
            coalesce(array_agg(s.item_no), '{}'), array_agg(s.score), array_agg(s.popularity), array_agg(s.contributions)
        into v_items, v_scores, v_heat, v_contributions
        from internal.score(of_release, history, seen, disliked, filters, v_within, v_pool, v_new) as s;
        exit when max_per_category is null;
        select
            coalesce(array_agg(e.item_no), '{}'), array_agg(e.score), array_agg(e.popularity),
            array_agg(array(select x.val from unnest(v_contributions[e.place:e.place]) as x (val)))
        into v_items, v_scores, v_heat, v_contributions
        from (
            select
                u.item_no, u.score, u.popularity, u.place,
                row_number() over (
                    partition by
                        i.categories[cardinality(i.categories)],
                        -- What has no category shares it with nothing.
                        case when i.categories[cardinality(i.categories)] is null then i.item_no end
                    order by u.place
                ) as nth_of_category
            from unnest(v_items, v_scores, v_heat) with ordinality as u (item_no, score, popularity, place)
            inner join serving.item as i on i.release_id = of_release and i.item_no = u.item_no
            order by u.place
        ) as e
        where e.nth_of_category <= max_per_category;
        -- A cap may need the whole catalogue to find k.
        exit when v_pool is null or cardinality(v_items) >= k;
        v_pool := null;
    end loop;
    if v_items = '{}' then
        v_picked := '{}';
        v_penalties := '{}';
    elsif diversity = 0 then
        v_picked := array(select generate_series(1, least(k, cardinality(v_items))));
        v_penalties := array_fill(0::double precision, array[cardinality(v_picked)]);
    else
        select coalesce(array_agg(d.number), '{}'), coalesce(array_agg(d.penalty), '{}') into v_picked, v_penalties
        from internal.diversify(
            v_scores,
            array(
                select i.text_vector
                from unnest(v_items) with ordinality as u (item_no, place)
                inner join serving.item as i on i.release_id = of_release and i.item_no = u.item_no
                order by u.place
            ),
            k, diversity
        ) as d;
    end if;
    if v_new > 0 then
        v_missing := v_new - (select count(*) from unnest(v_picked) as p (number) where v_heat[p.number] = 0);
        if v_missing > 0 then
            v_newcomers := array(
                select u.number
                from unnest(v_heat) with ordinality as u (popularity, number)
                where u.popularity = 0 and u.number <> all(v_picked)
                order by u.number
                limit v_missing
            );
            v_missing := v_missing - cardinality(v_newcomers);
            if v_missing > 0 and v_within is null and max_per_category is null then
                v_strangers := internal.strangers(of_release, of_user, seen || v_items, v_missing, filters);
            end if;
            -- They take the places of the last that are not new.
            select coalesce(array_agg(p.number order by p.place), '{}'), coalesce(array_agg(p.penalty order by p.place), '{}')
            into v_picked, v_penalties
            from (
                select u.*, row_number() over (partition by v_heat[u.number] = 0 order by u.place desc) as from_last
                from unnest(v_picked, v_penalties) with ordinality as u (number, penalty, place)
            ) as p
            where v_heat[p.number] = 0
                or p.from_last > cardinality(v_picked) + cardinality(v_newcomers) + cardinality(v_strangers) - k;
        end if;
    end if;
    v_lowest := coalesce((select min(v_scores[u.number] - u.penalty) from unnest(v_picked, v_penalties) as u (number, penalty)), 0);
    return query
    with listed as (
        select
            v_items[u.number] as item_no, v_scores[u.number] - u.penalty as score,
            array(select x.val from unnest(v_contributions[u.number:u.number]) as x (val)) || array[-u.penalty, 0] as contributions
        from unnest(v_picked, v_penalties) as u (number, penalty)
        union all
        select
            v_items[n.number], greatest(v_lowest, v_scores[n.number]),
            array(select x.val from unnest(v_contributions[n.number:n.number]) as x (val))
            || array[0, greatest(v_lowest - v_scores[n.number], 0)]
        from unnest(v_newcomers) as n (number)
        union all
        select t.item_no, v_lowest, array_fill(0::double precision, array[7]) || v_lowest
        from unnest(v_strangers) as t (item_no)
    )
    -- Of equal scores the better place, and those that take places last.
    select (row_number() over (order by l.score desc))::integer, l.item_no, l.score, l.contributions
    from listed as l
    order by l.score desc;
end
$$;
comment on function internal.recommend_items(
    text, text, integer[], integer[], integer[], integer, jsonb, double precision, double precision, integer
) is
'A shopper''s list as numbers: scored, capped per leaf category, diversified, with a share of new products. Contributions: sequence, transition, tfidf, encoder, popularity, dislike, diversity, exploration; they sum to the score.';

create or replace function internal.strangers(
    of_release text, of_user text, without integer[], k integer, filters jsonb
)
returns integer[]
language plpgsql stable
set search_path to pg_catalog, public, pg_temp
as $$
declare
    v_first integer;
    v_last integer;
    v_start integer;
begin
    -- Numbers go by falling popularity: what has none comes last.
    select p.first_nos[cardinality(p.first_nos)], (select max(i.item_no) from serving.item as i where i.release_id = of_release)
    into v_first, v_last
    from serving.popularity as p where p.release_id = of_release;
    if v_first > v_last then
        return '{}';
    end if;
    -- Every shopper begins somewhere else among the new products, and elsewhere again the next day.
    v_start := v_first + abs(hashtext(concat(of_user, current_date))::bigint) % (v_last - v_first + 1);
    return array(
        select i.item_no
        from (values (1, v_start, v_last), (2, v_first, v_start - 1)) as b (turn, low, high)
        cross join lateral (
            select x.item_no
            from serving.item as x
            where x.release_id = of_release and x.item_no between b.low and b.high and x.is_available
                and (filters = '{}' or internal.matches(filters, x.brand, x.categories, x.price, x.lang, x.attributes))
                and x.item_no <> all(without)
            order by x.item_no
            limit k
        ) as i
        order by b.turn, i.item_no
        limit k
    );
end
$$;
comment on function internal.strangers(text, text, integer[], integer, jsonb) is
'Up to k products without events of which nothing else is known, other ones for every shopper and day.';

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
declare
    v_past jsonb[] := array(
        select case when i.item_id is not null then jsonb_build_object('item_id', i.item_id, 'title', i.title) end
        from unnest(history) with ordinality as h (item_no, place)
        left join serving.item as i on i.release_id = of_release and i.item_no = h.item_no
        order by h.place
    );
begin
    return query
    with listed as materialized (
        select l.rank, l.item_no, l.score, l.contributions
        from internal.recommend_items(
            of_release, of_user, history, seen, disliked, k, filters, diversity, exploration, max_per_category
        ) as l
    ),
    told as (
        select
            l.rank,
            l.item_no,
            l.score,
            jsonb_agg(
                jsonb_build_object('term', t.term, 'contribution', t.val, 'because', case
                    when b.places[2] is not null then jsonb_build_array(v_past[b.places[1]], v_past[b.places[2]])
                    when b.places[1] is not null then jsonb_build_array(v_past[b.places[1]])
                    else '[]'
                end)
                order by abs(t.val) desc, t.place
            ) as reasons
        from listed as l
        cross join lateral unnest(internal.terms(), l.contributions) with ordinality as t (term, val, place)
        left join internal.causes(of_release, history, array(select l.item_no from listed as l)) as b
            on b.item_no = l.item_no and b.kind = t.term
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
