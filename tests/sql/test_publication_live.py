"""What applications change while a release is published, and while others change products."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.sql.conftest import publish_shop
from tests.sql.lists import call, ids
from tests.sql.test_api_live import upsert


def waits_for(connection, statement):
    """Wait until a statement waits for a lock."""
    for _ in range(200):
        [found] = connection.execute(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like %s"
            " and datname = current_database()",
            [f"%{statement}%"],
        ).fetchone()
        if found:
            return
        time.sleep(0.05)
    raise AssertionError(f"{statement} did not wait")


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "during"])
def test_a_product_that_changes_while_a_release_is_published_is_in_it(shop, database, tmp_path, is_first):
    with psycopg.connect(database) as application, ThreadPoolExecutor(1) as pool, psycopg.connect(database) as other:
        if is_first:
            upsert(application, "wok", "Zorbling wok")
            published = pool.submit(publish_shop, database, tmp_path, "shop-2")
            waits_for(shop, "publish_release")
            application.commit()
            assert published.result() == "published"
        else:
            publish_shop(database, tmp_path, "shop-2")
            other.execute("update serving.release set state = 'audited' where release_id = 'shop-1'")
            other.commit()
            other.execute("select internal.publish_release('shop-1')")
            added = pool.submit(upsert, application, "wok", "Zorbling wok")
            waits_for(shop, "upsert_product")
            other.commit()
            added.result()
            application.commit()
    rows = call(shop, "search", query="zorbling", k=1)
    assert (ids(rows), rows[0]["release_id"]) == (["wok"], "shop-2" if is_first else "shop-1")


def test_transactions_of_several_products_wait_for_each_other(shop, database):
    with psycopg.connect(database) as one, psycopg.connect(database) as two, ThreadPoolExecutor(1) as pool:
        upsert(one, "y", "Wok y")
        added = pool.submit(upsert, two, "x", "Wok x of two")
        waits_for(shop, "upsert_product")
        upsert(one, "x", "Wok x of one")
        one.commit()
        added.result()
        two.commit()
    assert shop.execute("select title from serving.item where item_id = 'x'").fetchone() == ("Wok x of two",)
