-- What was shown, so that clicks can be put down to it.

create or replace function internal.serve(
    list api.list_row[], of_shop text, of_release text, of_user text, surface text, variant text, request_id uuid
)
returns setof api.list_row
language plpgsql volatile rows 10
set search_path to pg_catalog, pg_temp
as $$
declare
    v_request uuid := coalesce(request_id, uuidv7());
begin
    if cardinality(list) = 0 then
        raise notice 'the list is empty: no product passes the filters, or none is new to the shopper';
        return;
    end if;
    -- A standby and a read-only transaction serve lists all the same.
    if current_setting('transaction_read_only') = 'off' and random() < coalesce(
        (select s.impression_share from ops.serving_setting as s where s.shop = of_shop), 1
    ) then
        insert into live.impression (shop, request_id, user_key, surface, variant, release_id, item_ids)
        values (
            of_shop, v_request, of_user, surface, left(coalesce(variant, 'default'), 200), of_release,
            array(select l.item_id from unnest(list) as l)
        )
        on conflict do nothing;
    end if;
    return query
    select
        l.rank, l.item_id, l.title, l.description, l.score, l.interest_weight, l.reasons, l.release_id, l.fewer_because,
        v_request, l.is_refined
    from unnest(list) as l;
end
$$;
comment on function internal.serve(api.list_row[], text, text, text, text, text, uuid) is
'Return a list, and log it as an impression if it is one of the share that is logged (ops.serving_setting). A request_id that was used before keeps its first list; an empty list says so by a notice.';
