-- Shops deliver at least once: the same shopper, product, kind and instant under two ids is one event. The first to
-- land is kept, so that a repetition that lands later changes nothing.
with numbered as (
    select
        *,
        row_number() over (
            partition by shop, user_key, item_id, kind, event_at
            order by landing_no, event_id
        ) as delivery_no
    from {{ ref('stg_shop__events') }}
)

select
    shop,
    event_id,
    user_key,
    item_id,
    kind,
    event_at,
    session_id,
    query_id,
    quantity,
    landing_no
from numbered
where delivery_no = 1
