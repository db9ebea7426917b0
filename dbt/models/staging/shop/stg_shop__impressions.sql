with source as (
    select * from {{ source('raw', 'impression') }}
),

landing as (
    select * from {{ source('raw', 'landing') }}
)

select
    source.shop,
    source.request_id,
    source.user_key,
    source.surface,
    source.variant,
    source.release_id,
    source.item_ids,
    source.served_at,
    source.landing_no
from source
inner join landing on source.landing_no = landing.landing_no
where landing.state = 'complete'
