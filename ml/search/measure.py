"""Measures of search: rankings against judgements, the baselines, and typing mistakes to try them with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.search import terms as cut
from ml.search.fusion import RELEVANT
from ml.search.lexicon import Document
from ml.search.query import Judged

METRICS = ("recall@10", "recall@50", "ndcg@10", "pairwise")
DEPTH = 50
LETTERS = "abcdefghijklmnopqrstuvwxyz"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """What an arm answers to one query.

    Attributes:
        best: The first `DEPTH` products, best first.
        scores: The score of each judged product.
    """

    best: Sequence[int]
    scores: Mapping[int, float]


def measures(query: Judged, ranking: Ranking) -> list[float]:
    """Return the `METRICS` of one query.

    Recall at k counts the relevant products (grade .66 and above: 2.33 of 3) among the first k of the whole corpus.
    nDCG@10 has the grades as gains, over the whole corpus; what nobody judged counts as 0. Pairwise accuracy is the
    share of pairs of judged products with different grades that are scored in that order, ties half; nan without pairs.
    """
    relevant = {item for item, grade in query.grades.items() if grade >= RELEVANT}
    discount = 1 / np.log2(np.arange(2, 12))
    gains = np.zeros(10)
    gains[: len(ranking.best[:10])] = [query.grades.get(item, 0.0) for item in ranking.best[:10]]
    ideal = np.zeros(10)
    ideal[: min(10, len(query.grades))] = sorted(query.grades.values(), reverse=True)[:10]
    items = np.fromiter(query.grades, np.int64, len(query.grades))
    grades = np.fromiter(query.grades.values(), np.float64, len(items))
    scores = np.array([ranking.scores[item] for item in items.tolist()])
    better = grades[:, None] > grades[None, :]
    ordered = (scores[:, None] > scores[None, :]) + 0.5 * (scores[:, None] == scores[None, :])
    return [
        len(relevant.intersection(ranking.best[:10])) / len(relevant) if relevant else np.nan,
        len(relevant.intersection(ranking.best[:DEPTH])) / len(relevant) if relevant else np.nan,
        float(gains @ discount / (ideal @ discount)) if ideal.any() else np.nan,
        float(ordered[better].mean()) if better.any() else np.nan,
    ]


def rank(scores: NDArray[np.floating], query: Judged) -> Ranking:
    """Return the ranking of a query by the scores of all products; of equal ones the first comes first."""
    depth = min(DEPTH, len(scores))
    edge = np.partition(scores, len(scores) - depth)[len(scores) - depth]
    best = np.flatnonzero(scores >= edge)
    best = best[np.argsort(-scores[best], kind="stable")][:depth]
    return Ranking(best.tolist(), {item: float(scores[item]) for item in query.grades})


def bm25(documents: Sequence[Document], k1: float = 1.2, b: float = 0.75) -> Callable[[str], Floats]:
    """Return the baseline, a function from a query to the scores of all products.

    BM25 over all texts of a product: Snowball stems of words, 1- to 3-grams of Chinese. A term counts as often as the
    query has it.
    """
    from nltk.stem import SnowballStemmer

    stem = lru_cache(maxsize=None)(SnowballStemmer("english").stem)

    def read(text: str) -> list[str]:
        return [term if cut.is_cjk(term) else stem(term) for term in cut.words(cut.written(text))]

    number: dict[str, int] = {}
    row, column = [], []
    for place, document in enumerate(documents):
        texts = (document.title, document.brand, *document.categories, document.description)
        for term in read(" ".join(texts)):
            row.append(place)
            column.append(number.setdefault(term, len(number)))
    counted = sparse.csr_array((np.ones(len(row)), (row, column)), (len(documents), len(number)))
    counted.sum_duplicates()
    length = np.asarray(counted.sum(axis=1)).ravel()
    spread = np.bincount(counted.indices, minlength=len(number))
    idf = np.log1p((len(documents) - spread + 0.5) / (spread + 0.5))
    coo = counted.tocoo()
    norm = k1 * (1 - b + b * length[coo.row] / max(float(length.mean()), 1e-9))
    weight = sparse.csc_array((idf[coo.col] * coo.data * (k1 + 1) / (coo.data + norm), (coo.row, coo.col)), coo.shape)

    def score(query: str) -> Floats:
        places = [number[term] for term in read(query) if term in number]
        return np.asarray(weight[:, places].sum(axis=1)).ravel() if places else np.zeros(len(documents))

    return score


def with_typo(query: str) -> str:
    """Return the query with one typing mistake, always the same: a letter left out, put in, replaced or swapped.

    It happens inside a word of at least four letters, or a run of at least three Chinese characters (left out or
    swapped); a query that has neither stays.
    """
    chance = np.random.default_rng(int.from_bytes(hashlib.sha256(query.encode()).digest()[:8]))
    pieces = query.split(" ")
    latin = [place for place, piece in enumerate(pieces) if len(piece) >= 4 and piece.isascii() and piece.isalpha()]
    chinese = [place for place, piece in enumerate(pieces) if len(piece) >= 3 and cut.is_cjk(piece)]
    if not latin and not chinese:
        return query
    place = int(chance.choice(latin or chinese))
    word = pieces[place]
    at, kind = int(chance.integers(1, len(word) - 1)), int(chance.integers(4 if latin else 2))
    letter = LETTERS[int(chance.integers(len(LETTERS)))]
    pieces[place] = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + letter + word[at:],
        word[:at] + letter + word[at + 1 :],
    )[kind]
    return " ".join(pieces)
