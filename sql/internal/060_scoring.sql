-- The score of products for a shopper, term by term: the same formula as ml/recommender/fusion.py.

create or replace function internal.neighbours(place bigint) returns integer
language sql immutable parallel safe
as $$
    -- Older products speak to fewer: measured to cost nothing, and to leave a third of the work.
    select case when place <= 3 then 50 else 20 end;
$$;
comment on function internal.neighbours(bigint) is
'How many neighbours the n-th last product of a history speaks for: ml.recommender.fusion.REACH.';

create or replace function internal.spoken_for(of_release text, history integer[], kinds text[])
returns table (kind text, place integer, decay double precision, dst integer[], val real[])
language sql stable rows 30
as $$
    select
        e.kind,
        h.place::integer,
        power(case e.kind when 'encoder' then 0.6 else 0.7 end::double precision, h.place - 1),
        e.dst[:internal.neighbours(h.place)],
        e.val[:internal.neighbours(h.place)]
    from unnest(history[:10]) with ordinality as h (src, place)
    inner join serving.edge as e
        on e.release_id = of_release and e.src = h.src and e.kind = any(kinds);
$$;
comment on function internal.spoken_for(text, integer[], text[]) is
'The neighbours that the last ten products of a history speak for by edges of some kinds, with the place and the decay of each.';

create or replace function internal.taste(of_release text, history integer[]) returns halfvec
language sql stable
set search_path to pg_catalog, public, pg_temp
as $$
    select (l2_normalize(sum(w.vec * i.sequence_input::vector order by h.place)) || '[1]'::vector)::halfvec
    from unnest(history) with ordinality as h (item_no, place)
    inner join serving.item as i on i.release_id = of_release and i.item_no = h.item_no
    inner join serving.position_weight as w on w.release_id = of_release and w.place = h.place - 1
    where i.sequence_input is not null;
$$;
comment on function internal.taste(text, integer[]) is
'What a shopper takes next, as a vector: Σ position weight ⊙ sequence_input over the history, normalised, and a 1 for the bias; null without a history or a sequence model.';

create or replace function internal.score(
    of_release text, history integer[], seen integer[], disliked integer[],
    filters jsonb, within integer[], pool integer, fresh integer
)
returns table (item_no integer, score double precision, popularity real, contributions double precision[])
language plpgsql stable rows 50
set search_path to pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    v_sequence double precision;
    v_transition double precision;
    v_tfidf double precision;
    v_encoder double precision;
    v_popularity double precision;
    v_taste halfvec;
    v_best double precision;
    v_repelled integer[];
    v_pushes double precision[];
