{{ config(unique_key='shop') }}

with items as (
    select
        shop,
        item_id,
        title,
        attributes,
        {{ normalised('description') }} as description
    from {{ ref('dim_items') }}
    where {{ of_this_shop() }}
),

-- Words that carry a topic: Latin words of four letters or more and, Chinese being written without spaces, every pair
-- of neighbouring Chinese characters.
tokens as (
    select
        items.shop,
        items.item_id,
        word.token
    from items
    cross join lateral unnest(regexp_split_to_array(lower(items.description), '[^a-z]+')) as word (token)
    where length(word.token) >= 4
    union all
    select
        chinese.shop,
        chinese.item_id,
        substr(chinese.characters, place.start, 2) as token
    from (
        select
            shop,
            item_id,
            regexp_replace(description, '[^\u3400-\u9fff]+', '', 'g') as characters
        from items
    ) as chinese
    cross join lateral generate_series(1, length(chinese.characters) - 1) as place (start)
),

repetitions as (
    select
        shop,
        item_id,
        max(occurrences) as most,
        sum(occurrences) as total
    from (
        select
            shop,
            item_id,
            count(*) as occurrences
        from tokens
        group by shop, item_id, token
    ) as counted
    group by shop, item_id
),

-- Sentences of twelve characters or more that at least five products share.
sentences as (
    select
        items.shop,
        items.item_id,
        length(items.description) as whole,
        lower(trim(sentence.body)) as body
    from items
    cross join lateral regexp_split_to_table(items.description, '[.!?;]+(?:\s|$)|[。！？；]') as sentence (body)
    where length(trim(sentence.body)) >= 12
),

boilerplate as (
    select
        shop,
        item_id,
        sum(length(body)) > 0.5 * max(whole) as is_most
    from (
        select
            *,
            count(*) over (partition by shop, body) as products
        from (select distinct
            shop,
            item_id,
            whole,
            body
        from sentences) as told
    ) as counted
    where products >= 5
    group by shop, item_id
),

-- Attributes that are a number with a unit: "500 ml", "18V", "3 人".
measured as (
    select
        items.shop,
        items.item_id,
        amount.part[1] as amount,
        lower(amount.part[2]) as unit,
        items.description
    from items
    cross join lateral jsonb_each_text(items.attributes) as attribute (name, value)
    cross join
        lateral regexp_match(
            {{ normalised('attribute.value') }}, '^([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]{1,12}|[\u3400-\u9fff]{1,3})$'
        ) as amount (part)
    where amount.part is not null
),

contradicted as (
    select
        shop,
        item_id,
        bool_or(others > 0 and own = 0) as is_contradicted
    from (
        select
            measured.shop,
            measured.item_id,
            measured.unit,
            count(*) filter (where said.part[1]::numeric = measured.amount::numeric) as own,
            count(*) filter (where said.part[1]::numeric <> measured.amount::numeric) as others
        from measured
        cross join
            lateral regexp_matches(
                lower(measured.description),
                '([0-9]+(?:\.[0-9]+)?)\s*' || measured.unit || '(?![a-z])', 'g'
            ) as said (part)
        group by measured.shop, measured.item_id, measured.unit
    ) as compared
    group by shop, item_id
),

flagged as (
    select
        items.shop,
        items.item_id,
        items.description = '' as is_missing,
        items.description <> ''
        and regexp_replace(items.description, '<[^<>]*>|&[a-z]+;|&#[0-9]+;', '', 'g')
        ~* '^([^[:alnum:]\u3400-\u9fff]*|n/?a|none|null|nil|tbd|无|暂无|暂无描述|待补充)[.。]?$' as is_empty,
        items.description <> ''
        and regexp_count(items.description, '[A-Za-z0-9]+')
        + regexp_count(items.description, '[\u3400-\u9fff]') / 2.0 < 6 as is_too_short,
        items.description <> ''
        and regexp_replace(lower(items.description), '[^[:alnum:]]+', '', 'g')
        = regexp_replace(lower({{ normalised('items.title') }}), '[^[:alnum:]]+', '', 'g') as is_title_again,
        items.description ~* '</?[a-z][^<>]*>|&(amp|lt|gt|quot|nbsp|#[0-9]+);|\{\{|\]\]>' as has_html,
        coalesce(repetitions.most >= 4 and repetitions.most > 0.25 * repetitions.total, false) as is_stuffed,
        items.description ~ '[A-Za-z\u3400-\u9fff]'
        and items.title ~ '[A-Za-z\u3400-\u9fff]'
        and {{ language_of('items.description') }} <> {{ language_of('items.title') }} as is_wrong_script,
        coalesce(boilerplate.is_most, false) as is_boilerplate,
        coalesce(contradicted.is_contradicted, false) as contradicts_attributes
    from items
    left join boilerplate on items.shop = boilerplate.shop and items.item_id = boilerplate.item_id
    left join contradicted on items.shop = contradicted.shop and items.item_id = contradicted.item_id
    left join repetitions on items.shop = repetitions.shop and items.item_id = repetitions.item_id
)

select
    *,
    case
        when is_missing or is_empty then 0
        else greatest(
            0,
            1
            - 0.4 * is_too_short::integer
            - 0.5 * is_title_again::integer
            - 0.2 * has_html::integer
            - 0.5 * is_stuffed::integer
            - 0.4 * is_wrong_script::integer
            - 0.4 * is_boilerplate::integer
            - 0.4 * contradicts_attributes::integer
        )
    end::real as score
from flagged
