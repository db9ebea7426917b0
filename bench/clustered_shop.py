"""A generated shop of any size for measurements: clustered vectors, and texts, shoppers and a graph that follow them.

Every product belongs to one of about √n clusters. Its vector is the cluster's centre plus a step in a few directions
that all clusters share plus noise, so that neighbours differ as those of a text encoder do: neither all alike nor all
equally far. Words, categories, neighbours and histories come from the cluster; popularity and words follow Zipf's law.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ml.recommender import Catalogue, Edges, Recommender
from ml.recommender.category import Category
from ml.recommender.fusion import HISTORY, TERMS
from ml.search import Document
from souk.artefacts import SEQUENCE_DIMENSION, Shopper

DIMENSION = 384
DIRECTIONS, STEP, NOISE = 48, 1.2, 0.35
NEIGHBOURS = {"encoder": 50, "tfidf": 50, "transition": 50, "cooccurrence": 30}
# Of the sequence model: 1/τ, and how far whom a product suits is from what it says of a shopper.
SHARPNESS, BLUR = 10, 0.5
COMMON_WORDS, CLUSTER_WORDS = 3000, 40
CHINESE_SHARE, NEW_SHARE = 0.3, 0.1
# Three brands of known size, for filters that let this share through; the others share the rest.
BRANDS = {"onepermille": 0.001, "onepercent": 0.01, "tenpercent": 0.1}
OTHER_BRANDS = 2000
USERS = 50_000
CONSONANTS, VOWELS = "bcdfghjklmnpqrtvwxyz", "aeiou"


@dataclass
class ClusteredShop:
    """The parts of a release.

    Attributes:
        size: Number of products.
        seed: Everything is drawn from it.
    """

    size: int
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        n_clusters = max(8, round(self.size**0.5))
        centres = rng.standard_normal((n_clusters, DIMENSION), dtype=np.float32)
        self.centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
        self.cluster = rng.integers(0, n_clusters, self.size).astype(np.int32)
        order = np.argsort(self.cluster, kind="stable").astype(np.int32)
        self.members = np.split(order, np.searchsorted(self.cluster[order], np.arange(1, n_clusters)))
        directions = np.linalg.qr(rng.standard_normal((DIMENSION, DIRECTIONS)))[0].T.astype(np.float32)
        self.vectors = np.empty((self.size, DIMENSION), np.float16)
        for first in range(0, self.size, 50_000):
            of = self.cluster[first : first + 50_000]
            vectors = self.centres[of]
            steps = rng.standard_normal((len(of), DIRECTIONS), dtype=np.float32) / np.float32(DIRECTIONS**0.5)
            vectors = vectors + STEP * steps @ directions
            vectors += rng.standard_normal(vectors.shape, dtype=np.float32) * np.float32(NOISE / DIMENSION**0.5)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            self.vectors[first : first + len(of)] = vectors
        events = np.floor(self.size / rng.permutation(np.arange(1, self.size + 1)))
        events[rng.random(self.size) < NEW_SHARE] = 0
        heat = np.log1p(events)
        self.popularity = (heat / heat.max()).astype(np.float32)
        self.item_ids = [f"p{number}" for number in range(self.size)]
        self._name(rng)

    def _name(self, rng: np.random.Generator) -> None:
        """Draw titles, descriptions, brands, prices."""
        n_words = COMMON_WORDS + CLUSTER_WORDS * len(self.centres)
        self._english = [_english(number) for number in rng.permutation(100**3)[:n_words].tolist()]
        characters = rng.integers(0x4E00, 0x4E00 + 4000, (n_words, 2))
        self._chinese = ["".join(map(chr, pair)) for pair in characters.tolist()]
        self.is_chinese = rng.random(self.size) < CHINESE_SHARE
        self._title_length = rng.integers(6, 13, self.size)
        self._words = _zipf(rng, COMMON_WORDS, (self.size, 20), 0.9).astype(np.int32)
        own = _zipf(rng, CLUSTER_WORDS, (self.size, 20), 0.7) + COMMON_WORDS + CLUSTER_WORDS * self.cluster[:, None]
        is_own = rng.random((self.size, 20)) < 0.45
        self._words[is_own] = own[is_own]
        shares = np.array([*BRANDS.values(), *[(1 - sum(BRANDS.values())) / OTHER_BRANDS] * OTHER_BRANDS])
        self._brands = [*BRANDS, *(_english(number) for number in range(900_000, 900_000 + OTHER_BRANDS))]
        self.brand = rng.choice(len(shares), self.size, p=shares / shares.sum())
        self.price = np.round(np.exp(rng.normal(3.5, 1.2, self.size)), 2)

    def title(self, item: int) -> str:
        """Return a title of 6 to 12 words; Chinese words are written in pairs."""
        return self._text(item, slice(0, int(self._title_length[item])))

    def document(self, item: int) -> Document:
        """Return the texts of a product."""
        brand = self._brands[self.brand[item]]
        return Document(self.title(item), self._text(item, slice(12, None)), brand, self._categories(item))

    def _text(self, item: int, places: slice) -> str:
        words = self._words[item, places].tolist()
        if not self.is_chinese[item]:
            return " ".join(self._english[word] for word in words)
        written = [self._chinese[word] for word in words]
        return " ".join("".join(written[at : at + 2]) for at in range(0, len(written), 2))

    def _categories(self, item: int) -> list[str]:
        cluster = int(self.cluster[item])
        return [f"Department {cluster % 20}", f"Shelf {cluster}"]

    def items(self) -> Iterator[dict[str, object]]:
        """Yield the products as `write_release` takes them."""
        for item in range(self.size):
            document = self.document(item)
            yield {
                "title": document.title,
                "description": document.description,
                "brand": document.brand,
                "categories": list(document.categories),
                "price": Decimal(f"{self.price[item]:.2f}"),
                "attributes": {"colour": ("red", "green", "blue", "white")[item % 4], "size": item % 10},
                "lang": "zh" if self.is_chinese[item] else "en",
                "key_terms": document.title.split()[:5],
            }

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the direction of the clusters whose words a text holds; noise where it holds none: (m, 384)."""
        found = np.zeros((len(texts), DIMENSION), np.float32)
        for row, text in enumerate(texts):
            parts = text.split() if text.isascii() else [text[at : at + 2] for at in range(len(text) - 1)]
            for part in parts:
                if (cluster := self._owner.get(part)) is not None:
                    found[row] += self.centres[cluster]
        empty = ~found.any(axis=1)
        noise = np.random.default_rng(self.seed).standard_normal((int(empty.sum()), DIMENSION))
        found[empty] = noise / np.linalg.norm(noise, axis=1, keepdims=True)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    @cached_property
    def _owner(self) -> dict[str, int]:
        return {
            word: (number - COMMON_WORDS) // CLUSTER_WORDS
            for words in (self._english, self._chinese)
            for number, word in enumerate(words)
            if number >= COMMON_WORDS
        }

    def queries(self, count: int) -> list[str]:
        """Return what is typed: 2 to 5 words of a product's title, every tenth English query with a letter missing."""
        rng = np.random.default_rng(self.seed + 1)
        queries = []
        for item in rng.integers(0, self.size, count).tolist():
            title = self.title(item)
            if self.is_chinese[item]:
                queries.append(" ".join(title.split()[: int(rng.integers(1, 3))]))
                continue
            words = rng.permutation(title.split())[: int(rng.integers(2, 6))].tolist()
            if rng.random() < 0.1:
                place = int(rng.integers(1, len(words[0])))
                words[0] = words[0][:place] + words[0][place + 1 :]
            queries.append(" ".join(words))
        return queries

    def recommender(self) -> Recommender:
        """Return the graph: nearest within the cluster by text, and what is drawn there by popularity."""
        rng = np.random.default_rng(self.seed + 2)
        found: dict[str, list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]]]
        found = {kind: [] for kind in NEIGHBOURS}
        heat = np.expm1(self.popularity * 8) + 0.01
        for members in self.members:
            vectors = self.vectors[members].astype(np.float32)
            drawn = np.log(heat[members])[None, :]
            size = (len(members), len(members))
            scores = {
                "encoder": vectors @ vectors.T,
                "tfidf": vectors[:, ::4] @ vectors[:, ::4].T * 3,
                "transition": drawn + rng.gumbel(size=size).astype(np.float32),
                "cooccurrence": drawn + rng.gumbel(size=size).astype(np.float32),
            }
            for kind, score in scores.items():
                found[kind].append(_nearest(score, members, NEIGHBOURS[kind], rng, kind in ("encoder", "tfidf")))
        edges = {}
        for kind in NEIGHBOURS:
            src, dst, val = map(np.concatenate, zip(*found.pop(kind), strict=True))
            by_source = np.argsort(src, kind="stable")
            edges[kind] = Edges(src[by_source], dst[by_source], val[by_source])
        weights = {
            (term, first): weight
            for term, weight in zip(TERMS, (6.0, 1.2, 0.4, 0.6, 0.8), strict=True)
            for first in (1, 6)
        }
        inputs, outputs = self._sequence_model(rng)
        places = 0.7 ** np.arange(HISTORY, dtype=np.float32)
        return Recommender(
            self.item_ids,
            edges,
            self.popularity,
            weights,
            text_vectors=self.vectors,
            features=np.zeros((0, SEQUENCE_DIMENSION), np.float32),
            inputs=inputs,
            outputs=outputs,
            position_weights=np.repeat(places[:, None], SEQUENCE_DIMENSION, axis=1),
        )

    def _sequence_model(self, rng: np.random.Generator) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Return input and output vectors: those of the texts in fewer dimensions, blurred; the bias follows events."""
        rotation, _ = np.linalg.qr(rng.standard_normal((DIMENSION, SEQUENCE_DIMENSION)))
        inputs = np.empty((self.size, SEQUENCE_DIMENSION), np.float16)
        outputs = np.empty((self.size, SEQUENCE_DIMENSION + 1), np.float16)
        for first in range(0, self.size, 50_000):
            rows = slice(first, first + 50_000)
            mixed = self.vectors[rows].astype(np.float32) @ rotation.astype(np.float32)
            mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
            inputs[rows] = mixed
            mixed += rng.standard_normal(mixed.shape, dtype=np.float32) * np.float32(BLUR / SEQUENCE_DIMENSION**0.5)
            outputs[rows, :-1] = SHARPNESS * mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
            outputs[rows, -1] = self.popularity[rows] - 0.5
        return inputs, outputs

    def catalogue(self) -> Catalogue:
        """Return the names of the products; training is not what is measured."""
        return Catalogue(self.item_ids, [], np.zeros((0, DIMENSION), np.float32))

    def shoppers(self) -> dict[str, Shopper]:
        """Return shoppers with products of one to three clusters, some of them more often than others."""
        rng = np.random.default_rng(self.seed + 3)
        shoppers = {}
        for user in range(USERS):
            liked: list[int] = []
            for cluster in rng.integers(0, len(self.centres), int(rng.integers(1, 4))).tolist():
                members = self.members[cluster]
                place = rng.random(int(rng.geometric(0.2))) ** 2 * len(members)
                liked.extend(members[place.astype(int)].tolist())
            liked = rng.permutation(list(dict.fromkeys(liked))).tolist()
            disliked = rng.integers(0, self.size, 2).tolist() if user % 10 == 0 else []
            disliked = [item for item in dict.fromkeys(disliked) if item not in liked]
            praise = self.vectors[liked[0]] if user % 10 == 1 and liked else None
            shoppers[user_key(user)] = Shopper(
                liked[:20], liked + disliked, disliked, praise, None, {"events": len(liked)}
            )
        return shoppers

    def categories(self) -> list[Category]:
        """Return a category model that knows the clusters' centres."""
        return [
            Category(source, f"Shelf {number}", 0.0, centre)
            for source in ("query", "user")
            for number, centre in enumerate(self.centres)
        ]


