-- A query, as terms and as a vector.

create or replace function internal.query_terms(query text) returns text[]
language sql immutable parallel safe
set search_path to pg_catalog, pg_temp
as $$
    with runs as (
        -- normalize() folds full-width forms, as the pipeline does.
        select m.run[1] as latin, m.run[2] as han
        from regexp_matches(
            lower(normalize(query, nfkc)), '([^\W_一-鿿㐀-䶿]+)|([一-鿿㐀-䶿]+)', 'g'
        ) as m (run)
    )
    select coalesce(array_agg(t.term), '{}')
    from (
        select r.latin as term from runs as r where r.latin is not null
        union all
        select substr(r.han, p.first_place, n.size)
        from runs as r
        cross join generate_series(1, 3) as n (size)
        cross join lateral generate_series(1, length(r.han) - n.size + 1) as p (first_place)
        where r.han is not null
    ) as t;
$$;
comment on function internal.query_terms(text) is 'Words and numbers in lower case; 1-, 2- and 3-grams of Chinese runs.';

create or replace function internal.grams(word text) returns text[]
language sql immutable parallel safe
set search_path to pg_catalog, pg_temp
as $$
    select coalesce(array_agg('#' || substr('<' || word || '>', p.first_place, 3)), '{}')
    from generate_series(1, length(word)) as p (first_place);
$$;
comment on function internal.grams(text) is 'Character 3-grams of <word>, marked #.';

create or replace function internal.encode(of_release text, query text) returns halfvec
language sql stable
set search_path to pg_catalog, public, pg_temp
as $$
    with terms as (
        select t.term from unnest(internal.query_terms(query)) as t (term)
    ),
    tokens as (
        select t.term as token from terms as t
        union all
        -- A word that the table does not know is spelled out.
        select g.gram
        from terms as t
        cross join unnest(internal.grams(t.term)) as g (gram)
        where not exists (
            select from serving.token_vector as v where v.release_id = of_release and v.token = t.term
        )
    )
    select l2_normalize(sum(v.vec::vector))::halfvec
    from tokens as k
    inner join serving.token_vector as v on v.release_id = of_release and v.token = k.token;
$$;
comment on function internal.encode(text, text) is
'Query vector: the normalised sum of its tokens'' vectors, in the space of serving.item.text_vector; null if no token is known.';
