-- Lists that start from a product, from the clock, or from what reviews say.

create or replace function internal.item_number(of_release text, of_item text) returns integer
language plpgsql stable
set search_path to pg_catalog, pg_temp
as $$
declare
    v_number integer;
begin
    select i.item_no into v_number from serving.item as i where i.release_id = of_release and i.item_id = of_item;
    if v_number is null then
        raise exception 'there is no product % in release %', coalesce(of_item, 'null'), of_release
            using errcode = 'no_data_found';
    end if;
    return v_number;
end
$$;
comment on function internal.item_number(text, text) is 'Number of a product in a release; raises no_data_found if it is not there.';

create or replace function internal.similar_rows(of_release text, to_item text, k integer, filters jsonb)
returns setof api.list_row
language plpgsql stable rows 10
set search_path to pg_catalog, public, pg_temp
as $$
declare
    v_number integer := internal.item_number(of_release, to_item);
    v_vector halfvec;
    v_terms text[];
begin
    select i.text_vector, i.key_terms into v_vector, v_terms
    from serving.item as i where i.release_id = of_release and i.item_no = v_number;
    return query
    select p.*
    from internal.present(
        of_release,
        array(
            select row(n.item_no, n.score, jsonb_build_array(jsonb_build_object(
                'term', 'text', 'contribution', n.score,
                'shared_terms', array(select unnest(i.key_terms) intersect select unnest(v_terms))
            )))::internal.scored
            from internal.nearest(of_release, v_vector, array[v_number], k, filters) as n
            inner join serving.item as i on i.release_id = of_release and i.item_no = n.item_no
            order by n.score desc, n.item_no
        ),
        k, 'only %s other products match'
    ) as p;
end
$$;
comment on function internal.similar_rows(text, text, integer, jsonb) is 'Products that mean nearly the same, as api.similar returns them.';

create or replace function internal.also_bought_rows(of_release text, with_item text, k integer, filters jsonb)
returns setof api.list_row
language plpgsql stable rows 10
set search_path to pg_catalog, public, pg_temp
as $$
declare
    v_number integer := internal.item_number(of_release, with_item);
    v_vector halfvec;
begin
    select i.text_vector into v_vector from serving.item as i where i.release_id = of_release and i.item_no = v_number;
    return query
    with together as materialized (
        select d.item_no, d.val::double precision as score
        from serving.edge as e
        cross join lateral unnest(e.dst, e.val) as d (item_no, val)
        inner join serving.item as i on i.release_id = of_release and i.item_no = d.item_no
        where e.release_id = of_release and e.src = v_number and e.kind = 'cooccurrence' and i.is_available
            and internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes)
        order by d.val desc, d.item_no
        limit k
    ),
    -- Below those that were bought together come those that mean nearly the same.
    filled as (
        select t.item_no, t.score, 'together' as term from together as t
        union all
        select n.item_no, n.score * coalesce((select min(t.score) from together as t), 1), 'text'
        from internal.nearest(
            of_release, v_vector, array(select t.item_no from together as t) || v_number,
            k - (select count(*) from together)::integer, filters
        ) as n
    )
    select p.*
    from internal.present(
        of_release,
        array(
            select row(
                f.item_no, f.score, jsonb_build_array(jsonb_build_object('term', f.term, 'contribution', f.score))
            )::internal.scored
            from filled as f
            order by f.score desc, f.item_no
        ),
        k, 'only %s other products match'
    ) as p;
end
$$;
comment on function internal.also_bought_rows(text, text, integer, jsonb) is
'Products that the same shoppers bought, by the cosine of their sets of shoppers; filled up with the nearest by text.';

create or replace function internal.since(until timestamptz, period interval, out day date, out share double precision)
language sql immutable
set search_path to pg_catalog, pg_temp
set timezone to 'UTC'
as $$
    select
        s.start::date,
        1 - extract(epoch from until - period - s.start)
        / greatest(extract(epoch from least(s.start + interval '1 day', until) - s.start), 1)
    from (select date_trunc('day', until - period) as start) as s;
$$;
comment on function internal.since(timestamptz, interval) is
'The day, in UTC, in which a period begins, and the share of its events that are counted as within: that of its time.';

create or replace function internal.trending_rows(
    of_shop text, of_release text, k integer, period interval, filters jsonb
)
returns setof api.list_row
language plpgsql stable rows 10
set search_path to pg_catalog, pg_temp
-- Products are looked up by their numbers, however many the planner takes them for.
set enable_seqscan to 'off'
set enable_hashjoin to 'off'
set enable_mergejoin to 'off'
as $$
declare
    v_release serving.release;
    v_until timestamptz;
    v_month record;
    v_period record;
    v_days double precision := extract(epoch from period) / 86400;
