create or replace function api.encode(query text) returns halfvec
language plpgsql stable security definer
set search_path to pg_catalog, public, pg_temp
as $$
begin
    return internal.encode(internal.current_release(), query);
end
$$;
comment on function api.encode(text) is
'The vector of a query, computed here from the release''s token table; null if no token is known. Chinese and English.
Example: select api.encode(''无线 mouse'');';

create or replace function api.search(query text, k integer default 10, filters jsonb default '{}')
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
    v_terms text[] := internal.query_terms(query);
    v_lexical double precision;
    v_semantic double precision;
begin
    perform internal.check_arguments(k, filters);
    perform set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', '200', true);
    v_vector := internal.encode(v_release, query);
    select w.val into v_lexical from serving.weight as w
    where w.release_id = v_release and w.term = 'search_lexical';
    select w.val into v_semantic from serving.weight as w
    where w.release_id = v_release and w.term = 'search_semantic';
    return query
    with matched as materialized (
        select p.term, p.item_id, p.weight, max(p.weight) over (partition by p.term) as best
        from serving.posting as p
        where p.release_id = v_release and p.term = any(v_terms)
    ),
    ceiling as (
        select sum(b.best) as total from (select distinct m.term, m.best from matched as m) as b
    ),
    lexical as (
        select m.item_id, sum(m.weight)::double precision / c.total as val, array_agg(m.term order by m.weight desc) as terms
        from matched as m cross join ceiling as c
        group by m.item_id, c.total
    ),
    semantic as materialized (
        select i.item_id
        from serving.item as i
        where i.release_id = v_release and v_vector is not null
            and internal.matches(filters, i.brand, i.categories, i.price, i.lang)
        order by i.text_vector <=> v_vector
        limit greatest(k, 200)
    ),
    candidates as (
        select l.item_id from lexical as l
        union
        select s.item_id from semantic as s
    ),
    terms as (
        select
            i.item_id, i.title, i.description, l.terms,
            v_lexical * coalesce(l.val, 0) as lexical,
            v_semantic * coalesce(1 - (i.text_vector <=> v_vector), 0) as semantic
        from candidates as c
        inner join serving.item as i on i.release_id = v_release and i.item_id = c.item_id
        left join lexical as l on l.item_id = c.item_id
        where internal.matches(filters, i.brand, i.categories, i.price, i.lang)
    ),
    best as (
        select t.*, t.lexical + t.semantic as score, count(*) over () as found
        from terms as t
        order by t.lexical + t.semantic desc, t.item_id
        limit k
    )
    select
        (row_number() over (order by b.score desc, b.item_id))::integer,
        b.item_id,
        b.title,
        b.description,
        b.score,
        exp(b.score) / sum(exp(b.score)) over (),
        jsonb_build_array(
            jsonb_build_object('term', 'lexical', 'contribution', b.lexical, 'matched', coalesce(b.terms, '{}')),
            jsonb_build_object('term', 'semantic', 'contribution', b.semantic, 'known', v_vector is not null)
        ),
        v_release,
        case when b.found < k then format('only %s products match', b.found) end
    from best as b
    order by b.score desc, b.item_id;
end
$$;
comment on function api.search(text, integer, jsonb) is
'Products for a query in Chinese or English: BM25 over words and Chinese n-grams, plus the cosine of the query vector computed here. The contributions in `reasons` sum to `score`; `known` is false where no token has a vector and the search is lexical only.
Example: select rank, title, score from api.search(''cordless drill'', 5);';
