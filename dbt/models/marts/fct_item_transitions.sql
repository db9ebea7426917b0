{{ config(unique_key='shop') }}
{# The numbers are those of `transitions` in ml/recommender/edges.py, and so is the order of every sum and product. #}
{% set max_gap, reverse, neighbours = 10, 0.5, 50 %}

with sequences as (
    select
        firsts.shop,
        cuts.cut,
        firsts.user_key,
        firsts.item_id,
        firsts.position
    from {{ ref('int_interactions__first_liked') }} as firsts
    inner join (values ('all', 0), ('held', 1)) as cuts (cut, held_out)
        on firsts.position <= firsts.item_count - cuts.held_out
    where {{ of_this_shop('firsts.shop') }}
),

dampings as (
    select
        shop,
        cut,
        item_id,
        power(count(*) + 1.0::double precision, -0.3) as damping
    from sequences
    group by shop, cut, item_id
),

followed as (
    select
        shop,
        cut,
        item_id,
        array[
            {% for gap in range(1, max_gap + 1) %}
            lead(item_id, {{ gap }}) over followers{{ "," if not loop.last }}
            {% endfor %}
        ] as next_item_ids
    from sequences
    window followers as (partition by shop, cut, user_key order by position)
),

counted as (
    select
        followed.shop,
        followed.cut,
        followed.item_id,
        later.item_id as next_item_id,
        later.gap,
        count(*) as times
    from followed
    cross join lateral unnest(followed.next_item_ids) with ordinality as later (item_id, gap)
    where later.item_id is not null
    group by followed.shop, followed.cut, followed.item_id, later.item_id, later.gap
),

forwards as (
    select
        shop,
        cut,
        item_id,
        next_item_id,
        sum(times * power(gap::double precision, -0.5) order by gap) as weight
    from counted
    group by shop, cut, item_id, next_item_id
),

both_ways as (
    select
        shop,
        cut,
        item_id,
        next_item_id,
        sum(weight) as weight
    from (
        select
            shop,
            cut,
            item_id,
            next_item_id,
            weight
        from forwards
        union all
        select
            shop,
            cut,
            next_item_id as item_id,
            item_id as next_item_id,
            {{ reverse }} * weight as weight
        from forwards
    ) as directions
    group by shop, cut, item_id, next_item_id
),

valued as (
    select
        pairs.shop,
        pairs.cut,
        pairs.item_id,
        pairs.next_item_id,
        (pairs.weight * source.damping * target.damping)::real as val
    from both_ways as pairs
    inner join dampings as source
        on pairs.shop = source.shop and pairs.cut = source.cut and pairs.item_id = source.item_id
    inner join dampings as target
        on pairs.shop = target.shop and pairs.cut = target.cut and pairs.next_item_id = target.item_id
),

ranked as (
    select
        *,
        row_number() over (
            partition by shop, cut, item_id
            order by val desc, next_item_id collate "C"
        ) as place
    from valued
)

select
    shop,
    cut,
    item_id,
    next_item_id,
    val
from ranked
where place <= {{ neighbours }}
