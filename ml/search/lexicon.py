"""The lexical side of search: which terms a catalogue has, and what each weighs in each product.

The score of a product for a query is the inner product of two sparse vectors. The product's holds, for words and pairs
of words, the weight of the field that they stand in, and for character n-grams BM25's saturated frequency; idf is on
the query's side (`ml.search.query`).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
BLOCK = 20_000

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
    names, words, pairs = _Weights(), _Weights(), _Weights()
    for document in documents:
        held: dict[str, float] = {}
        beside: dict[str, float] = {}
        for text, weight in _fields(document):
            found = cut.tokens(text)
            _hold(held, cut.words(found), weight)
            if weight == TITLE:
                _hold(beside, cut.pairs(found), weight)
        words.add(held)
        pairs.add(beside)
        names.add(Counter(name_tokens(document)))
    at_least = 2 if len(documents) >= LARGE_CATALOGUE else 1
    n_items = len(documents)
    word_terms, word_matrix = words.matrix(lambda term: at_least if len(term) == 3 and cut.is_cjk(term) else 1)
    known = set(word_terms)
    pair_terms, pair_matrix = pairs.matrix(lambda term: 1 if term in known else at_least, MOST_PAIRS)
    del words, pairs  # a catalogue of a million products needs the room
    gram_terms, gram_matrix, gram_length = _grams(*names.matrix(lambda _: 1), at_least)

    number = {term: place for place, term in enumerate(word_terms)}
    both = np.array([number.setdefault(term, len(number)) for term in pair_terms], np.int32)
    joined = sparse.csr_array((word_matrix.data, word_matrix.indices, word_matrix.indptr), (n_items, len(number)))
    moved = sparse.csr_array(
        (np.ones(len(both), np.float32), both, np.arange(len(both) + 1, dtype=np.int32)), (len(both), len(number))
    )
    joined = joined.maximum(pair_matrix @ moved)
    del word_matrix, pair_matrix
    terms = [*number, *gram_terms]
    documents_of = np.concatenate([_spread(joined), _spread(gram_matrix)])
    idf = np.log1p((n_items - documents_of + 0.5) / (documents_of + 0.5)).astype(np.float32)
    is_word = np.arange(len(terms)) < len(word_terms)
    parts = [sparse.csr_array((0, len(terms)), dtype=np.float32)]
    for first, part in _blocks(joined):
        grams = gram_matrix[first : first + part.shape[0]]
        parts.append(_trim(sparse.csr_array(sparse.hstack([part, grams], format="csr")), idf))
    del joined, gram_matrix
    matrix = sparse.csr_array(sparse.vstack(parts, format="csr"))
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
    matrix = lexicon.matrix
    is_gram = np.array([term.startswith("#") for term in lexicon.terms], dtype=bool)
    length = np.zeros(n_items)
    for first, part in _blocks(matrix):
        weighing = ~is_gram[part.indices]
        row = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))[weighing]
        length[first : first + part.shape[0]] = np.bincount(row, part.data[weighing], part.shape[0])
    spread = 1 - B + B * length / max(float(length.mean()) if n_items else 1.0, 1e-9)
    n_listed = len(is_gram) - int(is_gram.sum())
    by_term = sparse.csc_array(matrix[:, :n_listed])
    count = np.minimum(np.diff(by_term.indptr), PER_TERM)
    start = np.concatenate([[0], np.cumsum(count), np.full(len(is_gram) - n_listed, count.sum())]).astype(np.int64)
    item, weight = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    for first, part in _blocks(sparse.csr_array(by_term.T)):
        term = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        heavy = (part.data * (K1 + 1) / (1 + K1 * spread[part.indices])).astype(np.float32)
        order = np.lexsort((part.indices, -heavy, term))
        order = order[np.arange(len(order)) - part.indptr[term] < PER_TERM]
        cells = slice(start[first], start[first + part.shape[0]])
        item[cells], weight[cells] = part.indices[order], heavy[order]
    return start, item, weight


def spelling(lexicon: Lexicon) -> dict[str, list[str]]:
    """Return what a word may be misspelt as, without one letter -> the words it may stand for, the most frequent first.

    Of words of at least three letters every way to lose one; of three CJK characters the first and the last. Listed is
    what two products hold (one, in a small catalogue).
    """
    at_least = 2 if lexicon.matrix.shape[0] >= LARGE_CATALOGUE else 1
    found: dict[str, list[str]] = {}
    for place in np.argsort(-lexicon.documents, kind="stable").tolist():
        term = lexicon.terms[place]
        if not lexicon.is_word[place] or lexicon.documents[place] < at_least:
            continue
        if may_be_misspelt(term):
            variants = cut.shortened(term)
        elif len(term) == 3 and cut.is_cjk(term):
            variants = [term[0] + term[2]]
        else:
            continue
        for variant in variants:
            words = found.setdefault(variant, [])
            if len(words) < MOST_SUGGESTIONS:
                words.append(term)
    return found


def may_be_misspelt(token: str) -> bool:
    """Tell whether a token is a word of at least three letters."""
    return len(token) >= SHORTEST and not cut.is_number(token) and not cut.is_cjk(token)


def _fields(document: Document) -> Iterable[tuple[str, float]]:
    yield document.title, TITLE
    yield document.brand, TITLE
    for category in document.categories:
        yield category, CATEGORY
    yield document.description, DESCRIPTION


def _hold(held: dict[str, float], found: Iterable[str], weight: float) -> None:
    """Note terms with the weight of the best field that holds them."""
    for term in found:
        if held.get(term, 0.0) < weight:
            held[term] = weight


class _Weights:
    """What terms weigh in products, in eight bytes each: a million products have a hundred million of them."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._start = array("i", [0])
        self._column = array("i")
        self._weight = array("f")

    def add(self, held: Mapping[str, float]) -> None:
        """Add the next product."""
        number = self._number
        self._column.extend([number.setdefault(term, len(number)) for term in held])
        self._weight.extend(held.values())
        self._start.append(len(self._column))

    def matrix(self, at_least: Callable[[str], int], most: int | None = None) -> tuple[list[str], sparse.csr_array]:
        """Return the terms that enough products hold, and (products, terms) weights."""
        names = list(self._number)
        whole = sparse.csr_array(
            (np.asarray(self._weight), np.asarray(self._column), np.asarray(self._start)),
            (len(self._start) - 1, len(names)),
        )
        count = _spread(whole)
        needed = np.fromiter((at_least(name) for name in names), np.int64, len(names))
        keep = np.flatnonzero(count >= needed)
        if most is not None and len(keep) > most:
            keep = np.sort(keep[np.argsort(-count[keep], kind="stable")[:most]])
        return [names[place] for place in keep.tolist()], _columns(whole, keep)


