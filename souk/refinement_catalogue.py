"""What the refiner knows of a shop's products: the marts, their newest reviews, and what shoppers speak of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from ml.refiner import Product
from ml.text import key_terms
from souk.postgres import connect
from souk.refinement_effect import read_queries

REVIEWS = 5
# What a review says of a product it says at its beginning; checking takes the square of the length.
LONGEST_REVIEW = 2_000
ASPECTS = 12


def read_catalogue(dsn: str, shop: str) -> tuple[list[Product], dict[str, str]]:
    """Return the products of the marts with attributes, reviews and aspects, and their text hashes, by item_id."""
    with closing(connect(dsn)) as connection:
        rows = connection.execute(
            "select item_id, title, description, coalesce(brand, ''), categories, attributes, text_hash"
            ' from marts.dim_items where shop = %s order by item_id collate "C"',
            [shop],
        ).fetchall()
        reviews: dict[str, list[str]] = defaultdict(list)
        for item, body in connection.execute(
            "select item_id, left(body, %s) from (select item_id, body, row_number() over"
            " (partition by item_id order by reviewed_at desc nulls last, review_id) as place from marts.fct_reviews"
            " where shop = %s and body <> '')"
            " as newest where place <= %s order by item_id, place",
            [LONGEST_REVIEW, shop, REVIEWS],
        ).fetchall():
            reviews[item].append(body)
        asked = read_queries(connection, shop, held_out=False)
    leaf = {row[0]: row[4][-1] if row[4] else "" for row in rows}
    aspects = _aspects(leaf, reviews, asked)
    products = [
        Product(item, title, text, brand, tuple(categories), named_attributes(given), tuple(reviews[item]),
                aspects.get(leaf[item], ()))
        for item, title, text, brand, categories, given, _ in rows
    ]  # fmt: skip
    return products, {row[0]: row[6] for row in rows}


def named_attributes(given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what a shop says of a product as names and values, lists as repeated names."""
    found = []
    for name, value in sorted(given.items()):
        parts = value if isinstance(value, list) else [value]
        found += [(name, str(part)) for part in parts if isinstance(part, (str, int, float)) and str(part).strip()]
    return tuple(found)


def _aspects(
    leaf: Mapping[str, str], reviews: Mapping[str, Sequence[str]], asked: Sequence[tuple[str, str]]
) -> dict[str, tuple[str, ...]]:
    """Return the words that reviews and searches of a leaf category mention most, by category; each in three texts."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    texts = [(item, body) for item, bodies in reviews.items() for body in bodies]
    texts += [(item, words) for words, item in asked]
    for item, text in texts:
        if item in leaf:
            counts[leaf[item]].update(set(key_terms(text)))
    return {
        name: tuple(term for term, n in sorted(found.items(), key=lambda pair: (-pair[1], pair[0])) if n >= 3)[:ASPECTS]
        for name, found in counts.items()
    }
