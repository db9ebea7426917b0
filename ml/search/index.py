"""Everything that search serves, made from a catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.recommender.train import centre
from ml.search import fusion
from ml.search.encoder import draw_fragments, train_terms
from ml.search.lexicon import Document, Lexicon, postings, read_catalogue, spelling
from ml.search.query import Judged, Reader, query_vectors, unknown_idf

LEXICAL_DIMENSION = 1_000_000_000  # of serving.item.lexical
MOST_HELD_OUT = 1000
FRAGMENTS_FOR_TEMPERATURE = 200


@dataclass(frozen=True)
class SearchIndex:
    """The terms of a catalogue, what they weigh, what they mean, and how the parts of a score are weighted.

    Attributes:
        terms: Distinct; position + 1 is serving.term.term_no.
        documents: (m,), products that hold the term.
        idf: (m,), positive.
        start: (m + 1,), postings of term i are start[i]:start[i + 1].
        item: Products of the postings, the heaviest first within a term.
        weight: Weights of the postings, positive.
        vectors: (m, d), the query encoder; a zero row where a term has no vector.
        spelling: What is left of a word without one letter -> the words that it may be, the most frequent first.
        lexical: (n, m), what a term weighs in a product; its column is term_no - 1.
        weights: Fitted weights (`search_words`, …, `search_semantic`), `search_unknown_idf`, `search_gram_length` and
            `interest_temperature`.
    """

    terms: list[str]
    documents: NDArray[np.int32]
    idf: NDArray[np.float32]
    start: NDArray[np.int64]
    item: NDArray[np.int32]
    weight: NDArray[np.float32]
    vectors: NDArray[np.float16]
    spelling: dict[str, list[str]]
    lexical: sparse.csr_array
    weights: dict[str, float]

    def reader(self) -> Reader:
        """Return the reader of queries: what internal.read_query does in SQL."""
        return Reader(self.terms, self.documents, self.idf, self.spelling, self.lexical.shape[0])

    def encode(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Return the (q, d) unit vectors of queries, as internal.encode does in SQL; zero where nothing is known."""
        reader = self.reader()
        return query_vectors(self.vectors, [reader.read(query) for query in queries])


def build_index(
    documents: Sequence[Document],
    vectors: NDArray[np.float32],
    encode_queries: Callable[[list[str]], NDArray[np.float32]],
    judged: Sequence[Judged] = (),
    seed: int = 0,
) -> SearchIndex:
    """Build the search index of a catalogue.

    Args:
        documents: The products' texts.
        vectors: (n, d), the encoder's vectors of the products, not centred.
        encode_queries: Turns m short texts into (m, d) vectors of the same encoder, zero where one has none.
        judged: Queries with judged or clicked products; they teach the query encoder and the weights.
        seed: Of everything that is drawn.

    Raises:
        ValueError: There are not as many vectors as documents.
    """
    if len(documents) != len(vectors):
        raise ValueError(f"{len(documents)} documents need as many vectors, not {len(vectors)}")
    lexicon = read_catalogue(documents)
    start, item, weight = postings(lexicon, len(documents))
    words = spelling(lexicon)
    reader = Reader(lexicon.terms, lexicon.documents, lexicon.idf, words, len(documents))
    centred = centre(vectors) if len(vectors) else vectors
    taught, held_out = _split(judged, seed)
    table = train_terms(lexicon, documents, centred, encode_queries, reader, taught, seed)
    weights = _weights(lexicon, documents, centred, table, reader, held_out, seed)
    return SearchIndex(
        terms=lexicon.terms,
        documents=lexicon.documents,
        idf=lexicon.idf,
        start=start,
        item=item,
        weight=weight,
        vectors=table,
        spelling=words,
        lexical=lexicon.matrix,
        weights={
            **weights,
            "search_unknown_idf": unknown_idf(len(documents)),
            "search_gram_length": lexicon.gram_length,
        },
    )


def _split(judged: Sequence[Judged], seed: int) -> tuple[list[Judged], list[Judged]]:
    """Return the queries that teach the encoder and those that fit the weights: a quarter, if that is enough."""
    order = np.random.default_rng(seed).permutation(len(judged)).tolist()
    held_out = min(len(judged) // 4, MOST_HELD_OUT)
    if held_out < fusion.FEWEST_QUERIES:
        held_out = 0
    return [judged[place] for place in order[held_out:]], [judged[place] for place in order[:held_out]]


def _weights(
    lexicon: Lexicon,
    documents: Sequence[Document],
    vectors: NDArray[np.float32],
    table: NDArray[np.float16],
    reader: Reader,
    held_out: Sequence[Judged],
    seed: int,
) -> dict[str, float]:
    """Return the fitted weights and the temperature; without judged queries the latter comes from fragments."""

    def pools(queries: Sequence[Judged]) -> list[fusion.Pool]:
        readings = [reader.read(query.query) for query in queries]
        encoded = query_vectors(table, readings)
        return fusion.pools(readings, encoded, [query.grades for query in queries], lexicon.matrix, vectors)

    candidates = pools(held_out)
    fitted = fusion.fit_weights(candidates)
    if len(candidates) < fusion.FEWEST_QUERIES:
        candidates = pools(draw_fragments(documents, seed + 1)[:FRAGMENTS_FOR_TEMPERATURE])
    return {
        **{f"search_{name}": weight for name, weight in fitted.items()},
        "interest_temperature": fusion.fit_temperature(candidates),
    }
