-- A query and a new product, read with the lexicon of a release: the same rules as ml/search, tested against it.

create or replace function internal.sparse(term_nos integer[], amounts double precision[]) returns sparsevec
language sql immutable parallel safe
set search_path to pg_catalog, public, pg_temp
as $$
    select ('{' || string_agg(t.term_no || ':' || t.amount::real, ',') || '}/1000000000')::sparsevec
    from unnest(term_nos, amounts) as t (term_no, amount)
    where t.amount::real <> 0;
$$;
comment on function internal.sparse(integer[], double precision[]) is
'A sparse vector of dimension 1,000,000,000 from distinct positions and what stands there; null if nothing does.';

create or replace function internal.unknown_term_no(term text) returns integer
language sql immutable parallel safe
as $$
    select 500000000 + ((hashtextextended(term, 0) & 9223372036854775807) % 499999999)::integer;
$$;
comment on function internal.unknown_term_no(text) is
'Number of a word that the release''s lexicon lacks: a product added since and a query meet on it.';

create or replace function internal.is_one_typo(one text, other text) returns boolean
language sql immutable parallel safe
as $$
    select bool_or(case length(other) - length(one)
        when 1 then one = left(other, p.place - 1) || substr(other, p.place + 1)
        when -1 then other = left(one, p.place - 1) || substr(one, p.place + 1)
        when 0 then
            left(one, p.place - 1) = left(other, p.place - 1)
            and (
                substr(one, p.place + 1) = substr(other, p.place + 1)
                or (
                    substr(one, p.place, 2) = reverse(substr(other, p.place, 2))
                    and substr(one, p.place + 2) = substr(other, p.place + 2)
                )
            )
        else false
    end) and one <> other
    from generate_series(1, greatest(length(one), length(other))) as p (place);
$$;
comment on function internal.is_one_typo(text, text) is
'Was one letter left out, put in or replaced, or were two neighbours swapped?';

create or replace function internal.correct_runs(of_release text, words text[]) returns jsonb
language plpgsql stable
set search_path to pg_catalog, pg_temp
as $$
declare
    v_runs text[] := array(
        select distinct w.word from unnest(words) as w (word) where length(w.word) >= 2 and internal.is_cjk(w.word)
    );
    v_pairs text[];
    v_known text[];
begin
    if v_runs = '{}' then
        return '{}';
    end if;
    v_pairs := array(
        select distinct substr(r.run, p.place, 2)
        from unnest(v_runs) as r (run)
        cross join generate_series(1, length(r.run) - 1) as p (place)
    );
    v_known := array(select t.term from serving.term as t where t.release_id = of_release and t.term = any(v_pairs));
    if v_pairs <@ v_known then
        return '{}';
    end if;
    return (
        with pieces as materialized (
            select r.run, p.place, n.size, substr(r.run, p.place, n.size) as piece
            from unnest(v_runs) as r (run)
            cross join generate_series(2, 3) as n (size)
            cross join generate_series(1, length(r.run) - n.size + 1) as p (place)
            where substr(r.run, p.place, 2) <> all(v_known)
                and (n.size = 2 or substr(r.run, p.place + 1, 2) <> all(v_known))
        ),
        variants as materialized (
            select p.run, p.place, p.size, p.piece, v.variant
            from pieces as p
            cross join lateral unnest(case p.size
                when 2 then array[p.piece]
                else array[right(p.piece, 2), left(p.piece, 1) || right(p.piece, 1), left(p.piece, 2)]
            end) as v (variant)
        ),
        near as materialized (
            select s.variant, s.terms from serving.spelling as s
            where s.release_id = of_release and s.variant = any(array(select v.variant from variants as v))
        ),
        best as (
            select distinct on (v.run) v.run, v.place, v.size, k.term
            from variants as v
            inner join near as n on n.variant = v.variant
            cross join unnest(n.terms) as u (term)
            inner join serving.term as k on k.release_id = of_release and k.term = u.term
            where internal.is_one_typo(v.piece, u.term)
            order by v.run, v.size desc, k.documents desc, v.place, k.term collate "C"
        )
        select coalesce(jsonb_object_agg(b.run, overlay(b.run placing b.term from b.place for b.size)), '{}')
        from best as b
    );
