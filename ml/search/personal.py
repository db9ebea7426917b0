"""How much a shopper's interest counts in search: fitted on what shoppers chose from the lists that they were shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from ml.recommender.category import history_vectors
from ml.search.index import SearchIndex
from ml.search.query import feature_matrices, query_vectors

FEWEST_CHOICES = 200
LARGEST = 10.0
Z95 = 1.959964

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """A search of a shopper, and what came of it.

    Attributes:
        query: As it was typed.
        shopper: Whose it was: any number, the same for all searches of one.
        history: What the shopper had before, indices in time order; not empty.
        offered: Products of the list, the chosen ones included; two or more.
        chosen: Positions in `offered`; not empty.
    """

    query: str
    shopper: int
    history: Sequence[int]
    offered: Sequence[int]
    chosen: Sequence[int]


@dataclass(frozen=True)
class Fitted:
    """The weight, and what it earns.

    Attributes:
        weight: Of the cosine of interest and product, added to the score of search; 0 if it earns nothing.
        choices: Number of choices it was learned from.
        gain: Nats per choice by which the shoppers' interest tells the choices of other shoppers better.
    """

    weight: float
    choices: int
    gain: float


def fit_personal(index: SearchIndex, vectors: NDArray[np.floating], choices: Sequence[Choice]) -> Fitted:
    """Fit the weight of a shopper's interest: P(product) = softmax(score of search + weight · interest · product).

    The weight of one half of the shoppers is tried on the other. It counts if the interest tells what they chose better
    with 95 % confidence; then it is fitted on all.

    Args:
        index: The search index; its weights make the score without the shopper.
        vectors: (n, d), the products' vectors, of unit length or zero.
        choices: What shoppers chose.
    """
    if len(choices) < FEWEST_CHOICES:
        return Fitted(0.0, len(choices), 0.0)
    lists = _lists(index, vectors, choices)
    is_first = np.array([choice.shopper % 2 == 0 for choice in choices])
    halves = [np.flatnonzero(is_first), np.flatnonzero(~is_first)]
    if not all(map(len, halves)):
        return Fitted(0.0, len(choices), 0.0)
    weights = [_minimise([lists[place] for place in half]) for half in halves]
    gains = np.zeros(len(lists))
    for half, weight in zip(halves, reversed(weights), strict=True):
        for place in half.tolist():
            gains[place] = _loss(lists[place], 0.0) - _loss(lists[place], weight)
    mean, error = float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))
    return Fitted(_minimise(lists) if mean > Z95 * error else 0.0, len(choices), mean)


@dataclass(frozen=True)
class _List:
    """Scores without the shopper, cosines with the shopper's interest, and which products were chosen."""

    scores: Floats
    cosines: Floats
    chosen: NDArray[np.int64]


def _lists(index: SearchIndex, vectors: NDArray[np.floating], choices: Sequence[Choice]) -> list[_List]:
    reader = index.reader()
    queries = list(dict.fromkeys(choice.query for choice in choices))
    place = {query: number for number, query in enumerate(queries)}
    readings = [reader.read(query) for query in queries]
    features = sum(
        index.weights[f"search_{family}"] * matrix
        for family, matrix in feature_matrices(readings, len(index.terms)).items()
    )
    encoded = query_vectors(index.vectors, readings)
    interests = history_vectors([choice.history for choice in choices], vectors)
    lists = []
    for choice, interest in zip(choices, interests, strict=True):
        query, offered = place[choice.query], list(choice.offered)
        products = vectors[offered].astype(np.float32)
        lexical = (index.lexical[offered] @ features[[query]].T).toarray().ravel()
        scores = lexical + index.weights["search_semantic"] * (products @ encoded[query])
        cosines = products @ interest
        lists.append(_List(scores.astype(float), cosines.astype(float), np.array(choice.chosen, np.int64)))
    return lists


def _minimise(lists: Sequence[_List]) -> float:
    """Return the weight, 0 to 10, with the least mean cross-entropy, which is convex in it."""
    found = minimize_scalar(
        lambda weight: float(np.mean([_loss(one, weight) for one in lists])), bounds=(0.0, LARGEST), method="bounded"
    )
    return float(found.x)


def _loss(one: _List, weight: float) -> float:
    logits = one.scores + weight * one.cosines
    return float(logsumexp(logits) - logits[one.chosen].mean())
