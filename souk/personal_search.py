"""What shoppers chose from search results, and what they had before: where the weight of their interest comes from."""

from __future__ import annotations

from ml.search.personal import Choice
from souk.shoppers import Connection

MOST_CHOICES = 5_000


def read_choices(connection: Connection, shop: str) -> list[Choice]:
    """Return the newest searches of shoppers with a history in which something was chosen, at most 5,000.

    The history is what the shopper took before the search, at most 40 events of it. `item_place` must hold the places
    of the products in the catalogue.
    """
    rows = connection.execute(
        "with chosen as ("
        " select e.query_id, array_agg(distinct n.place) as places from marts.fct_interactions as e"
        " inner join item_place as n on n.item_id = e.item_id"
        " where e.shop = %(shop)s and e.query_id is not null and e.strength > 0 group by e.query_id)"
        " select s.query_text, hashtext(s.user_key), h.places, o.places, c.places"
        " from marts.fct_searches as s inner join chosen as c on c.query_id = s.query_id"
        " cross join lateral (select array_agg(t.place order by t.event_at, t.event_id) as places from ("
        "  select n.place, e.event_at, e.event_id from marts.fct_interactions as e"
        "  inner join item_place as n on n.item_id = e.item_id"
        "  where e.shop = s.shop and e.user_key = s.user_key and e.strength > 0 and e.event_at < s.searched_at"
        "  order by e.event_at desc, e.event_id desc limit 40) as t) as h"
        " cross join lateral (select array_agg(n.place order by l.position) as places"
        "  from unnest(s.shown_item_ids) with ordinality as l (item_id, position)"
        "  inner join item_place as n on n.item_id = l.item_id) as o"
        " where s.shop = %(shop)s and s.user_key is not null and h.places is not null and cardinality(o.places) > 1"
        " order by s.searched_at desc, s.query_id limit %(limit)s",
        {"shop": shop, "limit": MOST_CHOICES},
    ).fetchall()
    choices = []
    for query, shopper, history, shown, taken in rows:
        offered = list(dict.fromkeys([*shown, *taken]))
        chosen = [place for place, item in enumerate(offered) if item in set(taken)]
        choices.append(Choice(query, shopper, history, offered, chosen))
    return choices
