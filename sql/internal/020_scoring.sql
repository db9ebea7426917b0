-- The score of a product for a shopper, term by term: the same formula as ml/recommender/fusion.py.

create or replace function internal.candidate_terms(of_release text, of_user text, pool integer)
returns table (item_id text, term text, val double precision, contribution double precision, because text[])
-- The planner has to know that a history is short: else it reads the whole graph.
language sql stable rows 1000
set search_path to pg_catalog, pg_temp
as $$
    with history as materialized (
        select h.item_id, h.age from internal.history(of_release, of_user) as h
    ),
    seen as materialized (
        select s.item_id from internal.seen(of_release, of_user) as s
    ),
    reached as (
        select
            e.dst as item_id,
            e.kind as term,
            sum(power(case e.kind when 'encoder' then 0.6 else 0.7 end::float8, h.age) * e.val) as val,
            -- The product of the history that speaks loudest for this one.
            (array_agg(h.item_id order by power(case e.kind when 'encoder' then 0.6 else 0.7 end::float8, h.age) * e.val desc))[1:2]
                as because
        from history as h
        inner join serving.edge as e on e.release_id = of_release and e.src = h.item_id
        where not exists (select from seen as s where s.item_id = e.dst)
        group by e.dst, e.kind
    ),
    popular as (
        select i.item_id
        from serving.item as i
        where i.release_id = of_release and not exists (select from seen as s where s.item_id = i.item_id)
        order by i.popularity desc, i.item_id
        limit pool
    ),
    candidates as (
        select r.item_id from reached as r
        union
        select p.item_id from popular as p
    ),
    terms as (
        select r.item_id, r.term, r.val / max(r.val) over (partition by r.term) as val, r.because
        from reached as r
        union all
        select c.item_id, 'popularity', i.popularity::double precision, '{}'
        from candidates as c
        inner join serving.item as i on i.release_id = of_release and i.item_id = c.item_id
    ),
    weights as (
        select distinct on (w.term) w.term, w.val
        from serving.weight as w
        where w.release_id = of_release and w.min_history <= (select count(*) from history)
        order by w.term, w.min_history desc
    )
    select
        t.item_id,
        t.term,
        t.val,
        -- Without a history the score is the popularity.
        t.val * case when exists (select from history) then coalesce(w.val, 0) else 1 end,
        t.because
    from terms as t
    left join weights as w on w.term = t.term;
$$;
comment on function internal.candidate_terms(text, text, integer) is
'Terms of every candidate: products with an edge from the history and the `pool` most popular new ones. Contributions sum to the score.';
