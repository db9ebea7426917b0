-- The half-life runs back from the shop's watermark and not from now: the same rows always give the same weights.
with aged as (
    select
        interactions.shop,
        interactions.event_id,
        interactions.user_key,
        interactions.item_id,
        interactions.strength,
        case
            when clocks.has_clock
                then
                    extract(epoch from clocks.watermark - interactions.event_at)::double precision
                    / (86400 * {{ var('half_life_days') }})
            else 0
        end as half_lives
    from {{ ref('fct_interactions') }} as interactions
    inner join {{ ref('int_shops__clocked') }} as clocks on interactions.shop = clocks.shop
    where not interactions.is_late
)

select
    shop,
    event_id,
    user_key,
    item_id,
    -- Beyond about a thousand halvings a double underflows, which Postgres refuses.
    strength * power(0.5::double precision, least(half_lives, 1000)) as weight
from aged
