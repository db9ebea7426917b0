-- The score of products for a shopper, term by term: the same formula as ml/recommender/fusion.py.

create or replace function internal.neighbours(place bigint) returns integer
language sql immutable parallel safe
as $$
    -- Older products speak to fewer: measured to cost nothing, and to leave a third of the work.
    select case when place <= 3 then 50 else 20 end;
$$;
comment on function internal.neighbours(bigint) is
'How many neighbours the n-th last product of a history speaks for: ml.recommender.fusion.REACH.';

create or replace function internal.sources(of_release text, history integer[])
returns table (kind text, src integer, decay double precision, dst integer[], val real[])
language sql stable rows 30
as $$
    select
        e.kind,
        e.src,
        power(case e.kind when 'encoder' then 0.6 else 0.7 end::double precision, h.place - 1),
        e.dst[:internal.neighbours(h.place)],
        e.val[:internal.neighbours(h.place)]
    from unnest(history[:10]) with ordinality as h (src, place)
    inner join serving.edge as e
        on e.release_id = of_release and e.src = h.src and e.kind in ('transition', 'tfidf', 'encoder');
$$;
comment on function internal.sources(text, integer[]) is
'The neighbours that the last ten products of a history speak for, with the decay of each.';

create or replace function internal.score(
    of_release text, history integer[], seen integer[], disliked integer[],
    filters jsonb, within integer[], pool integer, fresh integer
)
returns table (item_no integer, score double precision, popularity real, contributions double precision[])
language plpgsql stable rows 50
set search_path to pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_transition double precision;
    v_tfidf double precision;
    v_encoder double precision;
    v_popularity double precision;
