"""TF-IDF over words and pairs of neighbouring words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

MIN_DOCUMENTS = 2


def tfidf(documents: Sequence[Sequence[str]]) -> sparse.csr_array:
    """Return the TF-IDF matrix of 1- and 2-grams, rows of unit length.

    Term frequency is 1 + ln(count), idf is ln((1 + n) / (1 + df)) + 1; grams in fewer than two documents are
    dropped, for they connect nothing.

    Args:
        documents: The terms of each document, in order.

    Returns:
        float32 (n_documents, n_grams); a document without any shared gram is a zero row.
    """
    vocabulary: dict[str | tuple[str, ...], int] = {}
    columns: list[int] = []
    lengths: list[int] = []
    for terms in documents:
        grams: list[str | tuple[str, str]] = [*terms, *zip(terms, terms[1:], strict=False)]
        columns.extend(vocabulary.setdefault(gram, len(vocabulary)) for gram in grams)
        lengths.append(len(grams))
    rows = np.repeat(np.arange(len(documents)), lengths)
    shape = (len(documents), len(vocabulary))
    counts = sparse.csr_array((np.ones(len(columns), dtype=np.float32), (rows, np.array(columns, dtype=int))), shape)
    counts.sum_duplicates()
    document_count = np.bincount(counts.indices, minlength=shape[1])
    shared = np.flatnonzero(document_count >= MIN_DOCUMENTS)
    counts = counts[:, shared]
    counts.data = 1.0 + np.log(counts.data)
    idf = (np.log((1.0 + shape[0]) / (1.0 + document_count[shared])) + 1.0).astype(np.float32)
    weighted = counts.multiply(idf).tocsr()
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return (sparse.diags_array(inverse) @ weighted).tocsr()
