{#
    The grain of a model: no two rows share the key, and no part of it is null.
#}
{% test unique_key(model, columns) %}
select
    {{ columns | join(", ") }},
    count(*) as row_count
from {{ model }}
group by {{ columns | join(", ") }}
having count(*) > 1 or num_nulls({{ columns | join(", ") }}) > 0
{% endtest %}
