{{ config(unique_key='shop') }}

with products as (
    select
        *,
        categories[cardinality(categories)] as leaf_category,
        {{ language_of("title || ' ' || description") }} as lang,
        -- Fields are parted by a character that no text holds.
        md5(concat_ws(
            chr(31),
            {{ normalised('title') }},
            {{ normalised('description') }},
            {{ normalised("coalesce(brand, '')") }},
            {{ normalised("array_to_string(categories, '>')") }}
        )) as text_hash
    from {{ ref('stg_shop__products') }}
    where {{ of_this_shop() }}
),

ranked as (
    select
        shop,
        item_id,
        -- Middle rank in (0, 1): ties share it, and an only product stands in the middle.
        (
            cume_dist() over peers
            + (rank() over peers - 1.0) / count(*) over (partition by shop, currency, categories[1])
        ) / 2 as price_rank
    from products
    where price is not null
    window peers as (partition by shop, currency, categories[1] order by price)
),

counts as (
    select
        shop,
        item_id,
        count(*) as event_count,
        count(*) filter (where kind = 'purchase') as purchase_count
    from {{ ref('fct_interactions') }}
    where {{ of_this_shop() }}
    group by shop, item_id
)

select
    products.shop,
    products.item_id,
    products.title,
    products.description,
    products.brand,
    products.categories,
    products.leaf_category,
    products.price,
    case
        when ranked.price_rank < 1.0 / 3 then 'low'
        when ranked.price_rank <= 2.0 / 3 then 'middle'
        when ranked.price_rank <= 1 then 'high'
    end as price_band,
    products.currency,
    products.attributes,
    products.listed_at,
    products.lang,
    coalesce(counts.event_count, 0) as event_count,
    coalesce(counts.purchase_count, 0) as purchase_count,
    products.text_hash
from products
left join ranked on products.shop = ranked.shop and products.item_id = ranked.item_id
left join counts on products.shop = counts.shop and products.item_id = counts.item_id