end
$$;
comment on function internal.correct_runs(text, text[]) is
'What a run of Chinese, Japanese or Korean characters is read as: two or three of them no two of which any product has side by side are read as the most frequent three that are one typo away.';

create or replace function internal.correct(of_release text, words text[]) returns jsonb
language plpgsql stable
set search_path to pg_catalog, pg_temp
as $$
declare
    v_words text[];
    v_stems text[];
    v_found text[];
    v_variants text[];
    v_runs jsonb := internal.correct_runs(of_release, words);
begin
    select array_agg(u.word), array_agg(u.stem) into v_words, v_stems
    from (
        select distinct w.word, internal.stem(w.word) as stem
        from unnest(words) as w (word)
        where length(w.word) >= 3 and w.word !~ '^[0-9]' and not internal.is_cjk(w.word)
    ) as u;
    v_found := array(
        select t.term from serving.term as t
        where t.release_id = of_release and t.term = any(v_stems) and t.documents >= 2
    );
    if v_stems is null or v_stems <@ v_found then
        return v_runs;
    end if;
    v_variants := array(
        select distinct left(w.whole, greatest(g.gone - 1, 0)) || substr(w.whole, g.gone + 1)
        from unnest(v_words || v_stems, v_stems || v_stems) as w (whole, stem)
        cross join generate_series(0, length(w.whole)) as g (gone)
        where w.stem <> all(v_found)
    );
    return (
        with near as materialized (
            select s.variant, s.terms from serving.spelling as s
            where s.release_id = of_release and s.variant = any(v_variants)
        ),
        known as materialized (
            select t.term, t.documents from serving.term as t
            where t.release_id = of_release
                and t.term = any(v_stems || array(select unnest(n.terms) from near as n))
        ),
        best as (
            select distinct on (w.word) w.word, w.stem, k.term, k.documents
            from unnest(v_words, v_stems) as w (word, stem)
            cross join lateral (select w.word as whole union select w.stem) as o
            cross join generate_series(0, length(o.whole)) as g (gone)
            inner join near as n on n.variant = left(o.whole, greatest(g.gone - 1, 0)) || substr(o.whole, g.gone + 1)
            inner join known as k on k.term = any(n.terms)
            where w.stem <> all(v_found) and internal.is_one_typo(o.whole, k.term)
            -- The first letter is rarely the wrong one.
            order by w.word, left(k.term, 1) <> left(w.word, 1), k.documents desc, k.term collate "C"
        )
        select v_runs || coalesce(jsonb_object_agg(b.word, b.term), '{}')
        from best as b
        left join known as own on own.term = b.stem
        where b.term <> b.stem and (own.term is null or b.documents >= 10)
    );
end
$$;
comment on function internal.correct(text, text[]) is
'What a word of three letters or more is read as, if no product (or one alone) has it: the most frequent word one typo away, one with the same first letter before others; and what runs of Chinese are read as.';

create or replace function internal.query_tokens(of_release text, query text, out tokens text[], out corrections jsonb)
language plpgsql stable
set search_path to pg_catalog, pg_temp
as $$
declare
    v_written text[] := (internal.written(left(coalesce(query, ''), 512)))[1:64];
begin
    corrections := internal.correct(of_release, v_written);
    tokens := array(
        select coalesce(corrections ->> u.word, internal.stem(u.word))
        from unnest(v_written) with ordinality as u (word, place)
        order by u.place
    );
end
$$;
comment on function internal.query_tokens(text, text) is
'The words of a query as they are looked up, in order: corrected, else stemmed; and what was corrected. The first 512 characters and 64 words are read.';

create or replace function internal.read_query(of_release text, query text, proposals integer default 100)
returns table (
    vector halfvec, lexical sparsevec, families text[], family_features sparsevec[],
    item_nos integer[], corrections jsonb, matched text[]
)
language plpgsql stable rows 1
set search_path to pg_catalog, public, pg_temp
as $$
declare
    v_tokens text[];
    v_weights jsonb := (
        select jsonb_object_agg(w.term, w.val) from serving.weight as w
        where w.release_id = of_release and w.min_history = 0 and w.term like 'search\_%'
    );
    v_unknown double precision := (v_weights ->> 'search_unknown_idf')::double precision;
    v_words text[];
