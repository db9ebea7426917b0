"""A small shop, published: eight products, three shoppers."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from ml.recommender import Catalogue, fit
from ml.search import postings, token_table
from ml.text import lexical_terms
from souk import release
from souk.artefacts import write_release

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
USERS = {f"u1_{number:032x}": taken for number, taken in enumerate([[0, 2], [6], [4, 5, 0]])}
ANNA, BORIS, CHEN = USERS


def unit(text: str) -> np.ndarray:
    """A vector that texts with the same letters share; 384 numbers."""
    vector = np.zeros(384)
    for gram in (text[i : i + 2].lower() for i in range(len(text) - 1)):
        vector[hash_of(gram)] += 1
    return vector / max(np.linalg.norm(vector), 1e-9)


def hash_of(gram: str) -> int:
    return sum(ord(letter) * (index * 31 + 7) for index, letter in enumerate(gram)) % 384


def publish_shop(dsn: str, folder, name: str = "shop-1", titles: dict[str, str] | None = None, end=None) -> str:
    titles = titles or TITLES
    terms = [lexical_terms(title) for title in titles.values()]
    vectors = np.stack([unit(title) for title in titles.values()]).astype(np.float32)
    catalogue = Catalogue(list(titles), terms, vectors)
    sequences = {user: [i for i in taken if i < len(titles)] for user, taken in USERS.items()}
    model = fit(catalogue, [*sequences.values(), [0, 2, 3], [0, 2], [6, 7], [6, 7], [4, 5]])
    items = [
        {
            "title": title,
            "description": "",
            "brand": "Alpine" if "Alpine" in title else None,
            "categories": ["outdoor"] if i < 4 else ["other"],
            "price": None,
            "lang": "zh" if "茶" in title else "en",
            "key_terms": terms[i][:3],
        }
        for i, title in enumerate(titles.values())
    ]
    tokens = token_table(terms, vectors, lambda texts: np.stack([unit(t) for t in texts]).astype(np.float32), 0)
    seen = {user: [catalogue.item_ids[i] for i in taken] for user, taken in sequences.items()}
    write_release(folder / name, items, catalogue, model, postings(terms), tokens, sequences, seen, {})
    entry = release.Release(name, "shop", name, end, "test", True, True)
    release.load(dsn, entry, folder / name, sum(map(len, sequences.values())))
    release.mark_audited(dsn, name)
    return release.publish(dsn, name)


@pytest.fixture
def shop(database, tmp_path):
    """A connection to a database where the small shop is published."""
    assert publish_shop(database, tmp_path) == "published"
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection
