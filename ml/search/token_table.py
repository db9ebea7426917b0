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
FRAGMENTS = 20_000
LONGEST_FRAGMENT = 5
TERM_PENALTY = 0.3
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
    documents: Sequence[Sequence[str]],
    vectors: NDArray[np.floating],
    encode_queries: Callable[[list[str]], NDArray[np.float32]],
    seed: int,
) -> TokenTable:
    """Build the table.

    A term starts as the encoder's vector of it, centred and weighted by SIF; ridge regression then moves it so that
    fragments of documents land on their documents' vectors. Trigrams are fitted by ridge regression on the terms.

    Args:
        documents: Lexical terms of each product, in text order.
        vectors: (n, d), the products' vectors, centred, of unit length or zero.
        encode_queries: Encodes up to 6,000 short texts, (m, d).
        seed: Of the fragments drawn.
    """
    occurrences = Counter(term for terms in documents for term in terms)
    spread = Counter(term for terms in documents for term in set(terms))
    frequent = [term for term, count in spread.most_common() if count >= MIN_DOCUMENTS][:TERMS]
    if not frequent:
        return TokenTable([], np.zeros((0, vectors.shape[1]), dtype=np.float16))
    encoded = encode_queries(frequent).astype(np.float64)
    share = np.array([occurrences[term] for term in frequent]) / sum(occurrences.values())
    start = _unit(encoded - encoded.mean(axis=0)) * (SIF / (SIF + share))[:, None]
    terms = _fit_terms(documents, vectors.astype(np.float64), frequent, start, seed)
    grams, gram_vectors = _fit_trigrams(frequent, spread, terms)
    return TokenTable(frequent + grams, np.concatenate([terms, gram_vectors]).astype(np.float16))


def _fit_terms(
    documents: Sequence[Sequence[str]], vectors: Floats, frequent: list[str], start: Floats, seed: int
) -> Floats:
    """Return the term vectors, moved from `start` so that fragments meet their documents."""
    number = {term: position for position, term in enumerate(frequent)}
    known = [[number[term] for term in terms if term in number] for terms in documents]
    usable = np.flatnonzero([len(row) > 0 and vectors[item].any() for item, row in enumerate(known)])
    if not len(usable):
        return start
    chance = np.random.default_rng(seed)
    drawn = chance.permutation(np.resize(chance.permutation(usable), FRAGMENTS))
    rows, columns = [], []
    for row, item in enumerate(drawn):
        length = min(int(chance.integers(1, LONGEST_FRAGMENT + 1)), len(known[item]))
        begin = int(chance.integers(0, len(known[item]) - length + 1))
        rows.extend([row] * length)
        columns.extend(known[item][begin : begin + length])
    bags = sparse.csr_array((np.ones(len(rows)), (rows, columns)), (len(drawn), len(frequent)))
    length_of = np.linalg.norm(bags @ start, axis=1)
    bags = (sparse.diags_array(1.0 / np.maximum(length_of, 1e-3)) @ bags).tocsr()
    return start + _ridge(bags, vectors[drawn] - bags @ start, TERM_PENALTY)


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