begin
    select t.tokens, t.corrections into v_tokens, corrections from internal.query_tokens(of_release, query) as t;
    v_words := internal.word_terms(v_tokens);
    with asked as (
        select 'words' as family, w.term from unnest(v_words) as w (term)
        union all
        select case when p.term like '% %' then 'measures' else 'pairs' end, p.term
        from unnest(internal.pair_terms(v_tokens)) as p (term)
        union all
        select 'grams', g.term from unnest(internal.gram_terms(v_tokens)) as g (term)
    ),
    known as materialized (
        select
            a.family, a.term, t.documents is not null as is_known, t.vec, t.item_nos, t.weights,
            coalesce(t.term_no, internal.unknown_term_no(a.term)) as term_no,
            coalesce(t.idf, v_unknown) as idf
        from asked as a
        left join serving.term as t on t.release_id = of_release and t.term = a.term
    ),
    shares as (
        select
            k.family, k.term_no, k.is_known, k.item_nos, k.weights,
            case when k.family in ('words', 'grams') then k.idf / sum(k.idf) over in_family
            when k.family = 'pairs' then 1.0 / count(*) filter (where k.family in ('pairs', 'measures')) over ()
            else 1.0 / count(*) over in_family end as share
        from known as k
        window in_family as (partition by k.family)
        union all
        select 'numbers', k.term_no, k.is_known, k.item_nos, k.weights, 1.0 / count(*) over ()
        from known as k
        where k.family = 'words' and k.term ~ '^[0-9]'
    ),
    weighted as materialized (
        select s.family, s.term_no, s.item_nos, s.weights, s.share * w.val as amount
        from shares as s
        cross join lateral (select (v_weights ->> ('search_' || s.family))::double precision as val) as w
        -- Only a word can be in a product that came after the release.
        where (s.is_known or s.family = 'words') and w.val > 0
    ),
    by_family as (
        select w.family, internal.sparse(array_agg(w.term_no), array_agg(w.amount)) as features
        from weighted as w
        group by w.family
    ),
    postings as (
        select unnest(w.item_nos) as item_no, unnest(w.weights) as weight, w.amount
        from weighted as w
        where w.family <> 'grams'
    ),
    proposed as (
        select p.item_no
        from postings as p
        group by p.item_no
        order by sum(p.weight * p.amount) desc, p.item_no
        limit proposals
    )
    select
        -- A pair may be a word of the lexicon, too: its vector counts once.
        (
            select l2_normalize(sum(k.vec)) from known as k
            where k.vec is not null and (k.family <> 'pairs' or k.term <> all(v_words))
        ),
        (
            select internal.sparse(array_agg(s.term_no), array_agg(s.amount))
            from (select w.term_no, sum(w.amount) as amount from weighted as w group by w.term_no) as s
        ),
        (select array_agg(f.family order by f.family) from by_family as f),
        (select array_agg(f.features order by f.family) from by_family as f),
        array(select p.item_no from proposed as p),
        (select array_agg(k.term order by k.term) from known as k where k.family = 'words' and k.is_known)
    into vector, lexical, families, family_features, item_nos, matched;
    families := coalesce(families, '{}');
    family_features := coalesce(family_features, '{}');
    matched := coalesce(matched, '{}');
    return next;
end
$$;
comment on function internal.read_query(text, text, integer) is
'A query as search reads it: its vector, its sparse features (the sum of those of the families, weights included), the products that its words and pairs propose, best first, what was corrected, and the known words. Of a query the first 512 characters and 64 words are read; any text is read, null as an empty one.';

create or replace function internal.encode(of_release text, query text) returns halfvec
language plpgsql stable
set search_path to pg_catalog, public, pg_temp
as $$
declare
    v_tokens text[] := (internal.query_tokens(of_release, query)).tokens;
