-- A text, as terms: the same rules as ml/search/terms.py, tested against it.

create or replace function internal.normalise(input text) returns text
language sql immutable parallel safe
set search_path to pg_catalog, pg_temp
as $$
    -- Markup and entities are rare: the second pass is for them alone.
    with folded as (
        select normalize(regexp_replace(
            input,
            '[\u0001-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffd\U000e0000-\U000effff™®©℠]',
            '', 'g'
        ), nfkc) as body
    )
    select case
        when f.body !~ '[<&]' then f.body
        else regexp_replace(
            replace(replace(replace(replace(replace(replace(
                f.body, '&nbsp;', ' '), '&quot;', '"'), '&#39;', ''''), '&lt;', '<'), '&gt;', '>'), '&amp;', '&'),
            '</?[a-zA-Z][^<>]*>', ' ', 'g'
        )
    end
    from folded as f;
$$;
comment on function internal.normalise(text) is
'Text in NFKC, without invisible characters and tags, the common entities read: what ml.text.normalise does, but for rare entities.';

create or replace function internal.written(input text) returns text[]
language sql immutable parallel safe
set search_path to pg_catalog, pg_temp
as $$
    with plain as (
        select translate(lower(internal.normalise(input)), '⁄’''', '/') as body
    ),
    -- A tent for two is one for 2 people, and so is one for 双人 (a pair) and 两人 or 二人 (two).
    counted as (
        select case
            when p.body !~ '[单双两二三四五六八]人' then p.body
            else replace(replace(replace(replace(replace(replace(replace(replace(replace(
                p.body, '单人', '1人'), '双人', '2人'), '两人', '2人'), '二人', '2人'), '三人', '3人'),
                '四人', '4人'), '五人', '5人'), '六人', '6人'), '八人', '8人')
        end as body
        from plain as p
    )
    select coalesce(array_agg(coalesce(array_position(
        array['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven', 'twelve'], m.run[1]
    )::text, m.run[1]) order by m.place), '{}')
    from counted as c
    cross join lateral regexp_matches(
        c.body,
        '[\u3400-\u4dbf\u4e00-\u9fff\u1100-\u11ff\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff\uac00-\ud7a3]+|[0-9]+(?:[./][0-9]+)*|[^0-9\u0001-/:-@[-`{-\u00bf\u00d7\u00f7\u2000-\u206f\u20a0-\u20cf\u2100-\u2bff\u2e00-\u2e7f\u3000-\u3040\u30fb\ue000-\uf8ff\ufe00-\ufe6f\uff00-\uffff\U0001f000-\U0001faff\U000e0000-\U000effff\u3400-\u4dbf\u4e00-\u9fff\u1100-\u11ff\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff\uac00-\ud7a3]+',
        'g'
    ) with ordinality as m (run, place);
$$;
comment on function internal.written(text) is
'Runs of Chinese, Japanese or Korean characters, numbers (3/4, 1.5) and lower-case words of a text, in order; English numbers up to twelve and Chinese numbers of persons are digits.';

create or replace function internal.is_cjk(token text) returns boolean
language sql immutable parallel safe
as $$
    select token ~ '^[\u3400-\u4dbf\u4e00-\u9fff\u1100-\u11ff\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff\uac00-\ud7a3]';
$$;
comment on function internal.is_cjk(text) is 'Is a token written without spaces, so that its n-grams stand for its words?';

create or replace function internal.stem(word text) returns text
language sql immutable parallel safe
as $$
    select case
        when length(word) < 4 or word !~ 's$' then word
        when length(word) > 4 and word ~ 'ies$' then left(word, -3) || 'y'
        when word ~ '(xes|shes|ches|sses)$' then left(word, -2)
        when word ~ '(us|ss)$' then word
        else left(word, -1)
    end;
$$;
comment on function internal.stem(text) is 'A word without the ending of its plural (Harman''s S-stemmer): batteries is battery, boxes is box.';

create or replace function internal.word_terms(tokens text[]) returns text[]
language sql immutable parallel safe
as $$
    select coalesce(array_agg(distinct w.term), '{}')
    from unnest(tokens) as t (token)
    cross join lateral (
        select t.token as term where not internal.is_cjk(t.token)
        union all
        select substr(t.token, p.place, n.size)
        from generate_series(1, 3) as n (size)
        cross join lateral generate_series(1, length(t.token) - n.size + 1) as p (place)
        where internal.is_cjk(t.token)
    ) as w;
$$;
comment on function internal.word_terms(text[]) is 'The distinct terms that stand for words: stems, numbers, 1- to 3-grams of Chinese runs.';

create or replace function internal.pair_terms(tokens text[]) returns text[]
language sql immutable parallel safe
as $$
    select coalesce(array_agg(distinct case
        when concat(p.token, ' ', p.follower) ~ '(^| )[0-9]' then p.token || ' ' || p.follower
        else p.token || p.follower
    end), '{}')
    from (
        select t.token, lead(t.token) over (order by t.place) as follower
        from unnest(tokens) with ordinality as t (token, place)
    ) as p
    where p.follower is not null and not internal.is_cjk(p.token) and not internal.is_cjk(p.follower);
$$;
comment on function internal.pair_terms(text[]) is
'The distinct pairs of neighbours: two words as one (deck over is deckover), with a number a space between (18 v).';

create or replace function internal.gram_terms(tokens text[]) returns text[]
language sql immutable parallel safe
as $$
    select coalesce(array_agg(distinct '#' || substr(t.framed, p.place, n.size)), '{}')
    from (
        select '<' || u.token || '>' as framed from unnest(tokens) as u (token)
        where u.token !~ '^[0-9]' and not internal.is_cjk(u.token)
    ) as t
    cross join generate_series(3, 4) as n (size)
    cross join lateral generate_series(1, length(t.framed) - n.size + 1) as p (place);
$$;
comment on function internal.gram_terms(text[]) is 'The distinct character 3- and 4-grams of <word>, marked #.';
