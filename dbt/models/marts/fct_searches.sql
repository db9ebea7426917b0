{{ config(unique_key=['shop', 'query_id'], indexes=[{'columns': ['shop', 'user_key']}]) }}

select
    searches.shop,
    searches.query_id,
    searches.user_key,
    searches.session_id,
    searches.query_text,
    searches.lang,
    searches.searched_at,
    searches.shown_item_ids,
    cardinality(searches.shown_item_ids) as shown_count,
    searches.landing_no
from {{ ref('stg_shop__queries') }} as searches
where {{ not_folded_in('searches') }}
