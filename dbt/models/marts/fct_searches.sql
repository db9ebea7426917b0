{{ config(unique_key=['shop', 'query_id'], indexes=[{'columns': ['shop', 'user_key']}]) }}

select
    shop,
    query_id,
    user_key,
    session_id,
    query_text,
    lang,
    searched_at,
    shown_item_ids,
    cardinality(shown_item_ids) as shown_count,
    landing_no
from {{ ref('stg_shop__queries') }} as arrived
where {{ not_folded_in('arrived') }}
