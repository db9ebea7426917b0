{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    on_schema_change='fail',
    unique_key='shop',
    post_hook='analyze {{ this }}',
) }}

with facets as (
    select
        weights.shop,
        weights.user_key,
        weights.weight,
        facet.facet,
        facet.name
    from {{ ref('int_interactions__decayed') }} as weights
    inner join {{ ref('dim_items') }} as items on weights.shop = items.shop and weights.item_id = items.item_id
    cross join
        lateral (
            values
            ('category', items.leaf_category),
            ('brand', items.brand),
            ('price_band', items.price_band)
        ) as facet (facet, name)
    where facet.name is not null and {{ of_this_shop('weights.shop') }}
),

summed as (
    select
        shop,
        user_key,
        facet,
        name,
        sum(weight) as affinity
    from facets
    group by shop, user_key, facet, name
)

select
    shop,
    user_key,
    facet,
    name,
    affinity,
    affinity / sum(affinity) over (partition by shop, user_key, facet) as share
from summed
-- What a shopper dislikes or returns on balance is no interest.
where affinity > 0
