"""A query encoder that is a table: the sum of a query's token vectors, normalised, points at the products it means.

Tokens are the frequent terms of the catalogue (words, and 1- to 3-grams of Chinese, Japanese and Korean) and character
trigrams, written `#abc`, of the words between `<` and `>`. A word outside the table is the sum of its trigrams, so that
rare and misspelt words still say something. The encoder runs once per term, here; never on a query.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.text.clean import HAN, KANA_HANGUL

TERMS = 6000
TRIGRAMS = 10_000
MIN_DOCUMENTS = 2
SIF = 1e-3
TRIGRAM_PENALTY = 1.0
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
        vectors = np.stack([self.vectors[row].astype(np.float32).sum(axis=0) for row in rows])
        return _unit(vectors)


def query_tokens(terms: Sequence[str], known: Callable[[str], bool] | dict[str, int]) -> list[str]:
    """Return the known tokens that stand for a query's lexical terms: the term itself, else a word's trigrams."""
    is_known = known.__contains__ if isinstance(known, dict) else known
    tokens: list[str] = []
    for term in terms:
        if is_known(term):
            tokens.append(term)
        elif not _CJK.match(term):
            tokens.extend(gram for gram in trigrams(term) if is_known(gram))
    return tokens


def trigrams(word: str) -> list[str]:
    """Return the character trigrams of `<word>`, each with a leading `#`."""
    framed = f"<{word}>"
    return [f"#{framed[start : start + 3]}" for start in range(len(framed) - 2)]


def token_table(
    documents: Sequence[Sequence[str]], encode_queries: Callable[[list[str]], NDArray[np.float32]], terms: int = TERMS
) -> TokenTable:
    """Build the table.

    The vector of a term is the encoder's, minus the mean of all, at the length a / (a + share of occurrences): frequent
    terms say less (SIF). Those of the trigrams are fitted by ridge regression to add up to the terms.

    Args:
        documents: Lexical terms of each product.
        encode_queries: Turns n short texts into (n, d) vectors; called once.
        terms: The most frequent terms, as many as this, are encoded.
    """
    occurrences = Counter(term for document in documents for term in document)
    spread = Counter(term for document in documents for term in set(document))
    frequent = [term for term, count in spread.most_common(terms) if count >= MIN_DOCUMENTS]
    encoded = encode_queries(frequent).astype(np.float64) if frequent else np.zeros((0, 0))
    if not len(encoded):
        return TokenTable([], encoded.astype(np.float16))
    share = np.array([occurrences[term] for term in frequent]) / occurrences.total()
    vectors = _unit(encoded - encoded.mean(axis=0)) * (SIF / (SIF + share))[:, None]
    grams, gram_vectors = _fit_trigrams(frequent, spread, vectors)
    return TokenTable(frequent + grams, np.concatenate([vectors, gram_vectors]).astype(np.float16))


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
        (row, number[gram])
        for row, term in enumerate(latin)
        for gram in trigrams(frequent[term])
        if gram in number
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


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the rows at unit length; zero rows stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-8)
