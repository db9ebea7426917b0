{{ config(
    unique_key=['shop', 'event_id'],
    indexes=[{'columns': ['shop', 'user_key']}, {'columns': ['shop', 'landing_no']}],
) }}

with arrived as (
    select
        events.*,
        clocks.has_clock
    from {{ ref('int_events__deduplicated') }} as events
    inner join {{ ref('stg_shop__products') }} as products
        on events.shop = products.shop and events.item_id = products.item_id
    inner join {{ ref('int_shops__clocked') }} as clocks on events.shop = clocks.shop
    where {{ not_folded_in('events') }}
),

{% if is_incremental() %}
known as (
    select * from {{ this }}
    where shop = {{ this_shop() }}
),

known_watermark as (
    select max(event_at) as watermark from known
),

dated as (
    select
        arrived.*,
        -- An event that lands again keeps its id and its lateness: it is not late for having been corrected.
        coalesce(known.event_id, arrived.event_id) as lasting_id,
        coalesce(
            known.is_late,
            arrived.has_clock
            and arrived.event_at < known_watermark.watermark - make_interval(days => {{ var('late_days') }}),
            false
        ) as is_late
    from arrived
    cross join known_watermark
    left join known
        on
            arrived.user_key = known.user_key
            and arrived.item_id = known.item_id
            and arrived.kind = known.kind
            and arrived.event_at = known.event_at
)
{% else %}
dated as (
    select
        *,
        event_id as lasting_id,
        false as is_late
    from arrived
)
{% endif %}

select
    shop,
    lasting_id as event_id,
    user_key,
    item_id,
    kind,
    {{ strength_of('kind') }} as strength,
    event_at,
    session_id,
    query_id,
    quantity,
    is_late,
    landing_no
from dated
