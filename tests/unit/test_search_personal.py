"""How much a shopper's interest counts in search."""

from __future__ import annotations

import numpy as np
import pytest

from ml.search import Document, SearchIndex, build_index
from ml.search.personal import Choice, fit_personal

CATEGORIES = ("tea", "tent")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Sixty products of two kinds, each near the axis of its kind."""
    chance = np.random.default_rng(0)
    vectors = 0.1 * chance.normal(size=(60, 8))
    vectors[np.arange(60), np.arange(60) % 2] += 1
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def index(vectors: np.ndarray) -> SearchIndex:
    documents = [Document(f"gift {CATEGORIES[n % 2]} no{n}", "", "", []) for n in range(60)]
    return build_index(documents, vectors, lambda texts: np.ones((len(texts), 8), np.float32) / np.sqrt(8))


def choices(n: int, loyalty: float) -> list[Choice]:
    """Searches for a gift; with probability `loyalty` the chosen product is of the kind that the shopper had."""
    chance = np.random.default_rng(1)
    made = []
    for shopper in range(n):
        kind = shopper // 2 % 2
        taken = kind if chance.random() < loyalty else 1 - kind
        offered = chance.permutation(60)[:10].tolist()
        chosen = [place for place, item in enumerate(offered) if item % 2 == taken][:1]
        if chosen:
            made.append(Choice("gift", shopper, [kind, kind + 2], offered, chosen))
    return made


def test_interest_counts_where_shoppers_follow_it(index: SearchIndex, vectors: np.ndarray) -> None:
    fitted = fit_personal(index, vectors, choices(400, 0.95))
    assert fitted.choices > 300
    assert fitted.weight > 0.5
    assert fitted.gain > 0.1


@pytest.mark.parametrize(("n", "loyalty"), [(400, 0.5), (100, 0.95), (0, 0.95)])
def test_interest_does_not_count_without_evidence(
    index: SearchIndex, vectors: np.ndarray, n: int, loyalty: float
) -> None:
    assert fit_personal(index, vectors, choices(n, loyalty)).weight == 0


def test_shoppers_of_one_half_alone_prove_nothing(index: SearchIndex, vectors: np.ndarray) -> None:
    even = [choice for choice in choices(900, 0.95) if choice.shopper % 2 == 0]
    assert len(even) > 300
    assert fit_personal(index, vectors, even).weight == 0