begin
    select r.* into v_release from serving.release as r where r.release_id = of_release;
    -- The clock of the data: a shop whose last event is a month old still has a last week.
    select max(e.event_at) into v_until from live.event as e where e.shop = of_shop;
    v_until := greatest(v_until, v_release.interval_end);
    v_month := internal.since(v_until, interval '28 days');
    v_period := internal.since(v_until, least(period, interval '28 days'));
    return query
    with happened as (
        select
            d.item_no,
            d.events * case when d.day > v_month.day then 1 else v_month.share end as events,
            d.events * case
                when d.day > v_period.day then 1 when d.day = v_period.day then v_period.share else 0
            end as recent
        from serving.item_day as d
        where d.release_id = of_release and d.day >= v_month.day
        union all
        select i.item_no, 1, (e.event_at > v_until - period)::integer
        from live.event as e
        inner join serving.item as i on i.release_id = of_release and i.item_id = e.item_id
        where e.shop = of_shop and e.event_at > v_until - interval '28 days'
            and coalesce(e.landing_no > v_release.landing_no, true) and e.kind not in ('dislike', 'return')
    ),
    counted as (
        select
            h.item_no,
            sum(h.recent)::double precision as recent,
            sum(h.events)::double precision * least(v_days / 28, 1) as usual
        from happened as h
        group by h.item_no
    ),
    -- Standard score of a Poisson count, each product smoothed by one event.
    risen as (
        select c.item_no, c.recent / sqrt(c.usual + 1) as recent, -c.usual / sqrt(c.usual + 1) as usual
        from counted as c
        where c.recent > c.usual
    ),
    -- What is merely popular comes below whatever rises.
    candidates as (
        select r.item_no, r.recent, r.usual, 0::double precision as popularity from risen as r
        union all
        (
            select i.item_no, 0, 0, i.popularity - 1
            from serving.item as i
            where i.release_id = of_release and i.is_available
                and not exists (select from risen as r where r.item_no = i.item_no)
                and internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes)
            order by i.item_no
            limit k
        )
    ),
    best as (
        select c.*, c.recent + c.usual + c.popularity as score
        from candidates as c
        inner join serving.item as i on i.release_id = of_release and i.item_no = c.item_no
        where i.is_available and internal.matches(filters, i.brand, i.categories, i.price, i.lang, i.attributes)
        order by c.recent + c.usual + c.popularity desc, c.item_no
        limit k
    )
    select p.*
    from internal.present(
        of_release,
        array(
            select row(b.item_no, b.score, case
                when b.recent > 0 then jsonb_build_array(
                    jsonb_build_object('term', 'recent', 'contribution', b.recent),
                    jsonb_build_object('term', 'usual', 'contribution', b.usual)
                )
                else jsonb_build_array(jsonb_build_object(
                    'term', 'popularity', 'contribution', b.popularity, 'note', 'nothing happened to it in the period'
                ))
            end)::internal.scored
            from best as b
            order by b.score desc, b.item_no
        ),
        k, 'only %s products match'
    ) as p;
end
$$;
comment on function internal.trending_rows(text, text, integer, interval, jsonb) is
'Products with more events in the last `period` of the data than its last 28 days let expect, as api.trending returns them.';

create or replace function internal.described_rows(
    of_shop text, of_release text, of_user text, k integer, filters jsonb
)
returns setof api.list_row
language plpgsql stable rows 10
set search_path to pg_catalog, public, pg_temp
as $$
declare
    v_praise halfvec;
    v_complaint halfvec;
    v_seen integer[];
    v_nothing vector := array_fill(0::real, array[384]);
begin
    select p.praise, p.complaint into v_praise, v_complaint
    from serving.user_profile as p where p.release_id = of_release and p.user_key = of_user;
    select s.seen into v_seen from internal.shopper(of_shop, of_release, of_user) as s;
    if v_praise is null and v_complaint is null then
        return query
        select p.*
        from internal.popular_rows(
            of_release, v_seen, k, filters, 'the shopper has written no review: these are popular'
        ) as p;
        return;
    end if;
    return query
    with agreed as (
        select
            i.item_no,
            coalesce(-(i.text_vector <#> v_praise), 0) as praised,
            coalesce(i.text_vector <#> v_complaint, 0) as complained
        from internal.nearest(
            of_release, (coalesce(v_praise::vector, v_nothing) - coalesce(v_complaint::vector, v_nothing))::halfvec,
            v_seen, k, filters
        ) as n
        inner join serving.item as i on i.release_id = of_release and i.item_no = n.item_no
    )
    select p.*
    from internal.present(
        of_release,
        array(
            select row(a.item_no, a.praised + a.complained, jsonb_build_array(
                jsonb_build_object('term', 'praised', 'contribution', a.praised),
                jsonb_build_object('term', 'complained', 'contribution', a.complained)
            ))::internal.scored
            from agreed as a
            order by a.praised + a.complained desc, a.item_no
        ),
        k, 'only %s products match and are new to the shopper'
    ) as p;
end
$$;
comment on function internal.described_rows(text, text, text, integer, jsonb) is
'Products whose descriptions agree with what the reviews of a shopper praise and not with what they complain of, as api.recommend_by_description returns them.';
