-- What every list has in common: ranks, texts, interest weights, and why there are fewer.

create or replace function internal.present(
    of_release text, list internal.scored[], k integer, fewer text, temperature double precision default 1
)
returns setof api.list_row
language sql stable rows 10
set search_path to pg_catalog, pg_temp
as $$
    with placed as (
        select
            u.place::integer as place,
            u.item_no,
            u.score,
            u.reasons,
            -- Far below the best, exp() would raise an underflow.
            exp(greatest((u.score - max(u.score) over ()) / temperature, -500)) as share
        from unnest(list) with ordinality as u (item_no, score, reasons, place)
    )
    select
        p.place,
        i.item_id,
        i.title,
        i.description,
        p.score,
        p.share / sum(p.share) over (),
        p.reasons,
        of_release,
        case when cardinality(list) < k then format(fewer, cardinality(list)) end,
        null::uuid,
        i.is_refined
    from placed as p
    inner join serving.item as i on i.release_id = of_release and i.item_no = p.item_no
    order by p.place;
$$;
comment on function internal.present(text, internal.scored[], integer, text, double precision) is
'Rows of the api for a list in its order. `fewer` says why there are fewer than k, with %s for how many; interest_weight is softmax(score / temperature) over the list.';