def user_key(user: int) -> str:
    """Return the pseudonym of a shopper."""
    return f"u1_{user:032x}"


def describe(shop: ClusteredShop) -> str:
    """Return what was generated, in one line."""
    facts = {"products": shop.size, "clusters": len(shop.centres), "shoppers": USERS, "directions": DIRECTIONS}
    return f"generated data: {json.dumps(facts)}, step {STEP}, noise {NOISE}, seed {shop.seed}"


def _nearest(
    score: NDArray[np.float32], members: NDArray[np.int32], top: int, rng: np.random.Generator, is_similarity: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Return the `top` best of each row but itself: src, dst, val, the best first."""
    size = len(score)
    np.fill_diagonal(score, -np.inf)
    top = min(top, size - 1)
    best = np.argpartition(-score, top - 1, axis=1)[:, :top] if top > 0 else np.zeros((size, 0), int)
    value = np.take_along_axis(score, best, axis=1)
    order = np.argsort(-value, axis=1)
    best, value = np.take_along_axis(best, order, axis=1), np.take_along_axis(value, order, axis=1)
    if not is_similarity:
        value = -np.sort(-(rng.random(value.shape) ** 2), axis=1)
    val = np.maximum(value, 1e-3).astype(np.float32).ravel()
    return np.repeat(members, best.shape[1]), members[best].ravel(), val


def _zipf(rng: np.random.Generator, size: int, shape: tuple[int, ...], exponent: float) -> NDArray[np.int64]:
    share = np.cumsum(np.arange(1, size + 1) ** -exponent)
    return np.searchsorted(share, rng.random(shape, dtype=np.float32) * share[-1]).clip(0, size - 1)


def _english(number: int) -> str:
    syllables = []
    for _ in range(3):
        number, syllable = divmod(number, 100)
        syllables.append(CONSONANTS[syllable // 5] + VOWELS[syllable % 5])
    return "".join(syllables)