begin
    select
        coalesce(max(w.val) filter (where w.term = 'sequence'), 0),
        coalesce(max(w.val) filter (where w.term = 'transition'), 0),
        coalesce(max(w.val) filter (where w.term = 'tfidf'), 0),
        coalesce(max(w.val) filter (where w.term = 'encoder'), 0),
        -- Without a history the score is the popularity.
        case when history = '{}' then 1 else coalesce(max(w.val) filter (where w.term = 'popularity'), 0) end
    into v_sequence, v_transition, v_tfidf, v_encoder, v_popularity
    from (
        select distinct on (x.term) x.term, x.val
        from serving.weight as x
        where x.release_id = of_release and x.min_history between 1 and greatest(cardinality(history), 1)
        order by x.term, x.min_history desc
    ) as w;
    if v_sequence > 0 then
        v_taste := internal.taste(of_release, history);
    end if;
    if v_taste is not null and (within is not null or filters <> '{}') then
        -- A filter does not change what a score is measured against.
        v_best := (select l.logit from internal.likely(of_release, v_taste, seen, 1, '{}') as l);
    end if;
    if disliked <> '{}' then
        -- A dislike pushes its neighbours by text as hard as likes may pull by what products are.
        select
            array_agg(p.item_no),
            array_agg(-(v_sequence + v_tfidf + v_encoder) / 2 * (least(p.tfidf, 1) + least(p.encoder, 1)))
        into v_repelled, v_pushes
        from (
            select
                n.item_no,
                coalesce(sum(n.val) filter (where n.kind = 'tfidf'), 0) as tfidf,
                coalesce(sum(n.val) filter (where n.kind = 'encoder'), 0) as encoder
            from (
                select s.kind, unnest(s.dst) as item_no, s.decay * unnest(s.val) as val
                from internal.spoken_for(of_release, disliked, '{tfidf, encoder}') as s
            ) as n
            group by n.item_no
        ) as p;
    end if;
    return query
    with likely as materialized (
        select l.item_no, l.logit
        from internal.likely(of_release, v_taste, seen, greatest(pool, 60), filters) as l
        where within is null and v_taste is not null
    ),
    -- Side by side and then summed: the planner would join these a row at a time, for it cannot know how many there are.
    gathered as (
        select
            d.item_no, null::double precision as logit, d.transition * d.val as transition, d.tfidf * d.val as tfidf,
            d.encoder * d.val as encoder, 0::double precision as dislike, within is null as is_candidate
        from (
            select unnest(s.dst) as item_no, unnest(s.val) as val, s.transition, s.tfidf, s.encoder
            from (
                select
                    x.dst,
                    x.val,
                    case x.kind when 'transition' then x.decay else 0 end as transition,
                    case x.kind when 'tfidf' then x.decay else 0 end as tfidf,
                    case x.kind when 'encoder' then x.decay else 0 end as encoder
                from internal.spoken_for(of_release, history, array_remove(array[
                    case when v_transition > 0 then 'transition' end,
                    case when v_tfidf > 0 then 'tfidf' end,
                    case when v_encoder > 0 then 'encoder' end
                ], null)) as x
                offset 0
            ) as s
            offset 0
        ) as d
        union all
        select l.item_no, l.logit, 0, 0, 0, 0, true from likely as l
        union all
        -- Products are numbered by falling popularity.
        (
            select i.item_no, null, 0, 0, 0, 0, true
            from serving.item as i
            where within is null and i.release_id = of_release and i.is_available and i.item_no <> all(seen)
                and (filters = '{}' or internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes))
            order by i.item_no
            limit pool
        )
        union all
        select w.item_no, null, 0, 0, 0, 0, true from unnest(within) as w (item_no)
        union all
        select n.item_no, null, 0, 0, 0, n.val, false from unnest(v_repelled, v_pushes) as n (item_no, val)
        union all
        -- What the shopper has had goes by a logit that no product has.
        select h.item_no, 'infinity', 0, 0, 0, 0, false from unnest(seen) as h (item_no)
    ),
    reached as materialized (
        select
            x.item_no, max(x.logit) as logit, sum(x.transition) as transition, sum(x.tfidf) as tfidf,
            sum(x.encoder) as encoder, sum(x.dislike) as dislike, bool_or(x.is_candidate) as is_candidate
        from gathered as x
        group by x.item_no
        having coalesce(max(x.logit), 0) < 'infinity'
    ),
    -- Each term is measured against its best.
    sums as materialized (
        select t.*, t.transition + t.tfidf + t.encoder + v_popularity * t.popularity + t.dislike as rest
        from (
            select
                r.item_no, r.logit, r.transition * o.transition as transition, r.tfidf * o.tfidf as tfidf,
                r.encoder * o.encoder as encoder, r.dislike,
                coalesce(o.vals[width_bucket(r.item_no, o.first_nos)], 0) as popularity
            from reached as r
            cross join (
                select
                    coalesce(v_transition / nullif(max(r.transition), 0), 0) as transition,
                    coalesce(v_tfidf / nullif(max(r.tfidf), 0), 0) as tfidf,
                    coalesce(v_encoder / nullif(max(r.encoder), 0), 0) as encoder,
                    -- Slices are flat copies: the arrays as stored would be unpacked for every row.
                    (select p.first_nos[:] from serving.popularity as p where p.release_id = of_release) as first_nos,
                    (select p.vals[:] from serving.popularity as p where p.release_id = of_release) as vals
                from reached as r
            ) as o
            where r.is_candidate
            offset 0
        ) as t
    ),
    bounds as materialized (
        select
            coalesce(v_best, max(l.logit)) as best,
            -- What is not among the likely is not likelier than they; below the pool's last it is not worth a look.
            v_sequence * greatest(0, 1 + (min(l.logit) - coalesce(v_best, max(l.logit))) / 10) as most,
            case
                when pool is not null then (
                    select s.rest + v_sequence * greatest(0, 1 + (s.logit - coalesce(v_best, max(l.logit))) / 10) as score
                    from sums as s
                    where s.logit is not null
                    order by score desc
                    offset pool - 1
                    limit 1
                )
            end as least
        from likely as l
    ),
    scored as materialized (
        select s.*, s.rest + s.sequence as score
        from (
            select l.*, v_sequence * greatest(0, 1 + (l.likelihood - l.best) / 10) as sequence
            from (
                select
                    s.*, b.best,
                    case
                        when s.logit is not null then s.logit
                        when coalesce(s.rest + b.most >= b.least, true) then (
                            select coalesce(-(i.sequence_output <#> v_taste), '-infinity')
                            from serving.item as i
                            where i.release_id = of_release and i.item_no = s.item_no and i.is_available
                                and (
                                    filters = '{}'
                                    or internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes)
                                )
                        )
                    end as likelihood
                from sums as s
                cross join bounds as b
                offset 0
            ) as l
            where l.likelihood is not null
            offset 0
        ) as s
    ),
    best as materialized (
        select s.* from scored as s order by s.score desc, s.item_no limit pool
    ),
    new as (
        select s.*
        from scored as s
        where fresh > 0 and s.popularity = 0 and not exists (select from best as b where b.item_no = s.item_no)
        order by s.score desc, s.item_no
        limit fresh
    )
    select
        b.item_no, b.score, b.popularity,
        array[b.sequence, b.transition, b.tfidf, b.encoder, v_popularity * b.popularity, b.dislike]
    from (select t.* from best as t union all select t.* from new as t) as b
    order by b.score desc, b.item_no;
end
$$;
comment on function internal.score(text, integer[], integer[], integer[], jsonb, integer[], integer, integer) is
'The best `pool` products for a history, and the best `fresh` of those without events, with the contributions of sequence, transition, tfidf, encoder, popularity and dislike, which sum to the score. Candidates are the likeliest by the sequence model, the neighbours of the history and the most popular products that pass the filters; or the products of `within`, if it is given, all of which pass.';

create or replace function internal.causes(of_release text, history integer[], items integer[])
returns table (item_no integer, kind text, places integer[])
language sql stable rows 50
set search_path to pg_catalog, public, pg_temp
as $$
    select u.item_no, u.kind, (array_agg(u.place order by u.val desc, u.place))[:2]
    from (
        select w.item_no, s.kind, s.place, s.val[n.place] * s.decay as val
        from (
            select x.* from internal.spoken_for(of_release, history, '{transition, tfidf, encoder}') as x offset 0
        ) as s
        cross join unnest(items) as w (item_no)
        cross join lateral (select array_position(s.dst, w.item_no) as place offset 0) as n
        where n.place is not null
        union all
        -- The share of each product of the history in the logit.
        select i.item_no, 'sequence', h.place, -(h.vec <#> i.vec)
        from (
            select h.place::integer as place, w.vec * i.sequence_input::vector as vec
            from unnest(history) with ordinality as h (item_no, place)
            inner join serving.item as i on i.release_id = of_release and i.item_no = h.item_no
            inner join serving.position_weight as w on w.release_id = of_release and w.place = h.place - 1
            offset 0
        ) as h
        cross join (
            select i.item_no, subvector(i.sequence_output::vector, 1, 256) as vec
            from unnest(items) as w (item_no)
            inner join serving.item as i on i.release_id = of_release and i.item_no = w.item_no
            where i.sequence_output is not null
            offset 0
        ) as i
        where -(h.vec <#> i.vec) > 0
    ) as u
    group by u.item_no, u.kind;
$$;
comment on function internal.causes(text, integer[], integer[]) is
'For each product and term the places in the history of the two products that speak loudest for it.';
