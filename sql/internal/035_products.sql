-- Products that applications add: written into a release, so that every list treats them as its own.

create or replace function internal.language(body text) returns text
language sql immutable parallel safe
set search_path to pg_catalog, pg_temp
as $$
    with counted as (
        select
            regexp_count(body, '[\u3400-\u4dbf\u4e00-\u9fff]') as han,
            regexp_count(body, '[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]') as latin,
            regexp_count(body, '[\u1100-\u11ff\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff\uac00-\ud7a3]') as kana,
            regexp_count(body, '[[:alpha:]]') as letters
    )
    select case
        when c.letters = 0 or 10 * c.kana > c.letters then 'und'
        when 3 * c.han >= greatest(c.latin, 3 * (c.letters - c.han - c.latin)) then 'zh'
        when c.latin >= c.letters - c.han - c.latin then 'en'
        else 'und'
    end
    from counted as c;
$$;
comment on function internal.language(text) is 'zh, en or und by the scripts of the letters: ml.text.detect_language.';

create or replace function internal.put_item(of_shop text, into_release text, of_item text) returns void
language plpgsql volatile
set search_path to pg_catalog, public, pg_temp
as $$
declare
    v_new live.item;
    v_old serving.item;
    v_given text;
    v_features record;
    v_number integer;
begin
    -- One at a time: each takes the next number.
    perform pg_advisory_xact_lock(hashtext('souk.put_item'), hashtext(into_release));
    select l.* into v_new from live.item as l where l.shop = of_shop and l.item_id = of_item;
    select i.* into v_old from serving.item as i where i.release_id = into_release and i.item_id = of_item;
    select coalesce(o.description, v_old.description) into v_given
    from (values (v_old.item_no)) as n (item_no)
    left join serving.original as o on o.release_id = into_release and o.item_no = n.item_no;
    if
        (v_old.title, v_given, v_old.brand, v_old.categories)
        is not distinct from (v_new.title, v_new.description, v_new.brand, v_new.categories)
    then
        -- The same texts keep the vector that the encoder made, and what the refiner made of them.
        update serving.item as i
        set price = v_new.price, attributes = v_new.attributes, is_available = v_new.is_available
        where i.release_id = into_release and i.item_no = v_old.item_no;
        return;
    end if;
    select f.text_vector, f.lexical, f.key_terms into v_features
    -- What comes later in a long text hardly moves its vector.
    from internal.item_features(
        into_release, left(v_new.title, 1000), left(v_new.description, 5000), v_new.brand, v_new.categories
    ) as f;
    v_number := coalesce(
        v_old.item_no, (select max(i.item_no) + 1 from serving.item as i where i.release_id = into_release), 0
    );
    delete from serving.original as o where o.release_id = into_release and o.item_no = v_number;
    insert into serving.item as i (
        release_id, item_no, item_id, title, description, brand, categories, price, attributes, lang, key_terms,
        popularity, is_available, text_vector, lexical
    )
    values (
        into_release, v_number, of_item, v_new.title, v_new.description, v_new.brand, v_new.categories, v_new.price,
        v_new.attributes, internal.language(v_new.title || ' ' || v_new.description), v_features.key_terms,
        coalesce(v_old.popularity, 0), v_new.is_available, v_features.text_vector, v_features.lexical
    )
    on conflict (release_id, item_no) do update set
        title = excluded.title, description = excluded.description, brand = excluded.brand,
        categories = excluded.categories, price = excluded.price, attributes = excluded.attributes,
        lang = excluded.lang, key_terms = excluded.key_terms, is_available = excluded.is_available,
        text_vector = excluded.text_vector, lexical = excluded.lexical, is_refined = false;
    perform internal.put_postings(
        into_release, v_number, concat_ws(' ', v_new.title, v_new.brand, array_to_string(v_new.categories, ' '))
    );
    perform internal.put_edges(into_release, v_number, v_features.text_vector);
    perform internal.put_sequence_vectors(into_release, v_number);
end
$$;
comment on function internal.put_item(text, text, text) is
'Write a product of live.item into a release: itself, its words, its neighbours by text, and vectors of the sequence model made of theirs. Its vector is made of its words until the encoder has seen it.';

