{# How much a kind of event says about taste, from -1 to 1. #}
{% macro strength_of(kind) -%}
    (
        case {{ kind }}
            when 'view' then 0.2
            when 'click' then 0.4
            when 'cart' then 0.7
            when 'purchase' then 1
            when 'dislike' then -1
            when 'return' then -0.7
        end
    )::real
{%- endmacro %}
