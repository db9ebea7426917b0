{#
    Every row finds its row in another model, by columns of the same names. Rows with a null among them are free.
#}
{% test foreign_key(model, to, columns) %}
select distinct {{ columns | join(", ") }}
from {{ model }} as child
where
    num_nulls({{ columns | join(", ") }}) = 0
    and not exists (
        select 1 from {{ to }} as parent
        where {% for column in columns %}parent.{{ column }} = child.{{ column }}{% if not loop.last %} and {% endif %}{% endfor %}
    )
{% endtest %}
