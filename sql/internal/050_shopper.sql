-- What is known of a shopper at this moment: the release's profile, and on top of it what was logged since.

create or replace function internal.shopper(
    of_shop text, of_release text, of_user text,
    out history integer[], out seen integer[], out disliked integer[]
)
language plpgsql stable
set search_path to pg_catalog, pg_temp
as $$
declare
    v_landed bigint;
    v_liked integer[];
    v_bad integer[];
begin
    select p.history, p.seen, p.disliked into history, seen, disliked
    from serving.user_profile as p where p.release_id = of_release and p.user_key = of_user;
    history := coalesce(history, '{}');
    seen := coalesce(seen, '{}');
    disliked := coalesce(disliked, '{}');
    if not exists (select from live.event as e where e.shop = of_shop and e.user_key = of_user) then
        return;
    end if;
    select coalesce(r.landing_no, -1) into v_landed from serving.release as r where r.release_id = of_release;
    with logged as (
        select
            i.item_no,
            e.kind in ('dislike', 'return') as is_bad,
            row_number() over (order by e.event_at desc, e.logged_at desc, e.event_id desc) as place
        from live.event as e
        inner join serving.item as i on i.release_id = of_release and i.item_id = e.item_id
        where e.shop = of_shop and e.user_key = of_user and coalesce(e.landing_no > v_landed, true)
    ),
    -- The last word on a product counts.
    latest as (
        select distinct on (l.item_no) l.item_no, l.is_bad, l.place from logged as l order by l.item_no, l.place
    )
    select
        coalesce(array_agg(t.item_no order by t.place) filter (where not t.is_bad), '{}'),
        coalesce(array_agg(t.item_no order by t.place) filter (where t.is_bad), '{}')
    into v_liked, v_bad
    from latest as t;
    seen := seen || v_liked || v_bad;
    history := (v_liked || array(
        select h.item_no from unnest(history) with ordinality as h (item_no, place)
        where h.item_no <> all(v_liked || v_bad) order by h.place
    ))[:20];
    disliked := (v_bad || array(
        select d.item_no from unnest(disliked) with ordinality as d (item_no, place)
        where d.item_no <> all(v_liked || v_bad) order by d.place
    ))[:20];
end
$$;
comment on function internal.shopper(text, text, text) is
'The last 20 products that a shopper took (newest first), all that are not to be shown again, and the last 20 disliked or returned. Events logged since the release come first.';

create or replace function internal.listener(of_shop text, user_id text, personalised boolean) returns text
language plpgsql stable
set search_path to pg_catalog, pg_temp
as $$
declare
    v_user text := case when coalesce(personalised, true) then internal.user_key(user_id) end;
begin
    if exists (select from live.opt_out as o where o.shop = of_shop and o.user_key = v_user) then
        return null;
    end if;
    return v_user;
end
$$;
comment on function internal.listener(text, text, boolean) is
'The pseudonym of the shopper that a list is made for; null where the list is to be the same for everybody: no shopper, not personalised, or opted out.';

create or replace function internal.interest(of_release text, history integer[]) returns halfvec
language sql stable
set search_path to pg_catalog, public, pg_temp
as $$
    select l2_normalize(sum(
        i.text_vector::vector * array_fill(power(0.8::float8, h.place - 1)::real, array[384])::vector
    ))::halfvec
    from unnest(history) with ordinality as h (item_no, place)
    inner join serving.item as i on i.release_id = of_release and i.item_no = h.item_no
    where l2_norm(i.text_vector) > 0;
$$;
comment on function internal.interest(text, integer[]) is
'What a shopper is interested in, as a vector: Σ 0.8^k · text_vector of the k-th last product, normalised; null without a history.';
