"""BM25 as a table: the weight of a term in a product, worked out ahead, so that a query only adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PER_TERM = 2000
# In a large catalogue a term that a fifth of the products share tells nothing apart and costs the most.
LARGE_CATALOGUE = 500
COMMON_SHARE = 0.2


@dataclass(frozen=True)
class Postings:
    """An inverted index, sorted by term, then by falling weight.

    Attributes:
        vocabulary: The terms, sorted.
        term: int32 (m,), position in `vocabulary`.
        item: int32 (m,), index of the document.
        weight: float32 (m,), BM25 contribution of the term to that document, positive.
    """

    vocabulary: list[str]
    term: NDArray[np.int32]
    item: NDArray[np.int32]
    weight: NDArray[np.float32]


def postings(
    documents: Sequence[Sequence[str]], k1: float = 1.2, b: float = 0.75, per_term: int = PER_TERM
) -> Postings:
    """Return the inverted index with idf · tf · (k1 + 1) / (tf + k1 · (1 - b + b · length / mean length)).

    idf is ln(1 + (n - df + 0.5) / (df + 0.5)). Each term keeps its `per_term` heaviest documents.

    Args:
        documents: The terms of each document.
        k1: How slowly repetition saturates.
        b: How much long documents are discounted, 0 to 1.
        per_term: Postings kept per term.
    """
    counts = [Counter(terms) for terms in documents]
    vocabulary = sorted({term for count in counts for term in count})
    number = {term: position for position, term in enumerate(vocabulary)}
    term = np.array([number[name] for count in counts for name in count], dtype=np.int64)
    frequency = np.array([times for count in counts for times in count.values()], dtype=np.float64)
    item = np.repeat(np.arange(len(documents)), [len(count) for count in counts])

    lengths = np.array([len(terms) for terms in documents], dtype=np.float64)
    with_document = np.bincount(term, minlength=len(vocabulary))
    spread = 1 - b + b * lengths / max(lengths.mean() if len(lengths) else 0.0, 1.0)
    idf = np.log1p((len(documents) - with_document + 0.5) / (with_document + 0.5))
    weight = idf[term] * frequency * (k1 + 1) / (frequency + k1 * spread[item])
    if len(documents) > LARGE_CATALOGUE:
        telling = with_document[term] <= COMMON_SHARE * len(documents)
        term, item, weight = term[telling], item[telling], weight[telling]

    order = np.lexsort((item, -weight, term))
    term, item, weight = term[order], item[order], weight[order]
    kept = np.arange(len(term)) - np.searchsorted(term, term) < per_term
    return Postings(
        vocabulary, term[kept].astype(np.int32), item[kept].astype(np.int32), weight[kept].astype(np.float32)
    )
