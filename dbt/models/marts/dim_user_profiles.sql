{{ config(unique_key='shop') }}

with interactions as (
    select
        events.shop,
        events.user_key,
        max(events.event_at) as last_event_at,
        count(*) as event_count,
        count(*) filter (where events.kind = 'purchase') as purchase_count,
        mode() within group (order by items.lang) filter (where items.lang <> 'und') as lang
    from {{ ref('fct_interactions') }} as events
    inner join {{ ref('dim_items') }} as items on events.shop = items.shop and events.item_id = items.item_id
    where not events.is_late and {{ of_this_shop('events.shop') }}
    group by events.shop, events.user_key
),

searches as (
    select
        shop,
        user_key,
        count(*) as search_count,
        mode() within group (order by lang) filter (where lang <> 'und') as lang
    from {{ ref('fct_searches') }}
    where user_key is not null and {{ of_this_shop() }}
    group by shop, user_key
),

reviews as (
    select
        shop,
        user_key,
        count(*) as review_count,
        avg(sentiment) as sentiment
    from {{ ref('fct_reviews') }}
    where {{ of_this_shop() }}
    group by shop, user_key
),

users as (
    select
        shop,
        user_key
    from interactions
    union
    select
        shop,
        user_key
    from searches
    union
    select
        shop,
        user_key
    from reviews
),

rounded as (
    select
        shop,
        user_key,
        facet,
        name,
        share,
        round(share::numeric, 6) as part
    from {{ ref('int_users__interests_summed') }}
    -- What is left of an interest after many half-lives, or of one that a return has undone, may round to nothing.
    where round(share::numeric, 6) > 0 and {{ of_this_shop() }}
),

interests as (
    select
        shop,
        user_key,
        jsonb_object_agg(name, part) filter (where facet = 'category') as by_category,
        jsonb_object_agg(name, part) filter (where facet = 'brand') as by_brand,
        (array_agg(name order by share desc, name asc) filter (where facet = 'price_band'))[1] as price_band
    from rounded
    group by shop, user_key
)

select
    users.shop,
    users.user_key,
    coalesce(interests.by_category, '{}') as interests_category,
    coalesce(interests.by_brand, '{}') as interests_brand,
    interests.price_band,
    interactions.last_event_at,
    case
        when clocks.has_clock
            then round((extract(epoch from clocks.watermark - interactions.last_event_at) / 86400)::numeric, 3)
    end as recency_days,
    coalesce(interactions.event_count, 0) as event_count,
    coalesce(interactions.purchase_count, 0) as purchase_count,
    coalesce(searches.search_count, 0) as search_count,
    coalesce(reviews.review_count, 0) as review_count,
    reviews.sentiment::real as sentiment,
    coalesce(searches.lang, interactions.lang, 'und') as lang
from users
inner join {{ ref('int_shops__clocked') }} as clocks on users.shop = clocks.shop
left join interactions on users.shop = interactions.shop and users.user_key = interactions.user_key
left join searches on users.shop = searches.shop and users.user_key = searches.user_key
left join reviews on users.shop = reviews.shop and users.user_key = reviews.user_key
left join interests on users.shop = interests.shop and users.user_key = interests.user_key
