"""Products for tests of the refiner, and false claims planted into what is true of them."""

import json
import os
from functools import cache
from pathlib import Path

import pytest

from ml.refiner.product import Product
from souk.sources.demo_shop import open_demo_shop


def _data(folder: str) -> Path:
    path = Path(os.environ.get("SOUK_DATA", "")) / folder
    if "SOUK_DATA" not in os.environ or not path.is_dir():
        pytest.skip(f"SOUK_DATA has no {folder}")
    return path


@cache
def demo_shop() -> tuple[list[Product], dict[str, str]]:
    """Return the products of the demo shop and how good each description was made."""
    shop = open_demo_shop(1, 0)
    kinds = {item: str(truth["description"]) for item, truth in shop.truth()["items"].items()}
    products = [
        Product(
            row["item_id"], row["title"], row["description"], row["brand"] or "", tuple(row["categories"]),
            tuple(row["attributes"].items()), (),
        )
        for chunk in shop.products()
        for row in chunk
    ]  # fmt: skip
    return products, kinds


def scientific() -> list[Product]:
    """Return the products of amazon-scientific."""
    with (_data("amazon-scientific") / "items.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Product(
            str(row["item_id"]),
            row["title"] or "",
            row["description"] or "",
            row["brand"] or "",
            tuple(row["categories"]),
            (),
            (),
        )
        for row in rows
    ]


def adcopy() -> list[Product]:
    """Return the products of zh-adcopy: attributes and an advertisement."""
    with (_data("zh-adcopy") / "dev.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    products = []
    for place, row in enumerate(rows):
        attributes = tuple(tuple(pair.split("#", 1)) for pair in row["content"].split("*"))
        title = "".join(value for _, value in attributes[:3])
        products.append(Product(f"ad-{place}", title, row["summary"], "", (), attributes, ()))
    return products
