{#
    The values of a jsonb object of shares lie in (0, 1] and sum to 1; an empty object is free.
#}
{% test shares_sum_to_one(model, column_name) %}
select
    {{ column_name }},
    total
from {{ model }}
cross join lateral (
    select
        sum(value::numeric) as total,
        min(value::numeric) as least
    from jsonb_each_text({{ column_name }})
) as shares
where abs(total - 1) > 0.001 or least <= 0
{% endtest %}
