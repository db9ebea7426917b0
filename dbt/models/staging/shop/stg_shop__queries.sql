with source as (
    select * from {{ source('raw', 'query') }}
),

landing as (
    select * from {{ source('raw', 'landing') }}
)

select
    source.shop,
    source.query_id,
    source.user_key,
    source.session_id,
    source.query_text,
    source.lang,
    source.searched_at,
    source.shown_item_ids,
    source.landing_no
from source
inner join landing on source.landing_no = landing.landing_no
where landing.state = 'complete'
