{{ config(unique_key='shop') }}

with items as (
    select
        shop,
        item_id,
        title,
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

flagged as (
    select
        items.shop,
        items.item_id,
        items.description = '' as is_empty,
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
        and {{ language_of('items.description') }} <> {{ language_of('items.title') }} as is_wrong_script
    from items
    left join repetitions on items.shop = repetitions.shop and items.item_id = repetitions.item_id
)

select
    *,
    case
        when is_empty then 0
        else greatest(
            0,
            1
            - 0.4 * is_too_short::integer
            - 0.5 * is_title_again::integer
            - 0.2 * has_html::integer
            - 0.5 * is_stuffed::integer
            - 0.4 * is_wrong_script::integer
        )
    end::real as score
from flagged
