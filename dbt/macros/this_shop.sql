{# The shop of this run, as a literal. #}
{% macro this_shop() -%}
    '{{ var("shop") | replace("'", "''") }}'
{%- endmacro %}


{#
    Keep the shop of this run. A table that is built whole, the first time or on a full refresh, holds every shop:
    keeping only one would drop the others.
#}
{% macro of_this_shop(column="shop") -%}
    {% if is_incremental() %}{{ column }} = {{ this_shop() }}{% else %}true{% endif %}
{%- endmacro %}


{#
    Keep the landings that the table does not hold yet. A set and not a maximum: a landing that was interrupted and
    resumed completes after one with a higher number.
#}
{% macro not_folded_in(arrived) -%}
    {% if is_incremental() -%}
        {{ arrived }}.shop = {{ this_shop() }}
        and {{ arrived }}.landing_no not in (select landing_no from {{ this }} where shop = {{ this_shop() }})
    {%- else -%}
        true
    {%- endif %}
{%- endmacro %}
