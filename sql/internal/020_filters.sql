-- What a list may be asked for, and which products pass a filter.

create or replace function internal.check_list(k integer, filters jsonb) returns void
language plpgsql immutable
set search_path to pg_catalog, pg_temp
as $$
declare
    v_key text;
    v_value jsonb;
begin
    if k is null or k not between 1 and 1000 then
        raise exception 'k is %, but must lie between 1 and 1000', coalesce(k::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if filters = '{}' then
        return;
    end if;
    if filters is null or jsonb_typeof(filters) <> 'object' then
        raise exception 'filters must be a JSON object, not %', coalesce(jsonb_typeof(filters), 'null')
            using errcode = 'invalid_parameter_value', hint = 'Example: {"brand": "Alpine", "max_price": 50}.';
    end if;
    for v_key, v_value in select f.key, f.value from jsonb_each(filters) as f loop
        if v_key not in ('brand', 'category', 'lang', 'min_price', 'max_price', 'attributes') then
            raise exception 'there is no filter %', v_key using errcode = 'invalid_parameter_value',
                hint = 'Filters: brand, category, lang, min_price, max_price, attributes.';
        end if;
        if jsonb_typeof(v_value) <> (
            case
                when v_key in ('min_price', 'max_price') then 'number'
                when v_key = 'attributes' then 'object'
                else 'string'
            end
        ) then
            raise exception 'filter % cannot be %', v_key, v_value using errcode = 'invalid_parameter_value',
                hint = 'Prices are numbers, attributes an object, all others strings.';
        end if;
    end loop;
end
$$;
comment on function internal.check_list(integer, jsonb) is 'Refuse a k or a filter that no list function understands.';

create or replace function internal.check_share(named text, share double precision) returns void
language plpgsql immutable
set search_path to pg_catalog, pg_temp
as $$
begin
    if share is null or share not between 0 and 1 then
        raise exception '% is %, but must lie between 0 and 1', named, coalesce(share::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
end
$$;
comment on function internal.check_share(text, double precision) is 'Refuse an argument that is no share; NaN is none.';

create or replace function internal.matches(
    filters jsonb, brand text, categories text[], price numeric, lang text, attributes jsonb
)
returns boolean
-- Without a search_path of its own, so that the planner can look inside; its callers pin theirs.
language sql immutable parallel safe
as $$
    select
        (not filters ? 'brand' or brand = filters ->> 'brand')
        and (not filters ? 'category' or categories @> array[filters ->> 'category'])
        and (not filters ? 'lang' or lang = filters ->> 'lang')
        and (not filters ? 'min_price' or price >= (filters ->> 'min_price')::numeric)
        and (not filters ? 'max_price' or price <= (filters ->> 'max_price')::numeric)
        and (not filters ? 'attributes' or attributes @> (filters -> 'attributes'));
$$;
comment on function internal.matches(jsonb, text, text[], numeric, text, jsonb) is
'Does a product pass the filters {brand, category, lang, min_price, max_price, attributes}; absent keys do not filter.';

create or replace function internal.matching(of_release text, filters jsonb, at_most integer default 2000)
returns integer[]
language plpgsql stable
set search_path to pg_catalog, pg_temp
set enable_seqscan to 'off'
as $$
declare
    v_conditions text := 'i.is_available';
    v_part regclass := (select i.tableoid from serving.item as i where i.release_id = of_release limit 1);
    v_found integer[];
begin
    if v_part is null then
        return '{}';
    end if;
    -- With the values spelled out the planner sees how rare they are, and takes the best index.
    if filters ? 'brand' then
        v_conditions := v_conditions || format(' and i.brand = %L', filters ->> 'brand');
    end if;
    if filters ? 'category' then
        v_conditions := v_conditions || format(' and i.categories @> %L::text[]', array[filters ->> 'category']);
    end if;
    if filters ? 'lang' then
        v_conditions := v_conditions || format(' and i.lang = %L', filters ->> 'lang');
    end if;
    if filters ? 'min_price' then
        v_conditions := v_conditions || format(' and i.price >= %L::numeric', filters ->> 'min_price');
    end if;
    if filters ? 'max_price' then
        v_conditions := v_conditions || format(' and i.price <= %L::numeric', filters ->> 'max_price');
    end if;
    if filters ? 'attributes' then
        v_conditions := v_conditions || format(' and i.attributes @> %L::jsonb', filters -> 'attributes');
    end if;
    -- Of the part itself, for no index holds the release: with its condition, each product would be read to check it.
    execute format(
        'select array_agg(f.item_no) from (select i.item_no from %s as i where %s limit %s) as f',
        v_part, v_conditions, coalesce((at_most + 1)::text, 'all')
    ) into v_found;
    return case when cardinality(v_found) > at_most then null else coalesce(v_found, '{}') end;
end
$$;
comment on function internal.matching(text, jsonb, integer) is
'The products of a release that pass the filters; null if they are more than `at_most` (null: however many). Measured on 100,000 products: up to 2,000 it is faster to score all that pass than to search the vector index for them.';