create or replace function internal.put_sequence_vectors(into_release text, number integer) returns void
language plpgsql volatile
set search_path to pg_catalog, public, pg_temp
as $$
begin
    update serving.item as i
    set
        sequence_input = m.input,
        sequence_output = (
            l2_normalize(m.direction) * array_fill(m.length::real, array[256])::vector
            || array[m.bias::real]::vector
        )::halfvec
    from (
        select
            avg(n.sequence_input::vector)::halfvec as input,
            avg(subvector(n.sequence_output::vector, 1, 256)) as direction,
            avg(vector_norm(subvector(n.sequence_output::vector, 1, 256))) as length,
            avg(-(subvector(n.sequence_output::vector, 257, 1) <#> '[1]')) as bias
        from serving.edge as e
        cross join lateral unnest(e.dst[:10]) as near (item_no)
        inner join serving.item as n on n.release_id = into_release and n.item_no = near.item_no
        where e.release_id = into_release and e.src = number and e.kind = 'encoder' and n.sequence_output is not null
    ) as m
    -- What shoppers have taught the release of a product stays when its texts change.
    where i.release_id = into_release and i.item_no = number and i.sequence_output is null and m.input is not null;
end
$$;
comment on function internal.put_sequence_vectors(text, integer) is
'Give a product that training has not seen the mean of the sequence vectors of the ten nearest by text.';

create or replace function internal.put_postings(into_release text, number integer, body text) returns void
language plpgsql volatile
set search_path to pg_catalog, pg_temp
as $$
declare
    v_stems text[] := array(select internal.stem(w.word) from unnest(internal.written(left(body, 2000))) as w (word));
    v_terms text[] := internal.word_terms(v_stems) || internal.pair_terms(v_stems);
begin
    -- In front: what is new is a candidate of each of its words, whatever their postings hold.
    update serving.term as t
    set
        item_nos = (number || array_remove(t.item_nos, number))[:300],
        weights = (t.weights[1] || case
            when array_position(t.item_nos, number) is null then t.weights
            else t.weights[:array_position(t.item_nos, number) - 1] || t.weights[array_position(t.item_nos, number) + 1:]
        end)[:300]
    where t.release_id = into_release and t.term = any(v_terms) and cardinality(t.item_nos) > 0;
    insert into serving.term (release_id, term, term_no, documents, idf, item_nos, weights)
    select
        into_release, w.term, internal.unknown_term_no(w.term), 1,
        internal.weight(into_release, 'search_unknown_idf', null), array[number], array[1]
    from unnest(v_terms) as w (term)
    on conflict do nothing;
end
$$;
comment on function internal.put_postings(text, integer, text) is
'Make a product a candidate of the words and pairs of its title, brand and categories; words that the lexicon lacks are added to it.';

create or replace function internal.put_edges(into_release text, number integer, of_vector halfvec) returns void
language plpgsql volatile
set search_path to pg_catalog, public, pg_temp
as $$
declare
    v_near integer[];
    v_cosines real[];
    v_before integer[];
begin
    select e.dst into v_before
    from serving.edge as e where e.release_id = into_release and e.src = number and e.kind = 'encoder';
    select array_agg(n.item_no order by n.score desc, n.item_no), array_agg(n.score order by n.score desc, n.item_no)
    into v_near, v_cosines
    from internal.nearest(into_release, of_vector, array[number], 50, '{}') as n
    where n.score > 0;
    -- Where its texts have changed, those that it was near to before forget it.
    update serving.edge as e
    set dst = m.dst, val = m.val
    from unnest(v_before) as b (src)
    cross join lateral (
        select
            coalesce(array_agg(u.item_no order by u.place), '{}') as dst, coalesce(array_agg(u.val order by u.place), '{}') as val
        from serving.edge as o
        cross join lateral unnest(o.dst, o.val) with ordinality as u (item_no, val, place)
        where o.release_id = into_release and o.src = b.src and o.kind = 'encoder' and u.item_no <> number
    ) as m
    where e.release_id = into_release and e.src = b.src and e.kind = 'encoder' and number = any(e.dst);
    if v_near is null then
        return;
    end if;
    insert into serving.edge as e (release_id, src, kind, dst, val)
    values (into_release, number, 'encoder', v_near, v_cosines)
    on conflict (release_id, src, kind) do update set dst = excluded.dst, val = excluded.val;
    -- And back: where it is nearer than the last of the neighbour's own neighbours.
    update serving.edge as e
    set dst = m.dst, val = m.val
    from unnest(v_near, v_cosines) as n (src, cosine)
    cross join lateral (
        select
            (array_agg(b.item_no order by b.val desc, b.item_no))[:50] as dst,
            (array_agg(b.val order by b.val desc, b.item_no))[:50] as val
        from (
            select u.item_no, u.val
            from serving.edge as o
            cross join lateral unnest(o.dst, o.val) as u (item_no, val)
            where o.release_id = into_release and o.src = n.src and o.kind = 'encoder' and u.item_no <> number
            union all
            select number, n.cosine
        ) as b
    ) as m
    where e.release_id = into_release and e.src = n.src and e.kind = 'encoder';
end
$$;
comment on function internal.put_edges(text, integer, halfvec) is
'Join a product to its 50 nearest by text, in both directions.';

create or replace function internal.restore_original(of_shop text, of_item text) returns boolean
language plpgsql volatile
set search_path to pg_catalog, pg_temp
as $$
begin
    with given as (
        delete from serving.original as o
        using serving.pointer as p, serving.item as i
        where p.shop = of_shop and i.release_id = p.release_id and i.item_id = of_item
            and o.release_id = p.release_id and o.item_no = i.item_no
        returning o.release_id, o.item_no, o.description
    )
    update serving.item as i
    set description = g.description, is_refined = false
    from given as g
    where i.release_id = g.release_id and i.item_no = g.item_no;
    return found;
end
$$;
comment on function internal.restore_original(text, text) is
'Show the shop''s own description of a product again, at once, in the release that readers see; the next run makes its vector anew. Tells whether there was another.';
