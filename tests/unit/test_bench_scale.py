"""The benchmark of scale: that its shop lands like any other, and that only like is compared with like."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bench.clustered_shop import ClusteredShop
from bench.scale import Cost, growth
from bench.shop_export import DAYS, FIRST_DAY, write_export
from souk.sources.files import open_files


def test_the_export_is_a_shop_whose_events_name_its_products(tmp_path):
    shop = ClusteredShop(200)
    write_export(shop, tmp_path, "scale", 1_000)
    dataset = open_files(tmp_path)
    products = [row for chunk in dataset.products() for row in chunk]
    events = [row for chunk in dataset.events() for row in chunk]
    assert dataset.shop == "scale"
    assert [row["item_id"] for row in products] == shop.item_ids
    assert all(row["title"] and row["categories"] and row["price"] for row in products)
    assert len({row["event_id"] for row in events}) == 1_000
    assert {row["item_id"] for row in events} <= set(shop.item_ids)
    assert len({row["user_id"] for row in events}) == 100
    assert all(FIRST_DAY <= row["event_at"] < FIRST_DAY + timedelta(days=DAYS) for row in events)


def test_growth_leaves_out_what_was_replaced():
    costs = [
        Cost(10, "land", 10, 9.0, 1.0, 0, 0),
        Cost(10, "encode", 10, 9.0, 5.0, 0, 0),
        Cost(100, "land", 100, 9.0, 12.0, 0, 0),
        Cost(100, "encode", 100, 9.0, 1.0, 0, 0, is_replaced=True),
    ]
    assert growth(costs) == {(10, 100): pytest.approx(12.0)}
    assert growth(costs[:2]) == {}
