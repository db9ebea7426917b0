with source as (
    select * from {{ source('raw', 'event') }}
),

landing as (
    select * from {{ source('raw', 'landing') }}
)

select
    source.shop,
    source.event_id,
    source.user_key,
    source.item_id,
    source.kind,
    source.event_at,
    source.session_id,
    source.query_id,
    source.quantity,
    source.request_id,
    source.landing_no
from source
inner join landing on source.landing_no = landing.landing_no
where landing.state = 'complete'
