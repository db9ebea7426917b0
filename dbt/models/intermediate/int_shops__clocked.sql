select
    shop,
    max(watermark) as watermark,
    bool_and(has_clock) as has_clock
from {{ source('raw', 'landing') }}
where state = 'complete'
group by shop
