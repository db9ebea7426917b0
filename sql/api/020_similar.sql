create or replace function api.similar(to_item text, k integer default 10, filters jsonb default '{}')
returns table (
    rank integer, item_id text, title text, description text, score double precision,
    interest_weight double precision, reasons jsonb, release_id text, fewer_because text
)
language plpgsql stable security definer rows 10
set search_path to pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    v_release text := internal.current_release();
    v_vector halfvec;
    v_terms text[];
begin
    perform internal.check_arguments(k, filters);
    perform set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', '200', true);
    select i.text_vector, i.key_terms into v_vector, v_terms
    from serving.item as i where i.release_id = v_release and i.item_id = to_item;
    if v_vector is null then
        raise exception 'there is no product % in release %', to_item, coalesce(v_release, '(none)')
            using errcode = 'no_data_found';
    end if;
    return query
    with near as materialized (
        select i.item_id, i.title, i.description, i.key_terms, 1 - (i.text_vector <=> v_vector) as score
        from serving.item as i
        where i.release_id = v_release and i.item_id <> to_item
            and internal.matches(filters, i.brand, i.categories, i.price, i.lang)
        order by i.text_vector <=> v_vector
        limit k
    ),
    counted as (select count(*) as found from near)
    select
        (row_number() over (order by n.score desc, n.item_id))::integer,
        n.item_id,
        n.title,
        n.description,
        n.score,
        exp(n.score) / sum(exp(n.score)) over (),
        jsonb_build_array(jsonb_build_object(
            'term', 'text', 'contribution', n.score,
            'shared_terms', array(select unnest(n.key_terms) intersect select unnest(v_terms))
        )),
        v_release,
        case when c.found < k then format('only %s other products match', c.found) end
    from near as n
    cross join counted as c
    order by n.score desc, n.item_id;
end
$$;
comment on function api.similar(text, integer, jsonb) is
'Products whose descriptions mean nearly the same, by cosine. `reasons` names the terms that both share.
Example: select rank, title, score from api.similar(''42'', 5);';
