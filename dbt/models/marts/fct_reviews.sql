{{ config(
    unique_key=['shop', 'review_id'],
    indexes=[{'columns': ['shop', 'user_key']}, {'columns': ['shop', 'item_id']}],
) }}

select
    reviews.shop,
    reviews.review_id,
    reviews.user_key,
    reviews.item_id,
    reviews.rating,
    reviews.body,
    reviews.lang,
    reviews.sentiment,
    reviews.reviewed_at,
    reviews.landing_no
from {{ ref('stg_shop__reviews') }} as reviews
inner join {{ ref('stg_shop__products') }} as products
    on reviews.shop = products.shop and reviews.item_id = products.item_id
where {{ not_folded_in('reviews') }}
