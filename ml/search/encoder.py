"""A query encoder that is a table: the normalised sum of a query's term vectors points at the products it means.

The table is trained to follow the encoder (its vectors of queries, and its ranking of products), to find a product from
a fragment of its texts and, where there are judged or clicked queries, to add to the lexical score what that lacks.
The products' vectors stay as the encoder made them. The encoder runs here, once per word and fragment; never in SQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.search import terms as cut
from ml.search.lexicon import Document, Lexicon
from ml.search.query import Judged, Reader, feature_matrices

if TYPE_CHECKING:
    import torch

MOST_WORDS, MOST_PAIRS, MOST_GRAMS = 16_000, 12_000, 24_000
SIF = 1e-3
FRAGMENTS, FRAGMENTS_OF_PRODUCT, LONGEST_FRAGMENT = 12_000, 8, 5
# What the mean of a script is worth against that of all texts: as much at so many of its texts.
FEW_TEXTS = 50
FROM_TITLE = 0.85
MOST_JUDGED = 20_000
BATCH = 256
STEPS = 800
RATE = 1e-3
DROPOUT = 0.2
TEMPERATURE = 0.05
# Of a lexical score in the logits of judged queries: the table learns what words do not say.
LEXICAL = 6.0
RELEVANT = 0.66

Floats = NDArray[np.float32]


def train_terms(
    lexicon: Lexicon,
    documents: Sequence[Document],
    vectors: Floats,
    encode_queries: Callable[[list[str]], Floats],
    reader: Reader,
    judged: Sequence[Judged],
    seed: int,
) -> NDArray[np.float16]:
    """Return the vectors of the terms, (m, d); zero where a term has none.

    Args:
        lexicon: The terms of the catalogue.
        documents: The products' texts.
        vectors: (n, d), unit vectors of the products, centred.
        encode_queries: Turns m short texts into (m, d) vectors, zero where one has none; called once.
        reader: Reads queries with the lexicon.
        judged: Queries with judged or clicked products.
        seed: Of the fragments and of what is dropped.
    """
    import torch

    table = np.zeros((len(lexicon.terms), vectors.shape[1]), np.float32)
    rows = _with_vectors(lexicon)
    if not len(rows):
        return table.astype(np.float16)
    is_word = lexicon.is_word[rows]
    words = rows[is_word]
    fragments = draw_fragments(documents, seed)
    examples = [*fragments, *(query for query in judged if query.grades)][: len(fragments) + MOST_JUDGED]
    texts = [*(lexicon.terms[place] for place in words), *(example.query for example in examples)]
    encoded = encode_queries(texts)
    share = lexicon.documents[words] / max(int(lexicon.documents[words].sum()), 1)
    table[words] = _centred(texts[: len(words)], encoded[: len(words)]) * (SIF / (SIF + share))[:, None]
    is_taught = np.asarray(encoded[len(words) :].any(axis=1), bool)
    teacher = _centred(texts[len(words) :], encoded[len(words) :])[is_taught]
    n_fragments = int(is_taught[: len(fragments)].sum())
    examples = [example for example, taught in zip(examples, is_taught, strict=True) if taught]
    if not examples:
        return table.astype(np.float16)
    local = np.full(len(lexicon.terms), -1)
    local[rows] = np.arange(len(rows))
    readings = [reader.read(example.query) for example in examples]
    known = [local[reading.known][local[reading.known] >= 0] for reading in readings]
    words_of = feature_matrices(readings, len(lexicon.terms))["words"]
    training = _Training(
        table=torch.nn.Parameter(torch.from_numpy(table[rows])),
        may_drop=np.array([not lexicon.terms[place].startswith("#") for place in rows]),
        known=known,
        teacher=torch.from_numpy(teacher),
        vectors=vectors,
        examples=examples,
        n_fragments=n_fragments,
        candidates=_candidates(lexicon, words_of[n_fragments:], examples[n_fragments:]),
        chance=np.random.default_rng(seed),
    )
    training.run()
    # Most terms of a large catalogue have no vector, and rows that nobody writes take no memory.
    whole = np.zeros(table.shape, np.float16)
    whole[rows] = training.table.detach().numpy()
    return whole


def draw_fragments(documents: Sequence[Document], seed: int) -> list[Judged]:
    """Return pieces of the names and categories of products: up to five words, or as many characters of Chinese.

    What is drawn of a product depends on it and the seed alone: in a catalogue that has changed little, most fragments
    are those of before, and have been encoded.
    """
    if not documents:
        return []
    keys = [_key(document, seed) for document in documents]
    order = sorted(range(len(documents)), key=keys.__getitem__)
    drawn = (order * (1 + FRAGMENTS // len(documents)))[: min(FRAGMENTS, FRAGMENTS_OF_PRODUCT * len(documents))]
    chances = {item: np.random.default_rng(keys[item]) for item in drawn}
    found = []
    for item in drawn:
        document, chance = documents[item], chances[item]
        texts = [text for text in (document.title, f"{document.brand} {' '.join(document.categories)}") if text.strip()]
        pieces = cut.written(texts[0 if chance.random() < FROM_TITLE else -1]) if texts else []
        if pieces:
            length = int(chance.integers(1, LONGEST_FRAGMENT + 1))
            begin = int(chance.integers(max(1, len(pieces) - length + 1)))
            found.append(Judged(" ".join(_shorten(p, chance) for p in pieces[begin : begin + length]), {item: 1.0}))
    return found


def _key(document: Document, seed: int) -> int:
    """Return a number that looks drawn, from a seed and what fragments are made of."""
    said = "\x1f".join([str(seed), document.title, document.brand, *document.categories])
    return int.from_bytes(hashlib.sha256(said.encode(errors="replace")).digest()[:8], "big")


def _shorten(piece: str, chance: np.random.Generator) -> str:
    """Return a run of Chinese cut to what one might type, and anything else as it is."""
    if not cut.is_cjk(piece) or len(piece) <= 2:
        return piece
    length = int(chance.integers(2, min(6, len(piece)) + 1))
    begin = int(chance.integers(len(piece) - length + 1))
    return piece[begin : begin + length]


def _with_vectors(lexicon: Lexicon) -> NDArray[np.int64]:
    """Return the positions of the most frequent words, pairs and character n-grams."""
    kind = np.array([2 if term.startswith("#") else 1 for term in lexicon.terms], np.int64)
    kind[lexicon.is_word] = 0
    chosen = []
    for which, most in enumerate((MOST_WORDS, MOST_PAIRS, MOST_GRAMS)):
        places = np.flatnonzero(kind == which)
        chosen.append(places[np.argsort(-lexicon.documents[places], kind="stable")[:most]])
    return np.sort(np.concatenate(chosen))


def _candidates(
    lexicon: Lexicon, words: sparse.csr_array, judged: Sequence[Judged]
) -> list[tuple[NDArray[np.int64], Floats, Floats]]:
    """Return the judged products of each query, their grades and what the words of the query say of them.

    What nobody judged is no example of a bad answer: the best of it by words is mostly good.
    """
    found = []
    for row, query in enumerate(judged):
        items = np.fromiter(query.grades, np.int64, len(query.grades))
        scores = np.asarray((lexicon.matrix[items] @ words[[row]].T).todense(), np.float32).ravel()
        found.append((items, np.fromiter(query.grades.values(), np.float32, len(items)), scores))
    return found


@dataclass
class _Training:
    """The table while it is trained."""

    table: torch.nn.Parameter
    may_drop: NDArray[np.bool_]
    known: list[NDArray[np.int64]]
    teacher: torch.Tensor
    vectors: Floats
    examples: Sequence[Judged]
    n_fragments: int
    candidates: list[tuple[NDArray[np.int64], Floats, Floats]]
    chance: np.random.Generator

    def run(self) -> None:
        import torch

        n_judged = len(self.examples) - self.n_fragments
        steps = min(STEPS, 60 + len(self.examples) // 4)
        optimiser = torch.optim.SparseAdam([self.table], lr=RATE)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = RATE * (1 - 0.9 * step / steps)
            optimiser.zero_grad()
            loss = self._follow(self._draw(0, self.n_fragments, BATCH), finds=True)
            if n_judged:
                batch = self._draw(self.n_fragments, len(self.examples), BATCH // 2)
                loss = loss + self._follow(batch, finds=False) + self._rank(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()  # type: ignore[no-untyped-call]

    def _draw(self, first: int, last: int, size: int) -> NDArray[np.int64]:
        return first + self.chance.choice(last - first, min(size, last - first), replace=False)

    def _encode(self, batch: NDArray[np.int64]) -> torch.Tensor:
        """Return the vectors of queries from whose words and pairs some were dropped."""
        import torch
        from torch.nn import functional

        parts = []
        for number in batch:
            terms = self.known[number]
            kept = terms[~(self.may_drop[terms] & (self.chance.random(len(terms)) < DROPOUT))]
            parts.append(kept if len(kept) else terms)
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])[:-1]])
        summed = functional.embedding_bag(
            torch.from_numpy(np.concatenate(parts)), self.table, torch.from_numpy(offsets), mode="sum", sparse=True
        )
        return functional.normalize(summed, dim=1, eps=1e-6)

    def _follow(self, batch: NDArray[np.int64], finds: bool) -> torch.Tensor:
        """Return how far the queries are from the encoder's, in direction and in what they rank first."""
        import torch
        from torch.nn import functional

        queries, teacher = self._encode(batch), self.teacher[batch]
        items = [max(self.examples[number].grades.items(), key=lambda pair: pair[1])[0] for number in batch]
        products = torch.from_numpy(self.vectors[items])
        logits = queries @ products.T / TEMPERATURE
        loss = (1 - (queries * teacher).sum(1)).mean() + functional.kl_div(
            functional.log_softmax(logits, dim=1),
            functional.log_softmax(teacher @ products.T / TEMPERATURE, dim=1),
            log_target=True,
            reduction="batchmean",
        )
        if finds:
            # Another fragment of the same product is no wrong answer.
            repeats = np.equal.outer(items, items) & ~np.eye(len(items), dtype=bool)
            others = logits.masked_fill(torch.from_numpy(repeats), -torch.inf)
            loss = loss + 0.2 * functional.cross_entropy(others, torch.arange(len(batch)))
        return loss

    def _rank(self, batch: NDArray[np.int64]) -> torch.Tensor:
        """Return the cross-entropy of the relevant products among the judged and the other queries' best."""
        import torch
        from torch.nn import functional

        chosen = [self.candidates[number - self.n_fragments] for number in batch]
        width = max(len(items) for items, _, _ in chosen)
        item = np.zeros((len(batch), width), np.int64)
        grade, lexical = np.zeros((2, len(batch), width), np.float32)
        blank = np.full((len(batch), width), -np.inf, np.float32)
        for row, (items, grades, scores) in enumerate(chosen):
            item[row, : len(items)], blank[row, : len(items)] = items, 0
            grade[row, : len(items)], lexical[row, : len(items)] = grades, scores
        queries = self._encode(batch)
        products = torch.from_numpy(self.vectors[item])
        own = torch.einsum("qd,qcd->qc", queries, products) / TEMPERATURE
        own = own + torch.from_numpy(LEXICAL * lexical + blank)
        best = item[np.arange(len(batch)), grade.argmax(axis=1)]
        is_own = ((item[:, :, None] == best) & (blank[:, :, None] == 0)).any(axis=1)
        others = queries @ torch.from_numpy(self.vectors[best]).T / TEMPERATURE
        others = others.masked_fill(torch.from_numpy(is_own), -torch.inf)
        target = np.where(grade >= RELEVANT, grade, 0)
        is_taught = target.any(axis=1)
        target = target / np.maximum(target.sum(axis=1, keepdims=True), 1e-9)
        likelihood = functional.log_softmax(torch.cat([own, others], dim=1), dim=1)[:, :width]
        # Where nothing is probable, nothing is asked for either: 0 · -inf would not be a number.
        weighted = torch.from_numpy(target.astype(np.float32)) * likelihood.clamp(min=-100)
        return -weighted.sum() / max(int(is_taught.sum()), 1)


def _centred(texts: Sequence[str], vectors: Floats) -> Floats:
    """Return the vectors of texts minus the mean of those in the same script, of unit length; zero where they are.

    What all queries have in common says nothing of a product, nor does what all Chinese ones have: with it a query
    would find the products of its own language alone. The mean of a script with few texts is drawn to that of all.
    """
    has_vector = vectors.any(axis=1)
    is_chinese = np.array([any(map(cut.is_cjk, text)) for text in texts], bool)
    shifted = np.array(vectors, np.float32)
    for script in (is_chinese & has_vector, ~is_chinese & has_vector):
        # The mean of a few texts is what they say: it counts as far as there are many.
        pull = script.sum() / (script.sum() + FEW_TEXTS)
        if script.any() and has_vector.sum() > 2:
            shifted[script] -= pull * vectors[script].mean(axis=0) + (1 - pull) * vectors[has_vector].mean(axis=0)
    length = np.linalg.norm(shifted, axis=1, keepdims=True)
    return np.asarray(shifted / np.maximum(length, 1e-9), np.float32)