begin
    return (
        select l2_normalize(sum(t.vec))
        from serving.term as t
        where t.release_id = of_release
            and t.term = any(
                internal.word_terms(v_tokens) || internal.pair_terms(v_tokens) || internal.gram_terms(v_tokens)
            )
    );
end
$$;
comment on function internal.encode(text, text) is
'Query vector: the normalised sum of the vectors of its words, pairs and character n-grams, in the space of serving.item.text_vector; null if none is known.';

create or replace function internal.item_features(
    of_release text, title text, description text, brand text, categories text[]
)
returns table (text_vector halfvec, lexical sparsevec, key_terms text[])
language plpgsql stable rows 1
set search_path to pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    v_title text[] := array(select internal.stem(u.word) from unnest(internal.written(coalesce(title, ''))) as u (word));
    v_brand text[] := array(select internal.stem(u.word) from unnest(internal.written(coalesce(brand, ''))) as u (word));
    v_description text[] := array(
        select internal.stem(u.word) from unnest(internal.written(left(coalesce(description, ''), 20000))) as u (word)
    );
    v_name text[] := v_title || array(select b.token from unnest(v_brand) as b (token) where b.token <> all(v_title));
    v_length double precision := internal.weight(of_release, 'search_gram_length', 1);
    v_unknown double precision := internal.weight(of_release, 'search_unknown_idf', null);
begin
    with held as (
        select w.term, 1.0 as weight from unnest(internal.word_terms(v_title || v_brand)) as w (term)
        union all
        select p.term, 1.0 from unnest(internal.pair_terms(v_title) || internal.pair_terms(v_brand)) as p (term)
        union all
        select w.term, 0.5
        from unnest(categories) as c (category)
        cross join unnest(internal.word_terms(array(
            select internal.stem(u.word) from unnest(internal.written(c.category)) as u (word)
        ))) as w (term)
        union all
        select w.term, 0.25 from unnest(internal.word_terms(v_description)) as w (term)
    ),
    grams as (
        select g.term, count(*)::double precision as frequency, sum(count(*)) over () as length
        from unnest(v_name) as n (token)
        cross join unnest(internal.gram_terms(array[n.token])) as g (term)
        group by g.term
    ),
    asked as materialized (
        select h.term, max(h.weight) as weight, bool_or(h.weight = 1.0) as is_name from held as h group by h.term
        union all
        select g.term, g.frequency * 2.2 / (g.frequency + 1.2 * (0.25 + 0.75 * g.length / v_length)), true from grams as g
    ),
    known as materialized (
        select a.term, a.weight, a.is_name, t.vec, t.term_no, coalesce(t.idf, v_unknown) as idf
        from asked as a
        left join (
            select f.term, f.term_no, f.idf, f.vec from serving.term as f
            where f.release_id = of_release and f.term = any(array(select b.term from asked as b))
        ) as t on t.term = a.term
    ),
    telling as (
        select coalesce(k.term_no, internal.unknown_term_no(k.term)) as term_no, k.weight
        from known as k
        -- What the lexicon lacks is kept if it is a word.
        where k.term_no is not null or (left(k.term, 1) <> '#' and k.term = any(internal.word_terms(v_name)))
        order by k.weight * k.idf desc, k.term
        limit 400
    )
    select
        (select l2_normalize(sum(k.vec)) from known as k where k.is_name and k.vec is not null),
        (select internal.sparse(array_agg(t.term_no), array_agg(t.weight)) from telling as t),
        array(
            select k.term from known as k
            where k.is_name and k.term = any(internal.word_terms(v_name)) and length(k.term) > 1 and k.term !~ '^[0-9]'
            order by k.idf desc, k.term
            limit 8
        )
    into text_vector, lexical, key_terms;
    -- A direction that says nothing, for a product of unknown words alone.
    text_vector := coalesce(text_vector, array_fill((1 / sqrt(384))::real, array[384])::halfvec);
    lexical := coalesce(lexical, '{}/1000000000'::sparsevec);
    return next;
end
$$;
comment on function internal.item_features(text, text, text, text, text[]) is
'What a release would store of a product: its vector (from the query encoder, until the next release encodes it), its sparse vector, its telling words. Words that the lexicon lacks get numbers of their own.';
