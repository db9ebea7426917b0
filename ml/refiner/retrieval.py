"""Do better texts make products easier to find? Queries from true descriptions, asked of a catalogue under each arm."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.compare import paired
from ml.refiner.lexicon import CARRIERS_EN
from ml.search.lexicon import Document
from ml.search.measure import bm25
from ml.text import detect_language, key_terms, segment

Floats = NDArray[np.float64]
DEPTH = 10
QUERY_WORDS = 3
QUERIES_PER_BLOCK = 256
_POOL = 16
# A word that one product has is a code rather than a word to search by; one that a tenth has tells nothing.
_LEAST, _MOST_SHARE = 2, 0.1


@dataclass(frozen=True)
class PseudoQuery:
    """A query and the product whose true description it is made of, by its place in the catalogue."""

    text: str
    product: int


def pseudo_queries(references: Mapping[int, str], catalogue: Sequence[str], *, seed: int = 0) -> list[PseudoQuery]:
    """Make a query of each reference: three of its nouns and adjectives that other products have as well.

    Args:
        references: The true description of products, by place in the catalogue.
        catalogue: The true text of every product, to count words in: never a text that is judged.
        seed: Chooses the words, by place.

    Returns:
        Queries in the order of the references; products whose text has less than two such words have none.
    """
    terms = {place: key_terms(text, _POOL) for place, text in references.items()}
    wanted = {term for found in terms.values() for term in found}
    spread = Counter(term for text in catalogue for term in _present(text, wanted))
    most = max(_LEAST, _MOST_SHARE * len(catalogue))
    queries = []
    for place, found in terms.items():
        usable = [term for term in found if _LEAST <= spread[term] <= most and term not in CARRIERS_EN]
        if len(usable) < 2:
            continue
        digest = hashlib.sha256(f"{seed} {place} {references[place]}".encode("utf-8", "surrogatepass")).digest()
        drawn = np.random.default_rng(int.from_bytes(digest[:8], "little")).permutation(len(usable))[:QUERY_WORDS]
        queries.append(PseudoQuery(" ".join(usable[at] for at in sorted(drawn.tolist())), place))
    return queries


def _present(text: str, wanted: set[str]) -> set[str]:
    return wanted.intersection(word.lower() for word in segment(text, detect_language(text)))


def by_words(queries: Sequence[PseudoQuery], documents: Sequence[Document]) -> Floats:
    """Return nDCG@10 and reciprocal rank of each query by BM25, float64 (queries, 2)."""
    score = bm25(documents)
    return np.array([_gains(_found(score(query.text)), query.product) for query in queries]).reshape(-1, 2)


def by_vectors(queries: NDArray[np.float32], products: Sequence[int], items: NDArray[np.float32]) -> Floats:
    """Return the same by inner products of query vectors (q, d) with item vectors (n, d)."""
    columns = items.astype(np.float64).T
    starts = range(0, len(queries), QUERIES_PER_BLOCK)
    blocks = (queries[first : first + QUERIES_PER_BLOCK].astype(np.float64) @ columns for first in starts)
    rows = (row for block in blocks for row in block)
    return np.array([_gains(row, product) for row, product in zip(rows, products, strict=True)]).reshape(-1, 2)


def _found(scores: Floats) -> Floats:
    """Return the scores, minus infinity for what shares no word with the query."""
    return np.where(scores > 0, scores, -np.inf)


def _gains(scores: NDArray[np.floating], product: int) -> tuple[float, float]:
    """Return nDCG@10 and the reciprocal rank of the one relevant product; of equal ones half come before it."""
    own = scores[product]
    if not np.isfinite(own):
        return 0.0, 0.0
    rank = 1 + int((scores > own).sum()) + (int((scores == own).sum()) - 1) / 2
    return (1 / float(np.log2(1 + rank)) if rank <= DEPTH else 0.0), 1 / rank


@dataclass(frozen=True)
class Comparison:
    """An arm against a baseline, nDCG@10 over the same queries.

    Attributes:
        ours: Mean of the arm.
        theirs: Mean of the baseline.
        difference: ours − theirs, with the bounds of its 95 % interval.
    """

    ours: float
    theirs: float
    difference: tuple[float, float, float]

    @property
    def relative(self) -> float:
        """Return the difference relative to the baseline; infinite over a baseline that finds nothing."""
        return self.difference[0] / self.theirs if self.theirs else float("inf") * (self.difference[0] > 0)


def compare(ours: Floats, theirs: Floats, *, seed: int = 0) -> Comparison:
    """Compare two results of `by_words` or `by_vectors` query by query, by the paired bootstrap.

    Raises:
        ValueError: They do not answer the same number of queries.
    """
    difference = paired(ours[:, :1], theirs[:, :1], seed)[:, 0]
    low, high = float(difference[1]), float(difference[2])
    return Comparison(float(ours[:, 0].mean()), float(theirs[:, 0].mean()), (float(difference[0]), low, high))