def _grams(vocabulary: list[str], held: sparse.csr_array, at_least: int) -> tuple[list[str], sparse.csr_array, float]:
    """Return the character n-grams of the products' names, their saturated frequencies, and a name's mean number.

    Args:
        vocabulary: The tokens of names.
        held: (products, tokens), how often a name holds a token.
        at_least: Products that must hold an n-gram.
    """
    number: dict[str, int] = {}
    start, column = array("i", [0]), array("i")
    for token in vocabulary:
        column.extend([number.setdefault(gram, len(number)) for gram in cut.character_grams(token)])
        start.append(len(column))
    spelt = sparse.csr_array(
        (np.ones(len(column), np.float32), np.asarray(column), np.asarray(start)), (len(vocabulary), len(number))
    )
    n_items = held.shape[0]
    length, count = np.zeros(n_items, np.float32), np.zeros(len(number), np.int64)
    # Twice over the products: a row of all n-grams is several times what is kept of it.
    for first, part in _blocks(held):
        frequency = part @ spelt
        length[first : first + part.shape[0]] = frequency.sum(axis=1)
        count += _spread(frequency)
    mean = max(float(length.mean()) if n_items else 1.0, 1.0)
    keep = np.flatnonzero(count >= at_least)
    if len(keep) > MOST_GRAMS:
        keep = np.sort(keep[np.argsort(-count[keep], kind="stable")[:MOST_GRAMS]])
    kept = _columns(spelt, keep)
    weighed = [sparse.csr_array((0, len(keep)), dtype=np.float32)]
    for first, part in _blocks(held):
        frequency = sparse.csr_array(part @ kept)
        own = np.repeat(length[first : first + part.shape[0]], np.diff(frequency.indptr))
        frequency.data = saturated(frequency.data, own, mean)
        weighed.append(frequency)
    grams = list(number)
    return [grams[place] for place in keep.tolist()], sparse.csr_array(sparse.vstack(weighed, format="csr")), mean


def saturated(frequency: NDArray[np.float64], length: NDArray[np.float64], mean: float) -> Floats:
    """Return BM25's tf · (k1 + 1) / (tf + k1 · (1 - b + b · length / mean)), with k1 = 1.2 and b = 0.75."""
    return np.asarray(frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length / mean)), np.float32)


def _spread(matrix: sparse.csr_array) -> NDArray[np.int64]:
    return np.bincount(matrix.indices, minlength=matrix.shape[1])


def _trim(matrix: sparse.csr_array, idf: Floats) -> sparse.csr_array:
    """Return the matrix with the `MOST_NONZEROS` most telling terms of each row."""
    matrix.sort_indices()
    count = np.diff(matrix.indptr)
    kept = np.ones(matrix.nnz, bool)
    for row in np.flatnonzero(count > MOST_NONZEROS).tolist():
        cells = slice(matrix.indptr[row], matrix.indptr[row + 1])
        order = np.argsort(-matrix.data[cells] * idf[matrix.indices[cells]], kind="stable")
        kept[cells][order[MOST_NONZEROS:]] = False
    if kept.all():
        return matrix
    start = np.concatenate([[0], np.cumsum(np.minimum(count, MOST_NONZEROS))])
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], start), matrix.shape)


def _columns(matrix: sparse.csr_array, keep: NDArray[np.int64]) -> sparse.csr_array:
    """Return some columns, sorted within each row."""
    chosen = sparse.csr_array(matrix[:, keep])
    chosen.sort_indices()
    return chosen


def _blocks(matrix: sparse.csr_array) -> Iterator[tuple[int, sparse.csr_array]]:
    """Yield a matrix in blocks of rows, each with the number of its first row."""
    for first in range(0, matrix.shape[0], BLOCK):
        yield first, sparse.csr_array(matrix[first : first + BLOCK])
