{{ config(
    unique_key=['shop', 'request_id', 'position'],
    indexes=[{'columns': ['shop', 'landing_no']}],
) }}

-- Lists that arrived, and lists that events arrived for: what is chosen may land after the list that it is in.
with touched as (
    select
        impressions.shop,
        impressions.request_id
    from {{ ref('stg_shop__impressions') }} as impressions
    where {{ not_folded_in('impressions') }}
    union
    select
        events.shop,
        events.request_id
    from {{ ref('stg_shop__events') }} as events
    where events.request_id is not null and {{ not_folded_in('events') }}
),

served as (
    select
        impressions.*,
        listed.item_id,
        listed.position::integer as position
    from {{ ref('stg_shop__impressions') }} as impressions
    inner join touched on impressions.shop = touched.shop and impressions.request_id = touched.request_id
    cross join lateral unnest(impressions.item_ids) with ordinality as listed (item_id, position)
),

chosen as (
    select
        events.shop,
        events.request_id,
        events.item_id,
        bool_or(events.kind in ('view', 'click', 'cart', 'purchase')) as is_clicked,
        bool_or(events.kind = 'purchase') as is_bought,
        max(events.landing_no) as landing_no
    from {{ ref('stg_shop__events') }} as events
    inner join touched on events.shop = touched.shop and events.request_id = touched.request_id
    inner join {{ ref('stg_shop__impressions') }} as impressions
        on events.shop = impressions.shop and events.request_id = impressions.request_id
    where events.event_at < impressions.served_at + interval '24 hours'
    group by events.shop, events.request_id, events.item_id
)

select
    served.shop,
    served.request_id,
    served.position,
    served.item_id,
    served.user_key,
    served.surface,
    served.variant,
    served.release_id,
    served.served_at,
    coalesce(chosen.is_clicked, false) as is_clicked,
    coalesce(chosen.is_bought, false) as is_bought,
    greatest(served.landing_no, chosen.landing_no) as landing_no
from served
left join chosen
    on served.shop = chosen.shop and served.request_id = chosen.request_id and served.item_id = chosen.item_id
