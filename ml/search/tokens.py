"""A query encoder that is a table: the sum of a query's token vectors, normalised, points at the products it means.

Tokens are the frequent terms of the catalogue (words, and 1- to 3-grams of Chinese, Japanese and Korean) and character
trigrams, written `#abc`, of the words between `<` and `>`. A word outside the table is the sum of its trigrams, so that
rare and misspelt words still say something. The encoder runs once per term, here; never on a query.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.recommender.train import centre
from ml.text.clean import HAN, KANA_HANGUL

TERMS = 6000
TRIGRAMS = 10_000
MIN_DOCUMENTS = 2
SIF = 1e-3
TRIGRAM_PENALTY = 1.0
FRAGMENTS_PER_DOCUMENT = 4
MAX_FRAGMENTS = 20_000
LONGEST_FRAGMENT = 5
MAP_PENALTY = 300.0
STEPS = 30

# Scripts without spaces, as `lexical_terms` cuts them.
_CJK = re.compile(f"[{HAN}{KANA_HANGUL}]")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TokenTable:
    """The table.

    Attributes:
        tokens: Distinct tokens, the terms first.
        vectors: float16 (n, d); the length of a row is the weight of its token.
    """

    tokens: list[str]
    vectors: NDArray[np.float16]

    def encode(self, queries: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return the unit vector of each query, given as lexical terms; zero if no token is known."""
        number = {token: position for position, token in enumerate(self.tokens)}
        rows = [[number[token] for token in query_tokens(terms, number)] for terms in queries]
        vectors = np.stack([self.vectors[row].astype(np.float64).sum(axis=0) for row in rows])
        return _unit(vectors).astype(np.float32)


def query_tokens(terms: Sequence[str], known: Container[str]) -> list[str]:
    """Return the known tokens that stand for a query's lexical terms: the term itself, else a word's trigrams."""
    tokens: list[str] = []
    for term in terms:
        if term in known:
            tokens.append(term)
        elif not _CJK.match(term):
            tokens.extend(gram for gram in trigrams(term) if gram in known)
    return tokens


def trigrams(word: str) -> list[str]:
    """Return the character trigrams of `<word>`, each with a leading `#`."""
    framed = f"<{word}>"
    return [f"#{framed[start : start + 3]}" for start in range(len(framed) - 2)]


def token_table(
    documents: Sequence[Sequence[str]],
    vectors: NDArray[np.float32],
    encode_queries: Callable[[list[str]], NDArray[np.float32]],
    seed: int,
    terms: int = TERMS,
) -> TokenTable:
    """Build the table.

    The vector of a term is the encoder's, minus the mean of all, at the length a / (a + share of occurrences): frequent
    terms say less (SIF). A linear map, learned from fragments of the documents, turns queries towards documents. The
    vectors of the trigrams are fitted by ridge regression to add up to the terms.

    Args:
        documents: Lexical terms of each product, in text order.
        vectors: (n, d), the encoder's vectors of the products.
        encode_queries: Turns m short texts into (m, d) vectors; called once.
        seed: Of the fragments.
        terms: The most frequent terms, as many as this, are encoded.
    """
    occurrences = Counter(term for document in documents for term in document)
    spread = Counter(term for document in documents for term in set(document))
    frequent = [term for term, count in spread.most_common(terms) if count >= MIN_DOCUMENTS]
    if not frequent:
        return TokenTable([], np.zeros((0, vectors.shape[1]), dtype=np.float16))
    encoded = encode_queries(frequent).astype(np.float64)
    share = np.array([occurrences[term] for term in frequent]) / occurrences.total()
    start = _unit(encoded - encoded.mean(axis=0)) * (SIF / (SIF + share))[:, None]
    fitted = start @ _map_to_documents(documents, centre(vectors), frequent, start, seed)
    grams, gram_vectors = _fit_trigrams(frequent, spread, fitted)
    return TokenTable(frequent + grams, np.concatenate([fitted, gram_vectors]).astype(np.float16))


def _map_to_documents(
    documents: Sequence[Sequence[str]], centred: NDArray[np.float32], frequent: list[str], start: Floats, seed: int
) -> Floats:
    """Return the (d, d) map that brings the sum of a fragment's terms to its document; a ridge pulls it to identity.

    Moving single terms as well fits the documents at hand and loses the held-out ones.
    """
    number = {term: position for position, term in enumerate(frequent)}
    known = [[number[term] for term in document if term in number] for document in documents]
    usable = np.flatnonzero([len(row) > 0 and bool(vector.any()) for row, vector in zip(known, centred, strict=True)])
    chance = np.random.default_rng(seed)
    drawn = np.tile(chance.permutation(usable), FRAGMENTS_PER_DOCUMENT)[:MAX_FRAGMENTS]
    queries = np.zeros((len(drawn), start.shape[1]))
    for query, item in zip(queries, drawn, strict=True):
        length = int(chance.integers(1, LONGEST_FRAGMENT + 1))
        begin = int(chance.integers(max(1, len(known[item]) - length + 1)))
        query[:] = start[known[item][begin : begin + length]].sum(axis=0)
    queries = _unit(queries)
    identity = np.eye(start.shape[1])
    turn = np.linalg.solve(
        queries.T @ queries + MAP_PENALTY * identity, queries.T @ (centred[drawn].astype(np.float64) - queries)
    )
    return np.asarray(identity + turn)


def _fit_trigrams(frequent: list[str], spread: Counter[str], terms: Floats) -> tuple[list[str], Floats]:
    """Return the trigrams of the catalogue's words, the most frequent first, and vectors that add up to the terms."""
    count: Counter[str] = Counter()
    for word, seen in spread.items():
        if not _CJK.match(word):
            count.update(dict.fromkeys(trigrams(word), seen))
    grams = [gram for gram, seen in count.most_common(TRIGRAMS) if seen >= MIN_DOCUMENTS]
    number = {gram: position for position, gram in enumerate(grams)}
    latin = [row for row, term in enumerate(frequent) if not _CJK.match(term)]
    pairs = [
        (row, number[gram]) for row, term in enumerate(latin) for gram in trigrams(frequent[term]) if gram in number
    ]
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    parts = sparse.csr_array((np.ones(len(rows)), (rows, columns)), (len(latin), len(grams)))
    return grams, _ridge(parts, terms[latin], TRIGRAM_PENALTY)


def _ridge(design: sparse.csr_array, target: Floats, penalty: float) -> Floats:
    """Return the minimiser of |design · x - target|² + penalty · |x|² by conjugate gradients, all columns at once."""
    solution = np.zeros((design.shape[1], target.shape[1]))
    residual = design.T @ target
    direction = residual.copy()
    energy = (residual**2).sum(axis=0)
    for _ in range(STEPS):
        image = design.T @ (design @ direction) + penalty * direction
        step = energy / np.maximum((direction * image).sum(axis=0), 1e-30)
        solution += step * direction
        residual -= step * image
        left = (residual**2).sum(axis=0)
        direction = residual + left / np.maximum(energy, 1e-30) * direction
        energy = left
    return solution


def _unit(vectors: Floats) -> Floats:
    """Return the rows at unit length; zero rows stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-8))
