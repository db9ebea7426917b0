"""How search reads a query: the reference of sql/internal's read_query, used to fit and to test it.

A query becomes features by family, each a share of 1 over the terms it asks for, and a vector: the normalised sum of
its known terms' vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.search import terms as cut
from ml.search.lexicon import may_be_misspelt

FAMILIES = ("words", "pairs", "numbers", "measures", "grams")
# A word that one product holds gives way to one that so many hold.
FAR_MORE_FREQUENT = 10


@dataclass(frozen=True)
class Judged:
    """A query with products that were judged or clicked.

    Attributes:
        query: As it was typed.
        grades: Index of a product -> relevance, 0 to 1.
    """

    query: str
    grades: Mapping[int, float]


@dataclass(frozen=True)
class Reading:
    """A query, read.

    Attributes:
        features: Family -> position of a term -> weight, before the fitted weights.
        known: Positions of the terms that have vectors, if they have, each once.
        corrections: Word as written -> word that was read.
        matched: Known words of the query.
    """

    features: dict[str, dict[int, float]]
    known: list[int]
    corrections: dict[str, str]
    matched: list[str]


class Reader:
    """Reads queries with the lexicon of a release."""

    def __init__(
        self,
        terms: Sequence[str],
        documents: NDArray[np.int32],
        idf: NDArray[np.float32],
        spelling: Mapping[str, list[str]],
        n_items: int,
    ) -> None:
        self._place = {term: place for place, term in enumerate(terms)}
        self._documents = documents
        self._idf = idf
        self._spelling = spelling
        self._unknown = unknown_idf(n_items)

    def read(self, query: str) -> Reading:
        """Return the features of a query."""
        corrections: dict[str, str] = {}
        found = cut.query_tokens(query)
        corrected = [self._corrected(token, corrections) for token in found]
        words = list(dict.fromkeys(cut.words(corrected)))
        pairs = list(dict.fromkeys(cut.pairs(corrected)))
        grams = list(dict.fromkeys(gram for token in corrected for gram in cut.character_grams(token)))
        mass = sum(self._idf_of(word) for word in words)
        gram_mass = sum(self._idf_of(gram) for gram in grams)
        numbers = [word for word in words if cut.is_number(word)]
        measures = [pair for pair in pairs if " " in pair]
        plain = [pair for pair in pairs if " " not in pair]
        features = {
            "words": {self._place[word]: self._idf_of(word) / mass for word in words if word in self._place},
            "pairs": {self._place[pair]: 1 / len(pairs) for pair in plain if pair in self._place},
            "numbers": {self._place[word]: 1 / len(numbers) for word in numbers if word in self._place},
            "measures": {self._place[pair]: 1 / len(measures) for pair in measures if pair in self._place},
            "grams": {self._place[gram]: self._idf_of(gram) / gram_mass for gram in grams if gram in self._place},
        }
        known = [self._place[term] for term in dict.fromkeys([*words, *pairs, *grams]) if term in self._place]
        return Reading(features, known, corrections, [word for word in words if word in self._place])

    def _idf_of(self, term: str) -> float:
        place = self._place.get(term)
        return self._unknown if place is None else float(self._idf[place])

    def _corrected(self, written: str, corrections: dict[str, str]) -> str:
        """Return the stem of a word or, if it is unknown or rare, the most frequent word that is one typo away."""
        if cut.is_cjk(written):
            return self._corrected_run(written, corrections)
        token = cut.stem(written)
        if not may_be_misspelt(written):
            return token
        place = self._place.get(token)
        documents = 0 if place is None else int(self._documents[place])
        if documents >= 2:
            return token
        candidates = {
            word
            for own in {written, token}
            for variant in cut.shortened(own)
            for word in self._spelling.get(variant, [])
            if cut.is_one_typo(own, word)
        }
        # The first letter is rarely the wrong one.
        best = min(
            candidates,
            key=lambda word: (word[0] != written[0], -self._documents[self._place[word]], word),
            default=token,
        )
        if best == token or (documents and self._documents[self._place[best]] < FAR_MORE_FREQUENT):
            return token
        corrections[written] = best
        return best

    def _corrected_run(self, run: str, corrections: dict[str, str]) -> str:
        """Return a CJK run with its likeliest mistake corrected, if it has one.

        Two or three characters no two of which any product has side by side are read as three that are one typo away:
        with one character more between two, with the middle one of three replaced or swapped.
        """
        is_odd = [run[at : at + 2] not in self._place for at in range(len(run) - 1)]
        candidates = [
            (-length, -int(self._documents[self._place[word]]), at, word)
            for length in (2, 3)
            for at in range(len(run) - length + 1)
            if all(is_odd[at : at + length - 1])
            for variant in cut.without_one(run[at : at + length])
            for word in self._spelling.get(variant, [])
            if cut.is_one_typo(run[at : at + length], word)
        ]
        if not candidates:
            return run
        length, _, at, word = min(candidates)
        corrections[run] = run[:at] + word + run[at - length :]
        return corrections[run]


def unknown_idf(n_items: int) -> float:
    """Return the idf of a term that no product holds."""
    return math.log1p((n_items + 0.5) / 0.5)


def query_vectors(table: NDArray[np.float16], readings: Sequence[Reading]) -> NDArray[np.float32]:
    """Return (q, d) vectors: the normalised sum of the vectors of a query's terms; zero if none is known."""
    summed = np.zeros((len(readings), table.shape[1]), np.float32)
    for row, reading in enumerate(readings):
        summed[row] = table[reading.known].astype(np.float32).sum(axis=0)
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-9)


def feature_matrices(readings: Iterable[Reading], n_terms: int) -> dict[str, sparse.csr_array]:
    """Return (queries, terms) features for each family."""
    read = list(readings)
    matrices = {}
    for family in FAMILIES:
        row = np.repeat(np.arange(len(read)), [len(r.features[family]) for r in read])
        column = np.array([place for r in read for place in r.features[family]], np.int64)
        value = np.array([weight for r in read for weight in r.features[family].values()], np.float32)
        matrices[family] = sparse.csr_array((value, (row, column)), (len(read), n_terms))
    return matrices
