{{ config(unique_key='shop') }}
{# The numbers are those of `transitions` in ml/recommender/edges.py, and so is the order of every sum and product. #}
{% set max_gap, reverse, neighbours = 10, 0.5, 50 %}
{% set decay = 'power(gap::double precision, -0.5)' %}

with firsts as (
    select
        shop,
        user_key,
        item_id,
        position,
        item_count
    from {{ ref('int_interactions__first_liked') }}
    where {{ of_this_shop() }}
),

-- Numbered in the order of their ids: pairs are many, and sorted by numbers several times as fast as by texts.
items as (
    select
        shop,
        item_id,
        row_number() over (order by shop, item_id collate "C")::integer as item_no,
        power(count(*) + 1.0::double precision, -0.3) as damping,
        power(count(*) filter (where position < item_count) + 1.0::double precision, -0.3) as held_damping
    from firsts
    group by shop, item_id
),

followed as (
    select
        firsts.position,
        firsts.item_count,
        items.item_no,
        array[
            {% for gap in range(1, max_gap + 1) %}
            lead(items.item_no, {{ gap }}) over followers{{ "," if not loop.last }}
            {% endfor %}
        ] as next_item_nos
    from firsts
    inner join items on firsts.shop = items.shop and firsts.item_id = items.item_id
    window followers as (partition by firsts.shop, firsts.user_key order by firsts.position)
),

-- Both directions of a pair, and both cuts, side by side: one sort of what is largest serves all.
counted as (
    select
        least(followed.item_no, later.item_no) as low_no,
        greatest(followed.item_no, later.item_no) as high_no,
        followed.item_no < later.item_no as is_upward,
        later.gap,
        count(*) as times,
        count(*) filter (where followed.position + later.gap < followed.item_count) as held_times
    from followed
    cross join lateral unnest(followed.next_item_nos) with ordinality as later (item_no, gap)
    where later.item_no is not null
    group by low_no, high_no, later.gap, is_upward
),

weighed as (
    select
        low_no,
        high_no,
        coalesce(sum(times * {{ decay }} order by gap) filter (where is_upward), 0) as upward,
        coalesce(sum(times * {{ decay }} order by gap) filter (where not is_upward), 0) as downward,
        coalesce(sum(held_times * {{ decay }} order by gap) filter (where is_upward), 0) as held_upward,
        coalesce(sum(held_times * {{ decay }} order by gap) filter (where not is_upward), 0) as held_downward
    from counted
    group by low_no, high_no
),

directed as (
    select edges.*
    from weighed,
        lateral (
            values
            ('all', weighed.low_no, weighed.high_no, weighed.upward + {{ reverse }} * weighed.downward),
            ('all', weighed.high_no, weighed.low_no, weighed.downward + {{ reverse }} * weighed.upward),
            ('held', weighed.low_no, weighed.high_no, weighed.held_upward + {{ reverse }} * weighed.held_downward),
            ('held', weighed.high_no, weighed.low_no, weighed.held_downward + {{ reverse }} * weighed.held_upward)
        ) as edges (cut, item_no, next_item_no, weight)
    where edges.weight > 0
),

valued as (
    select
        directed.cut,
        directed.item_no,
        directed.next_item_no,
        case directed.cut
            when 'all' then directed.weight * source.damping * target.damping
            else directed.weight * source.held_damping * target.held_damping
        end::real as val
    from directed
    inner join items as source on directed.item_no = source.item_no
    inner join items as target on directed.next_item_no = target.item_no
),

ranked as (
    select
        cut,
        item_no,
        next_item_no,
        val,
        row_number() over (partition by cut, item_no order by val desc, next_item_no asc) as place
    from valued
)

select
    source.shop,
    ranked.cut,
    source.item_id,
    target.item_id as next_item_id,
    ranked.val
from ranked
inner join items as source on ranked.item_no = source.item_no
inner join items as target on ranked.next_item_no = target.item_no
where ranked.place <= {{ neighbours }}
