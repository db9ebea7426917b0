"""The category model: P(category | x) = softmax(W x + b), x being the vector of a query or of a shopper.

Multinomial logistic regression (Bishop 2006, 4.3.4), so that SQL evaluates it with one inner product per category.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from ml.recommender.fusion import recent
from ml.recommender.train import distinct
from ml.text import detect_language, segment

MIN_PRODUCTS = 2
DECAY = 0.8
STEPS_PER_SHOPPER = 5
FRAGMENTS_PER_PRODUCT = 4
LONGEST_FRAGMENT = 5
MAX_EXAMPLES = 30_000
# Fewer queries than this say less about the model than the fragments do.
MIN_SEARCHES = 200
HELD_OUT = 0.2
PENALTIES = (1e-3, 1e-4, 1e-5, 1e-6)
# Each penalty starts from the last one's weights. On 480 real categories five times the steps are no better.
MAX_STEPS = 30
ROWS_PER_BLOCK = 4096

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Encode = Callable[[list[str]], Floats]


@dataclass(frozen=True)
class Category:
    """One row of the model.

    Attributes:
        input: `query` or `user`: what x is.
        category: Leaf category.
        bias: Its b.
        vector: float32 (d,), its row of W.
    """

    input: str
    category: str
    bias: float
    vector: Floats


@dataclass(frozen=True)
class Examples:
    """What is learned from.

    Attributes:
        vectors: float32 (m, d), of unit length, or zero where nothing is known.
        labels: int64 (m,), positions in the list of categories.
        groups: int64 (m,); examples of one group (a query, a shopper) are held out together.
    """

    vectors: Floats
    labels: Ints
    groups: Ints

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, kept: NDArray[np.bool_]) -> Examples:
        """Return the examples that a mask keeps."""
        return Examples(self.vectors[kept], self.labels[kept], self.groups[kept])


@dataclass(frozen=True)
class Quality:
    """How well categories of held-out examples are told, next to always giving the shares of the training examples.

    Attributes:
        examples: Number of examples learned from in the end, the held-out ones included.
        held_out: Number of examples that were held out.
        accuracy: Share whose most probable category is right.
        log_loss: Mean of -log P(right category), in nats.
        majority_accuracy: Accuracy of the most frequent category.
        majority_log_loss: Log loss of the shares (one added to each count).
        penalty: The chosen weight of |W|².
    """

    examples: int
    held_out: int
    accuracy: float
    log_loss: float
    majority_accuracy: float
    majority_log_loss: float
    penalty: float


@dataclass(frozen=True)
class Model:
    """A fitted model: float32 (c, d) weights, (c,) biases, and the quality on held-out examples."""

    weights: Floats
    bias: Floats
    quality: Quality

    def rows(self, input: str, categories: Sequence[str]) -> list[Category]:
        """Return the model as it is stored."""
        return [
            Category(input, category, float(bias), vector)
            for category, bias, vector in zip(categories, self.bias, self.weights, strict=True)
        ]

    def log_probabilities(self, vectors: Floats) -> NDArray[np.float64]:
        """Return log P(category | x): float64 (m, c)."""
        return _log_softmax(vectors @ self.weights.T + self.bias)


def leaf_categories(paths: Sequence[Sequence[str]]) -> tuple[list[str], Ints]:
    """Return the leaf categories with at least two products, sorted, and the place of each product's among them.

    Products of other categories have -1.
    """
    counts = Counter(path[-1] for path in paths if path)
    names = sorted(name for name, count in counts.items() if count >= MIN_PRODUCTS)
    number = {name: place for place, name in enumerate(names)}
    return names, np.array([number.get(path[-1], -1) if path else -1 for path in paths], dtype=np.int64)


def history_vectors(histories: Sequence[Sequence[int]], vectors: NDArray[np.floating]) -> Floats:
    """Return the vector of each shopper: Σ_k 0.8^k · vectors[h_k], normalised; float32 (u, d), zero without a history.

    Args:
        histories: Item indices in time order; the last 20 distinct ones count, h_0 being the newest.
        vectors: (n, d), the items.
    """
    newest = [recent(history) for history in histories]
    lengths = [len(items) for items in newest]
    columns = np.array([item for items in newest for item in items], dtype=np.int64)
    powers = np.array([DECAY**k for length in lengths for k in range(length)], dtype=np.float32)
    rows = np.repeat(np.arange(len(histories)), lengths)
    taken = sparse.csr_array((powers, (rows, columns)), shape=(len(histories), len(vectors)))
    return _unit(taken @ vectors.astype(np.float32))


def user_examples(sequences: Sequence[Sequence[int]], leaf: Ints, vectors: NDArray[np.floating], seed: int) -> Examples:
    """Return the last steps of shoppers: what each had, and the category of the new item that came next."""
    firsts = [distinct(sequence) for sequence in sequences]
    steps = [
        (user, step)
        for user, items in enumerate(firsts)
        for step in range(max(1, len(items) - STEPS_PER_SHOPPER), len(items))
        if leaf[items[step]] >= 0
    ]
    kept = _sample(len(steps), seed)
    chosen = [steps[place] for place in kept]
    labels = np.array([leaf[firsts[user][step]] for user, step in chosen], dtype=np.int64)
    histories = [firsts[user][:step] for user, step in chosen]
    return Examples(history_vectors(histories, vectors), labels, np.array([user for user, _ in chosen], dtype=np.int64))


def query_examples(searches: Sequence[tuple[str, int]], leaf: Ints, encode: Encode, seed: int) -> Examples:
    """Return searches: the vector of each query, and the category of a product that was chosen in it.

    Args:
        searches: Pairs of a query and a chosen item.
        leaf: Category of each item, -1 for none.
        encode: Gives the vectors of m texts, (m, d).
        seed: Of the sample, where there are too many.
    """
    known = [(query, int(leaf[item])) for query, item in searches if leaf[item] >= 0]
    chosen = [known[place] for place in _sample(len(known), seed)]
    queries = list(dict.fromkeys(query for query, _ in chosen))
    number = {query: place for place, query in enumerate(queries)}
    groups = np.array([number[query] for query, _ in chosen], dtype=np.int64)
    return Examples(_encoded(encode, queries)[groups], np.array([label for _, label in chosen], dtype=np.int64), groups)


def fragment_examples(titles: Sequence[str], leaf: Ints, encode: Encode, seed: int) -> Examples:
    """Return pieces of titles, one to five words long, with the category of their product: queries nobody has typed.

    Of a large catalogue a part is read, so chosen that every category is in it.
    """
    chance = np.random.default_rng(seed)
    usable = chance.permutation(np.flatnonzero(leaf >= 0))
    usable = usable[np.argsort(leaf[usable], kind="stable")]
    place = np.arange(len(usable)) - np.searchsorted(leaf[usable], leaf[usable])
    usable = np.sort(usable[np.argsort(place, kind="stable")][: MAX_EXAMPLES // FRAGMENTS_PER_PRODUCT])
    texts, items = [], []
    for item in usable.tolist():
        lang = detect_language(titles[item])
        words = segment(titles[item], lang)
        for _ in range(FRAGMENTS_PER_PRODUCT if words else 0):
            length = int(chance.integers(1, LONGEST_FRAGMENT + 1))
            start = int(chance.integers(max(1, len(words) - length + 1)))
            texts.append(("" if lang == "zh" else " ").join(words[start : start + length]))
            items.append(item)
    groups = np.array(items, dtype=np.int64)
    return Examples(_encoded(encode, texts), leaf[groups], groups)


def fit_category(examples: Examples, n_categories: int, seed: int, more: Examples | None = None) -> Model | None:
    """Fit the model: the penalty on a fifth of the groups that is held out, then the weights on everything.

    Args:
        examples: What the model is for, and measured on.
        n_categories: Number of categories.
        seed: Of the split.
        more: Examples that are learned from and not measured.

    Returns:
        The model; None where there is nothing to tell apart: fewer than two categories, or than two groups.
    """
    groups = np.unique(examples.groups)
    if len(groups) < 2 or n_categories < 2:
        return None
    drawn = np.random.default_rng(seed).permutation(groups)[: max(1, round(HELD_OUT * len(groups)))]
    is_held_out = np.isin(examples.groups, drawn)
    train, test = _joined(examples.where(~is_held_out), more), examples.where(is_held_out)
    counts = np.bincount(train.labels, minlength=n_categories) + 1.0
    shares = np.log(counts / counts.sum())
    weights = np.zeros((n_categories, examples.vectors.shape[1] + 1))
    weights[:, -1] = shares
    best_loss, best_penalty, best = np.inf, PENALTIES[0], weights
    for penalty in PENALTIES:
        weights = _minimise(train, weights, penalty)
        loss, _ = _measure(_log_softmax(_affine(test.vectors, weights)), test.labels)
        if loss >= best_loss:
            break
        best_loss, best_penalty, best = loss, penalty, weights
    _, accuracy = _measure(_log_softmax(_affine(test.vectors, best)), test.labels)
    prior = np.broadcast_to(shares, (len(test), n_categories))
    majority_loss, majority_accuracy = _measure(prior, test.labels)
    everything = _joined(examples, more)
    final = _minimise(everything, best, best_penalty).astype(np.float32)
    quality = Quality(len(everything), len(test), accuracy, best_loss, majority_accuracy, majority_loss, best_penalty)
    return Model(np.ascontiguousarray(final[:, :-1]), final[:, -1], quality)


def fit_query_category(
    searches: Sequence[tuple[str, int]], titles: Sequence[str], leaf: Ints, n_categories: int, encode: Encode, seed: int
) -> Model | None:
    """Fit the model of queries to searches and to fragments of titles; measured on searches if there are enough.

    Args:
        searches: Pairs of a query and an item that was chosen in it.
        titles: Of all items.
        leaf: Category of each item, -1 for none.
        n_categories: Number of categories.
        encode: Gives the vectors of m texts, (m, d).
        seed: Of everything that is drawn.

    Returns:
        The model; None where there is nothing to learn from.
    """
    searched = query_examples(searches, leaf, encode, seed)
    fragments = fragment_examples(titles, leaf, encode, seed)
    if len(np.unique(searched.groups)) < MIN_SEARCHES:
        return fit_category(fragments, n_categories, seed, searched)
    return fit_category(searched, n_categories, seed, fragments)


def _minimise(examples: Examples, start: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Return the (c, d + 1) weights, the bias last, that minimise mean cross-entropy + penalty · |W|² by L-BFGS."""
    shape = start.shape

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(shape)
        total, gradient = 0.0, np.zeros(shape)
        for first in range(0, len(examples), ROWS_PER_BLOCK):
            rows = slice(first, first + ROWS_PER_BLOCK)
            vectors, labels = examples.vectors[rows], examples.labels[rows]
            logs = _log_softmax(_affine(vectors, weights))
            own = np.arange(len(labels)), labels
            total -= float(logs[own].sum())
            error = np.exp(logs, out=logs)
            error[own] -= 1.0
            gradient[:, :-1] += error.T.astype(np.float32) @ vectors
            gradient[:, -1] += error.sum(axis=0)
        gradient /= len(examples)
        gradient[:, :-1] += 2 * penalty * weights[:, :-1]
        return total / len(examples) + penalty * float((weights[:, :-1] ** 2).sum()), gradient.ravel()

    options = {"maxiter": MAX_STEPS, "ftol": 1e-5, "gtol": 1e-6}
    fit = optimize.minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(fit.x, dtype=np.float64).reshape(shape)


def _affine(vectors: Floats, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors @ weights[:, :-1].T.astype(np.float32) + weights[:, -1]


def _log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _measure(log_probabilities: NDArray[np.float64], labels: Ints) -> tuple[float, float]:
    """Return log loss and accuracy."""
    right = log_probabilities[np.arange(len(labels)), labels]
    return float(-right.mean()), float((log_probabilities.argmax(axis=1) == labels).mean())


def _joined(examples: Examples, more: Examples | None) -> Examples:
    if more is None or not len(more):
        return examples
    return Examples(
        np.concatenate([examples.vectors, more.vectors]),
        np.concatenate([examples.labels, more.labels]),
        np.concatenate([examples.groups, more.groups]),
    )


def _encoded(encode: Encode, texts: list[str]) -> Floats:
    return encode(texts) if texts else np.zeros((0, 0), dtype=np.float32)


def _sample(count: int, seed: int) -> Ints:
    """Return at most MAX_EXAMPLES places out of a number, in order."""
    if count <= MAX_EXAMPLES:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MAX_EXAMPLES, replace=False))


def _unit(vectors: NDArray[np.floating]) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros(vectors.shape, dtype=np.float32), where=length > 1e-8)
