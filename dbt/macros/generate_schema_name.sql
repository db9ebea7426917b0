{# Schemas are named as configured, without a prefix: nobody shares a database between targets. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name or target.schema }}
{%- endmacro %}
