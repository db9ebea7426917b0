"""Land what applications logged since the last landing: products, events and served lists."""

from __future__ import annotations

import hashlib
from contextlib import closing

from psycopg.types.json import Jsonb

from souk.errors import SoukError
from souk.landing import Connection, only_landing
from souk.postgres import connect

# What is taken is counted and named by its content; where a file brought a newer version of a product, that one stays.
# Events before products: a product that an event names was there before it, so the later statement sees it.
TAKE_OVER = {
    "event": """
        with taken as (
            update live.event set landing_no = %(landing_no)s where shop = %(shop)s and landing_no is null returning *
        ),
        landed as (
            insert into raw.event
            (shop, event_id, user_key, item_id, kind, event_at, session_id, request_id, landing_no)
            select
                t.shop, t.event_id, t.user_key, t.item_id, t.kind, t.event_at, t.session_id, t.request_id, t.landing_no
            from taken as t
            on conflict (shop, event_id) do nothing
            returning 1
        )
        select (select count(*) from landed), md5(string_agg(t.event_id, ',' order by t.event_id)) from taken as t
    """,
    "product": """
        with taken as (
            update live.item set landing_no = %(landing_no)s where shop = %(shop)s and landing_no is null returning *
        ),
        landed as (
            insert into raw.product
            (shop, item_id, title, description, brand, categories, price, currency, attributes, listed_at, landing_no)
            select
                t.shop, t.item_id, t.title, t.description, t.brand, t.categories, t.price, t.currency, t.attributes,
                t.upserted_at, t.landing_no
            from taken as t
            where not exists (
                select from raw.product as p inner join raw.landing as g on g.landing_no = p.landing_no
                where p.shop = t.shop and p.item_id = t.item_id and g.started_at >= t.upserted_at
            )
            on conflict (shop, item_id) do update set
                title = excluded.title, description = excluded.description, brand = excluded.brand,
                categories = excluded.categories, price = excluded.price, currency = excluded.currency,
                attributes = excluded.attributes, landing_no = excluded.landing_no
            returning 1
        )
        select (select count(*) from landed), md5(string_agg(t::text, ',' order by t.item_id))
        from (select item_id, title, description, brand, categories, price, currency, attributes, upserted_at
              from taken) as t
    """,
    "impression": """
        with taken as (
            delete from live.impression where shop = %(shop)s returning *
        ),
        landed as (
            insert into raw.impression
            (shop, request_id, user_key, surface, variant, release_id, item_ids, served_at, landing_no)
            select
                t.shop, t.request_id, t.user_key, t.surface, t.variant, t.release_id, t.item_ids, t.served_at,
                %(landing_no)s
            from taken as t
            on conflict (shop, request_id) do nothing
            returning 1
        )
        select (select count(*) from landed), md5(string_agg(t.request_id::text, ',' order by t.request_id))
        from taken as t
    """,
}


def land_live(dsn: str, shop: str) -> dict[str, int]:
    """Land what applications logged.

    It forms a landing of its own, named by its content. Products and events stay in `live.*`, marked with the landing,
    until a release that holds them is shown; lists are moved. Nothing new is no landing.

    Args:
        dsn: A migrated database.
        shop: A shop that has landed before.

    Returns:
        Rows of each kind that landed: product, event, impression.

    Raises:
        SoukError: Another process lands the same shop.
    """
    with closing(connect(dsn)) as connection:
        only_landing(connection, shop)
        counts = dict.fromkeys(TAKE_OVER, 0)
        if _is_waiting(connection, shop):
            row = connection.execute(
                "insert into raw.landing (shop, source, manifest_hash, is_generated, has_clock, state, completed_at)"
                " select shop, 'live', gen_random_uuid()::text, is_generated, has_clock, 'complete', now()"
                " from raw.landing where shop = %s and state = 'complete' order by landing_no desc limit 1"
                " returning landing_no",
                [shop],
            ).fetchone()
            if row is None:
                raise SoukError(f"The shop {shop} has not landed", "Land its data first.")
            parameters = {"shop": shop, "landing_no": row[0]}
            # Named after the one before, too: the same may happen again, as a list that is asked for twice by one id.
            before = connection.execute(
                "select manifest_hash from raw.landing where shop = %(shop)s and source = 'live'"
                " and landing_no < %(landing_no)s order by landing_no desc limit 1",
                parameters,
            ).fetchone()
            fingerprint = hashlib.sha256(str(before[0] if before else "").encode())
            for entity, statement in TAKE_OVER.items():
                (counts[entity], content), *_ = connection.execute(statement, parameters).fetchall()
                fingerprint.update(f"{entity}:{content}\n".encode())
            connection.execute(
                "update raw.landing set manifest_hash = %s, row_counts = %s,"
                " watermark = (select max(event_at) from raw.event where landing_no = %s) where landing_no = %s",
                [f"live-{fingerprint.hexdigest()}", Jsonb(counts), row[0], row[0]],
            )
        connection.commit()
    return counts


def _is_waiting(connection: Connection, shop: str) -> bool:
    row = connection.execute(
        "select exists (select from live.item where shop = %(shop)s and landing_no is null)"
        " or exists (select from live.event where shop = %(shop)s and landing_no is null)"
        " or exists (select from live.impression where shop = %(shop)s)",
        {"shop": shop},
    ).fetchone()
    return bool(row and row[0])
