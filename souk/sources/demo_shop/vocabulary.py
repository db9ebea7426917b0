"""The words of the demo shop, read from `vocabulary.yaml` and `phrases.yaml` next to this file."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

Pair = tuple[str, str]
T = TypeVar("T")
LANGUAGES = ("en", "zh")
ENGLISH, CHINESE = 0, 1
WORDS = Path(__file__).with_name("vocabulary.yaml")
PHRASES = Path(__file__).with_name("phrases.yaml")


@dataclass(frozen=True)
class ProductType:
    """A kind of product; every pair is (English, Chinese).

    Attributes:
        name: What it is called.
        category: Index of its category.
        leaf: Name of its subcategory.
        price: Typical price in USD.
        spec: Name of its measurable attribute.
        values: Values of that attribute.
        traits: Adjectives that tell its products apart.
        features: Sentences about it.
        followed_by: Indices of the types that its buyers come back for.
        is_consumable: Whether it is bought again when it runs out.
        is_titled: Whether its products have titles of their own, as books do.
    """

    name: Pair
    category: int
    leaf: Pair
    price: float
    spec: Pair
    values: tuple[Pair, ...]
    traits: tuple[Pair, ...]
    features: tuple[Pair, ...]
    followed_by: tuple[int, ...]
    is_consumable: bool
    is_titled: bool


@dataclass(frozen=True)
class Category:
    """A top category; `season` is demand from January to June, `is_coloured` whether its products have a colour."""

    name: Pair
    brands: tuple[Pair, ...]
    uses: tuple[Pair, ...]
    aspects: tuple[Pair, ...]
    season: tuple[float, ...]
    is_coloured: bool


@dataclass(frozen=True)
class Vocabulary:
    """Everything the shop can say; `phrases` holds the lists of `phrases.yaml`."""

    categories: tuple[Category, ...]
    types: tuple[ProductType, ...]
    colours: tuple[Pair, ...]
    phrases: dict[str, Any]


class Picker:
    """Chooses from sequences by a stream of uniform numbers, so that all randomness can be drawn at once."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self._numbers: Iterator[float] = iter(numbers)

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return next(self._numbers) < probability

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(next(self._numbers) * len(options))]


@functools.cache
def load_vocabulary() -> Vocabulary:
    """Read both files."""
    words = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    phrases = yaml.safe_load(PHRASES.read_text(encoding="utf-8"))
    flat = [
        (number, leaf, kind)
        for number, category in enumerate(words["categories"])
        for leaf in category["leaves"]
        for kind in leaf["types"]
    ]
    index = {kind["name"][ENGLISH]: number for number, (_, _, kind) in enumerate(flat)}
    types = tuple(
        ProductType(
            name=_pair(kind["name"]),
            category=category,
            leaf=_pair(leaf["name"]),
            price=float(kind["price"]),
            spec=_pair(kind["spec"]["name"]),
            values=_pairs(kind["spec"]["values"]),
            traits=_pairs(kind["traits"]),
            features=_pairs(kind["features"]),
            followed_by=tuple(index[name] for name in kind.get("followed_by", [])),
            is_consumable=bool(kind.get("consumable")),
            is_titled=bool(kind.get("titled")),
        )
        for category, leaf, kind in flat
    )
    categories = tuple(
        Category(
            name=_pair(category["name"]),
            brands=_pairs(category["brands"]),
            uses=_pairs(category["uses"]),
            aspects=_pairs(category["aspects"]) + _pairs(phrases["shared_aspects"]),
            season=tuple(category["season"]),
            is_coloured=bool(category.get("coloured")),
        )
        for category in words["categories"]
    )
    return Vocabulary(categories, types, _pairs(words["colours"]), phrases)


def _pair(value: Sequence[str]) -> Pair:
    english, chinese = value
    return english, chinese


def _pairs(values: Sequence[Sequence[str]]) -> tuple[Pair, ...]:
    return tuple(_pair(value) for value in values)
