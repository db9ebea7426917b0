with source as (
    select * from {{ source('raw', 'product') }}
),

landing as (
    select * from {{ source('raw', 'landing') }}
)

select
    source.shop,
    source.item_id,
    source.title,
    source.description,
    source.brand,
    source.categories,
    source.price,
    source.currency,
    source.attributes,
    source.listed_at,
    source.landing_no
from source
inner join landing on source.landing_no = landing.landing_no
where landing.state = 'complete'
