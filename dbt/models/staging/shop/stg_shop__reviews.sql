with source as (
    select * from {{ source('raw', 'review') }}
),

landing as (
    select * from {{ source('raw', 'landing') }}
)

select
    source.shop,
    source.review_id,
    source.user_key,
    source.item_id,
    source.rating,
    source.body,
    source.lang,
    source.sentiment,
    source.reviewed_at,
    source.landing_no
from source
inner join landing on source.landing_no = landing.landing_no
where landing.state = 'complete'
