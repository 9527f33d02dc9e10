{#- The operator with its schema: it is found whatever the session's search_path is. -#}
{% macro cosine_distance(one, other) -%}
    {{ one }} operator({{ var('pgvector_schema') }}.<=>) {{ other }}
{%- endmacro %}
