{#
    Language by script: zh, en or und. A Chinese character says about as much as three Latin letters, so a Chinese
    title stays Chinese with a Latin brand in it.
#}
{% macro language_of(text) -%}
    case
        when
            regexp_count({{ text }}, '[\u3400-\u9fff]') * 3
            >= greatest(length(regexp_replace({{ text }}, '[^A-Za-z]+', '', 'g')), 1)
            then 'zh'
        when {{ text }} ~ '[A-Za-z]' then 'en'
        else 'und'
    end
{%- endmacro %}


{# Compatible characters made one, white space collapsed: texts that read the same are the same. #}
{% macro normalised(text) -%}
    trim(regexp_replace(normalize({{ text }}, nfkc), '\s+', ' ', 'g'))
{%- endmacro %}
