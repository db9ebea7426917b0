"""The lexical side of search: which terms a catalogue has, and what each weighs in each product.

The score of a product for a query is the inner product of two sparse vectors. The product's holds, for words and pairs
of words, the weight of the field that they stand in, and for character n-grams BM25's saturated frequency; idf is on
the query's side (`ml.search.query`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.search import terms as cut

# What a term says of a product, by where it stands: a description tells much that the product is not.
TITLE, CATEGORY, DESCRIPTION = 1.0, 0.5, 0.25
# A catalogue of this size has terms that occur once and match nothing but noise; a small one has nothing else.
LARGE_CATALOGUE = 1000
MOST_PAIRS, MOST_GRAMS = 300_000, 60_000
MOST_NONZEROS = 400
PER_TERM = 300
MOST_SUGGESTIONS, SHORTEST = 8, 3
K1, B = 1.2, 0.75

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Document:
    """The texts of one product."""

    title: str
    description: str
    brand: str
    categories: Sequence[str]


@dataclass(frozen=True)
class Lexicon:
    """The terms of a catalogue: words, CJK n-grams and pairs first, then character n-grams.

    Attributes:
        terms: Distinct terms.
        documents: (m,), products that hold the term.
        idf: (m,), ln(1 + (n - documents + 0.5) / (documents + 0.5)), positive.
        is_word: (m,), whether the term occurs as a word, a number or a CJK n-gram; a pair may be one, too.
        matrix: (n, m), what the term weighs in the product.
        gram_length: Mean number of character n-grams of a title with brand.
    """

    terms: list[str]
    documents: NDArray[np.int32]
    idf: Floats
    is_word: NDArray[np.bool_]
    matrix: sparse.csr_array
    gram_length: float


def read_catalogue(documents: Sequence[Document]) -> Lexicon:
    """Return the terms of the products."""
    vocabulary: dict[str, int] = {}
    names, words, pairs = [], _Weights(), _Weights()
    for row, document in enumerate(documents):
        title = [vocabulary.setdefault(t, len(vocabulary)) for t in name_tokens(document)]
        names.append(title)
        for text, weight in _fields(document):
            found = cut.tokens(text)
            words.add(row, cut.words(found), weight)
            if weight == TITLE:
                pairs.add(row, cut.pairs(found), weight)
    at_least = 2 if len(documents) >= LARGE_CATALOGUE else 1
    n_items = len(documents)
    word_terms, word_matrix = words.matrix(n_items, lambda term: at_least if len(term) == 3 and cut.is_cjk(term) else 1)
    known = set(word_terms)
    pair_terms, pair_matrix = pairs.matrix(n_items, lambda term: 1 if term in known else at_least, MOST_PAIRS)
    gram_terms, gram_matrix, gram_length = _grams(names, list(vocabulary), at_least)

    number = {term: place for place, term in enumerate(word_terms)}
    both = [number.setdefault(term, len(number)) for term in pair_terms]
    joined = sparse.csr_array((word_matrix.data, word_matrix.indices, word_matrix.indptr), (n_items, len(number)))
    moved = sparse.csr_array((np.ones(len(both), np.float32), (np.arange(len(both)), both)), (len(both), len(number)))
    joined = joined.maximum(pair_matrix @ moved)
    terms = [*number, *gram_terms]
    documents_of = _spread(sparse.hstack([joined, gram_matrix], format="csr"))
    idf = np.log1p((n_items - documents_of + 0.5) / (documents_of + 0.5)).astype(np.float32)
    is_word = np.arange(len(terms)) < len(word_terms)
    matrix = _trim(sparse.csr_array(sparse.hstack([joined, gram_matrix], format="csr")), idf)
    return Lexicon(terms, documents_of.astype(np.int32), idf, is_word, matrix, gram_length)


def name_tokens(document: Document) -> list[str]:
    """Return the tokens of what a product is called, whose character n-grams are indexed."""
    brand = cut.tokens(document.brand)
    title = cut.tokens(document.title)
    return title + [token for token in brand if token not in title]


def postings(lexicon: Lexicon, n_items: int) -> tuple[NDArray[np.int64], NDArray[np.int32], Floats]:
    """Return start (m + 1,), item and weight: for every word and pair the `PER_TERM` products where it weighs most.

    The weight is the term's in the product, less in a product with many terms, as in BM25: a term that thousands of
    products hold must propose those that say little else.
    """
    n_terms = len(lexicon.terms)
    is_gram = np.array([term.startswith("#") for term in lexicon.terms], dtype=bool)
    matrix = lexicon.matrix.tocoo()
    kept = ~is_gram[matrix.col]
    row, column, data = matrix.row[kept], matrix.col[kept], matrix.data[kept]
    length = np.bincount(row, weights=data, minlength=n_items)
    spread = 1 - B + B * length / max(float(length.mean()) if n_items else 1.0, 1e-9)
    weight = (data * (K1 + 1) / (1 + K1 * spread[row])).astype(np.float32)
    order = np.lexsort((row, -weight, column))
    row, column, weight = row[order], column[order], weight[order]
    place = np.arange(len(column)) - np.searchsorted(column, column)
    row, column, weight = row[place < PER_TERM], column[place < PER_TERM], weight[place < PER_TERM]
    start = np.searchsorted(column, np.arange(n_terms + 1)).astype(np.int64)
    return start, row.astype(np.int32), weight


def spelling(lexicon: Lexicon) -> dict[str, list[str]]:
    """Return, for every word and what is left of it without one letter, the words it may stand for.

    Words of at least three letters that two products hold (one, in a small catalogue), the most frequent first.
    """
    at_least = 2 if lexicon.matrix.shape[0] >= LARGE_CATALOGUE else 1
    found: dict[str, list[str]] = {}
    for place in np.argsort(-lexicon.documents, kind="stable").tolist():
        term = lexicon.terms[place]
        if lexicon.is_word[place] and lexicon.documents[place] >= at_least and may_be_misspelt(term):
            for variant in cut.shortened(term):
                found.setdefault(variant, []).append(term)
    return {variant: words[:MOST_SUGGESTIONS] for variant, words in found.items()}


def may_be_misspelt(token: str) -> bool:
    """Tell whether a token is a word of at least three letters."""
    return len(token) >= SHORTEST and not cut.is_number(token) and not cut.is_cjk(token)


def _fields(document: Document) -> Iterable[tuple[str, float]]:
    yield document.title, TITLE
    yield document.brand, TITLE
    for category in document.categories:
        yield category, CATEGORY
    yield document.description, DESCRIPTION


class _Weights:
    """Terms of products with the weight of the best field that holds them."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._row: list[int] = []
        self._column: list[int] = []
        self._weight: list[float] = []

    def add(self, row: int, found: Sequence[str], weight: float) -> None:
        distinct = dict.fromkeys(found)
        self._row.extend([row] * len(distinct))
        self._column.extend(self._number.setdefault(term, len(self._number)) for term in distinct)
        self._weight.extend([weight] * len(distinct))

    def matrix(self, n_items: int, at_least: object, most: int | None = None) -> tuple[list[str], sparse.csr_array]:
        """Return the terms that enough products hold, and (n_items, terms) weights."""
        row, column = np.array(self._row, np.int64), np.array(self._column, np.int64)
        weight = np.array(self._weight, np.float32)
        order = np.lexsort((-weight, column, row))
        row, column, weight = row[order], column[order], weight[order]
        first = np.ones(len(row), bool)
        first[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
        names = list(self._number)
        whole = sparse.csr_array((weight[first], (row[first], column[first])), (n_items, len(names)))
        count = _spread(whole)
        needed = np.array([at_least(name) for name in names], np.int64)  # type: ignore[operator]
        keep = np.flatnonzero(count >= needed)
        if most is not None and len(keep) > most:
            keep = np.sort(keep[np.argsort(-count[keep], kind="stable")[:most]])
        return [names[place] for place in keep.tolist()], sparse.csr_array(whole[:, keep])


def _grams(names: list[list[int]], vocabulary: list[str], at_least: int) -> tuple[list[str], sparse.csr_array, float]:
    """Return the character n-grams of the products' names and their saturated frequencies."""
    number: dict[str, int] = {}
    parts = [
        (place, number.setdefault(gram, len(number)))
        for place, token in enumerate(vocabulary)
        for gram in cut.character_grams(token)
    ]
    token, gram = np.array(parts, np.int64).reshape(-1, 2).T
    spelt = sparse.csr_array((np.ones(len(token), np.float32), (token, gram)), (len(vocabulary), len(number)))
    row = np.repeat(np.arange(len(names)), [len(name) for name in names])
    column = np.array([token for name in names for token in name], np.int64)
    held = sparse.csr_array((np.ones(len(row), np.float32), (row, column)), (len(names), len(vocabulary)))
    frequency = sparse.csr_array(held @ spelt)
    length = np.asarray(frequency.sum(axis=1)).ravel()
    mean = max(float(length.mean()) if len(names) else 1.0, 1.0)
    count = _spread(frequency)
    keep = np.flatnonzero(count >= at_least)
    if len(keep) > MOST_GRAMS:
        keep = np.sort(keep[np.argsort(-count[keep], kind="stable")[:MOST_GRAMS]])
    matrix = sparse.csr_array(frequency[:, keep]).tocoo()
    matrix.data = saturated(matrix.data, length[matrix.row], mean)
    grams = list(number)
    return [grams[place] for place in keep.tolist()], sparse.csr_array(matrix), mean


def saturated(frequency: NDArray[np.float64], length: NDArray[np.float64], mean: float) -> Floats:
    """Return BM25's tf · (k1 + 1) / (tf + k1 · (1 - b + b · length / mean)), with k1 = 1.2 and b = 0.75."""
    return np.asarray(frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length / mean)), np.float32)


def _spread(matrix: sparse.csr_array) -> NDArray[np.int64]:
    return np.bincount(matrix.indices, minlength=matrix.shape[1])


def _trim(matrix: sparse.csr_array, idf: Floats) -> sparse.csr_array:
    """Return the matrix with the `MOST_NONZEROS` most telling terms of each row."""
    matrix.sort_indices()
    coo = matrix.tocoo()
    order = np.lexsort((-coo.data * idf[coo.col], coo.row))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    kept = place < MOST_NONZEROS
    return sparse.csr_array((coo.data[kept], (coo.row[kept], coo.col[kept])), matrix.shape)