begin
    select
        coalesce(max(w.val) filter (where w.term = 'transition'), 0),
        coalesce(max(w.val) filter (where w.term = 'tfidf'), 0),
        coalesce(max(w.val) filter (where w.term = 'encoder'), 0),
        -- Without a history the score is the popularity.
        case when history = '{}' then 1 else coalesce(max(w.val) filter (where w.term = 'popularity'), 0) end
    into v_transition, v_tfidf, v_encoder, v_popularity
    from (
        select distinct on (x.term) x.term, x.val
        from serving.weight as x
        where x.release_id = of_release and x.min_history between 1 and greatest(cardinality(history), 1)
        order by x.term, x.min_history desc
    ) as w;
    return query
    with had as materialized (
        select u.item_no from unnest(seen) as u (item_no)
    ),
    -- Slices are flat copies: the arrays as stored would be unpacked for every row.
    steps as materialized (
        select p.first_nos[:] as first_nos, p.vals[:] as vals from serving.popularity as p where p.release_id = of_release
    ),
    reached as materialized (
        select
            d.item_no,
            coalesce(sum(s.decay * d.val) filter (where s.kind = 'transition'), 0) as transition,
            coalesce(sum(s.decay * d.val) filter (where s.kind = 'tfidf'), 0) as tfidf,
            coalesce(sum(s.decay * d.val) filter (where s.kind = 'encoder'), 0) as encoder
        from (select x.* from internal.sources(of_release, history) as x offset 0) as s
        cross join lateral unnest(s.dst, s.val) as d (item_no, val)
        where not exists (select from had as h where h.item_no = d.item_no)
        group by d.item_no
    ),
    -- A dislike pushes its neighbours by text as hard as the strongest like may pull.
    repelled as materialized (
        select
            d.item_no,
            -v_tfidf * least(coalesce(sum(s.decay * d.val) filter (where s.kind = 'tfidf'), 0), 1)
            - v_encoder * least(coalesce(sum(s.decay * d.val) filter (where s.kind = 'encoder'), 0), 1) as val
        from (select x.* from internal.sources(of_release, disliked) as x where x.kind <> 'transition' offset 0) as s
        cross join lateral unnest(s.dst, s.val) as d (item_no, val)
        where disliked <> '{}'
        group by d.item_no
    ),
    tops as materialized (
        select
            coalesce(v_transition / nullif(max(r.transition), 0), 0) as transition,
            coalesce(v_tfidf / nullif(max(r.tfidf), 0), 0) as tfidf,
            coalesce(v_encoder / nullif(max(r.encoder), 0), 0) as encoder
        from reached as r
    ),
    -- Products are numbered by falling popularity.
    popular as (
        select i.item_no
        from serving.item as i
        where within is null and i.release_id = of_release and i.is_available
            and (filters = '{}' or internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes))
            and not exists (select from had as h where h.item_no = i.item_no)
        order by i.item_no
        limit pool
    ),
    candidates as (
        select r.item_no, r.transition, r.tfidf, r.encoder from reached as r where within is null
        union all
        select p.item_no, 0, 0, 0
        from popular as p
        where not exists (select from reached as r where r.item_no = p.item_no)
        union all
        select w.item_no, coalesce(r.transition, 0), coalesce(r.tfidf, 0), coalesce(r.encoder, 0)
        from unnest(within) as w (item_no)
        left join reached as r on r.item_no = w.item_no
        where not exists (select from had as h where h.item_no = w.item_no)
    ),
    terms as (
        select
            c.item_no,
            c.transition * t.transition as transition,
            c.tfidf * t.tfidf as tfidf,
            c.encoder * t.encoder as encoder,
            coalesce(p.vals[width_bucket(c.item_no, p.first_nos)], 0) as popularity,
            coalesce(n.val, 0) as dislike
        from candidates as c
        cross join tops as t
        cross join steps as p
        left join repelled as n on n.item_no = c.item_no
    ),
    scored as materialized (
        select t.*, t.transition + t.tfidf + t.encoder + v_popularity * t.popularity + t.dislike as score
        from terms as t
    ),
    -- Whether a product passes is asked from the top, until there are enough.
    best as (
        select s.*
        from (select t.* from scored as t order by t.score desc, t.item_no) as s
        where (
            select i.is_available and (
                filters = '{}' or internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes)
            )
            from serving.item as i
            where i.release_id = of_release and i.item_no = s.item_no
        )
        limit pool
    ),
    new as (
        select s.*
        from (
            select t.* from scored as t where fresh > 0 and t.popularity = 0 order by t.score desc, t.item_no
        ) as s
        where not exists (select from best as b where b.item_no = s.item_no) and (
            select i.is_available and (
                filters = '{}' or internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes)
            )
            from serving.item as i
            where i.release_id = of_release and i.item_no = s.item_no
        )
        limit fresh
    )
    select b.item_no, b.score, b.popularity, array[b.transition, b.tfidf, b.encoder, v_popularity * b.popularity, b.dislike]
    from (select t.* from best as t union all select t.* from new as t) as b
    order by b.score desc, b.item_no;
end
$$;
comment on function internal.score(text, integer[], integer[], integer[], jsonb, integer[], integer, integer) is
'The best `pool` products for a history, and the best `fresh` of those without events, with the contributions of transition, tfidf, encoder, popularity and dislike, which sum to the score. Candidates are the neighbours of the history and the most popular products that pass the filters; or the products of `within`, if it is given, all of which pass.';

create or replace function internal.because(of_release text, history integer[], items integer[])
returns table (item_no integer, kind text, src integer, place bigint)
language sql stable rows 50
set search_path to pg_catalog, pg_temp
as $$
    select r.item_no, r.kind, r.src, r.place
    from (
        select
            w.item_no,
            s.kind,
            s.src,
            row_number() over (
                partition by w.item_no, s.kind order by s.val[array_position(s.dst, w.item_no)] * s.decay desc, s.decay desc
            ) as place
        from (select x.* from internal.sources(of_release, history) as x offset 0) as s
        inner join unnest(items) as w (item_no) on w.item_no = any(s.dst)
    ) as r
    where r.place <= 2;
$$;
comment on function internal.because(text, integer[], integer[]) is
'For each product and kind of edge the two products of the history that speak loudest for it.';
