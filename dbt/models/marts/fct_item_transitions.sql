{# Numbers that a query gives have no statistics: the planner would sort what is largest for every join by them. #}
{{ config(unique_key='shop', pre_hook='set local enable_mergejoin = off') }}
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

paired as (
    select
        weighed.*,
        low.damping as low_damping,
        high.damping as high_damping,
        low.held_damping as low_held_damping,
        high.held_damping as high_held_damping
    from weighed
    inner join items as low on weighed.low_no = low.item_no
    inner join items as high on weighed.high_no = high.item_no
),

valued as (
    select
        edges.is_held,
        edges.item_no,
        edges.next_item_no,
        edges.val::real as val
    from paired,
        lateral (
            values
            (
                false, paired.low_no, paired.high_no,
                (paired.upward + {{ reverse }} * paired.downward) * paired.low_damping * paired.high_damping
            ),
            (
                false, paired.high_no, paired.low_no,
                (paired.downward + {{ reverse }} * paired.upward) * paired.high_damping * paired.low_damping
            ),
            (
                true, paired.low_no, paired.high_no,
                (paired.held_upward + {{ reverse }} * paired.held_downward)
                * paired.low_held_damping * paired.high_held_damping
            ),
            (
                true, paired.high_no, paired.low_no,
                (paired.held_downward + {{ reverse }} * paired.held_upward)
                * paired.high_held_damping * paired.low_held_damping
            )
        ) as edges (is_held, item_no, next_item_no, val)
    where edges.val > 0
),

-- By number first and by cut as a boolean: a sort that compares the texts of cuts takes three times as long.
ranked as (
    select
        is_held,
        item_no,
        next_item_no,
        val,
        row_number() over (partition by item_no, is_held order by val desc, next_item_no asc) as place
    from valued
)

select
    source.shop,
    case when ranked.is_held then 'held' else 'all' end as cut,
    source.item_id,
    target.item_id as next_item_id,
    ranked.val
from ranked
inner join items as source on ranked.item_no = source.item_no
inner join items as target on ranked.next_item_no = target.item_no
where ranked.place <= {{ neighbours }}
