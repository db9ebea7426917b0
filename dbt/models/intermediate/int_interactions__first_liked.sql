-- Time order is by instant and then by id, byte by byte: whoever sorts the same events gets the same sequences.
with liked as (
    select
        shop,
        user_key,
        item_id,
        event_at,
        event_id,
        row_number() over (
            partition by shop, user_key, item_id
            order by event_at, event_id collate "C"
        ) as occurrence
    from {{ ref('fct_interactions') }}
    where strength > 0
)

select
    shop,
    user_key,
    item_id,
    row_number() over (
        partition by shop, user_key
        order by event_at, event_id collate "C"
    ) as position,
    count(*) over (partition by shop, user_key) as item_count
from liked
where occurrence = 1
