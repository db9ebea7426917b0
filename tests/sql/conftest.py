"""A small shop, published: eight products, three shoppers."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from functools import cache

import numpy as np
import psycopg
import pytest

from ml.recommender import Catalogue, fit
from ml.recommender.category import Category
from ml.recommender.fusion import recent
from ml.search import Document, SearchIndex, build_index
from ml.text import lexical_terms
from souk import release
from souk.artefacts import Shopper, write_release

pytest.register_assert_rewrite("tests.sql.lists")

TITLES = {
    "tent-2": "Alpine tent for two",
    "tent-4": "Alpine tent for four",
    "bag": "Alpine sleeping bag",
    "stove": "Camping gas stove",
    "tea": "龙井绿茶 礼盒",
    "cup": "陶瓷茶杯",
    "drill": "Cordless drill 18V",
    "bits": "Drill bit set 18 pieces",
}
IDS = list(TITLES)
PRICES = {"tent-2": Decimal("129.90"), "drill": Decimal("12500.00")}
ATTRIBUTES = {"tent-2": {"colour": "green", "persons": 2}, "drill": {"colour": "blue", "volts": 18}}
USERS = {f"u1_{number:032x}": taken for number, taken in enumerate([[0, 2], [6], [4, 5, 0]])}
ANNA, BORIS, CHEN = USERS
DISLIKED = {BORIS: [3], CHEN: [6, 7]}
PRAISE = {CHEN: "龙井绿茶"}
COMPLAINT = {CHEN: "Cordless drill"}
END = date(2026, 5, 31)


def unit(text: str) -> np.ndarray:
    """A vector that texts with the same letters share; 384 numbers."""
    vector = np.zeros(384)
    for gram in (text[i : i + 2].lower() for i in range(len(text) - 1)):
        vector[hash_of(gram)] += 1
    return vector / max(np.linalg.norm(vector), 1e-9)


def units(texts: list[str]) -> np.ndarray:
    return np.stack([unit(text) for text in texts]).astype(np.float32)


def hash_of(gram: str) -> int:
    return sum(ord(letter) * (index * 31 + 7) for index, letter in enumerate(gram)) % 384


@cache
def search_index(texts: tuple[tuple[str, str, tuple[str, ...]], ...]) -> SearchIndex:
    """The index of titles, brands and categories, made once."""
    documents = [Document(title, "", brand, categories) for title, brand, categories in texts]
    return build_index(documents, units([document.title for document in documents]), units)


def publish_shop(
    dsn: str,
    folder,
    name: str = "shop-1",
    titles: dict[str, str] | None = None,
    end=None,
    shop: str = "shop",
    landing_no: int | None = None,
) -> str:
    titles = titles or TITLES
    terms = [lexical_terms(title) for title in titles.values()]
    catalogue = Catalogue(list(titles), terms, units(list(titles.values())))
    sequences = {user: [i for i in taken if i < len(titles)] for user, taken in USERS.items()}
    model = fit(catalogue, [*sequences.values(), [0, 2, 3], [0, 2], [6, 7], [6, 7], [4, 5]])
    items = [
        {
            "title": title,
            "description": "",
            "brand": "Alpine" if "Alpine" in title else None,
            "categories": ["outdoor"] if i < 4 else ["other"],
            "price": PRICES.get(item),
            "attributes": ATTRIBUTES.get(item, {}),
            "lang": "zh" if "茶" in title else "en",
            "key_terms": terms[i][:3],
        }
        for i, (item, title) in enumerate(titles.items())
    ]
    shoppers = {
        user: Shopper(
            history=recent(taken),
            seen=[*taken, *(i for i in DISLIKED.get(user, []) if i < len(titles))],
            disliked=[i for i in DISLIKED.get(user, []) if i < len(titles)],
            praise=unit(PRAISE[user]) if user in PRAISE else None,
            complaint=unit(COMPLAINT[user]) if user in COMPLAINT else None,
            profile={"event_count": len(taken)},
        )
        for user, taken in sequences.items()
    }
    categories = [
        Category(source, name, bias, unit(text))
        for source in ("query", "user")
        for name, bias, text in (("outdoor", 0.2, "Alpine tent"), ("other", -0.2, "龙井绿茶 drill"))
    ]
    days = [(END, 0, 3), (END, len(titles) - 1, 1), (END.replace(day=24), 0, 2)]
    texts = tuple((item["title"], item["brand"] or "", tuple(item["categories"])) for item in items)
    originals = {"bits": "Bits of steel."} if "bits" in titles else {}
    index = search_index(texts)
    write_release(folder / name, shop, items, catalogue, model, index, shoppers, categories, days, originals)
    entry = release.Release(name, shop, name, end, "test", True, True, landing_no)
    release.load(dsn, entry, folder / name, sum(map(len, sequences.values())))
    release.mark_audited(dsn, name)
    return release.publish(dsn, name)


@pytest.fixture
def shop(database, tmp_path):
    """A connection to a database where the small shop is published."""
    assert publish_shop(database, tmp_path) == "published"
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def read_shop(module_database, tmp_path_factory):
    """As `shop`, one for a whole file: for tests that write nothing."""
    assert publish_shop(module_database, tmp_path_factory.mktemp("shop")) == "published"
    with psycopg.connect(module_database, autocommit=True) as connection:
        yield connection
