"""The score of an item for a shopper: five terms, weighted; the same formula that the SQL function computes.

For a history h_0 (newest), h_1, … of distinct items, the term `sequence` of item j is max(0, 1 + (s_j - s) / 10): s_j
is its logit by the sequence model (`ml.recommender.pq`), s the largest of the items outside the history. An edge term
is Σ_k decay^k · val(h_k → j) over k < 10, divided by its maximum over the items outside the history. The three newest
items speak for 50 neighbours each, the others for 20: on held-out data that costs nothing, and it is a third of the
work. Popularity is taken as it is. The weights depend on the length of the history. Without a history the score is the
popularity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from ml.recommender.edges import Edges
from ml.recommender.pq import PLACES, tastes

DECAYS = {"transition": 0.7, "tfidf": 0.7, "encoder": 0.6}
TERMS = ("sequence", *DECAYS, "popularity")
HISTORY = PLACES
# Places of the history, newest first, and the neighbours that each speaks for: (from, to, neighbours).
REACH = ((0, 3, 50), (3, 10, 20))
POPULAR = 200
LIKELY = 200
# A logit that is so much lower than the largest says no more.
LOGIT_RANGE = 10.0
BUCKETS = (1, 3, 6, 11)
MIN_USERS = 200
MAX_USERS = 10_000
# Of a large catalogue fewer shoppers are learned from, and fewer scored at once: every item of each is.
MAX_SCORES = 2_000_000_000
SCORES_PER_BLOCK = 4_000_000
L2 = 1e-4
USERS_PER_BLOCK = 256
# Too few shoppers to learn from: every term speaks equally loud.
EQUAL_WEIGHTS = {(term, 1): 1.0 for term in TERMS}

Weights = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Recommender:
    """Everything that is served; indices are positions in `item_ids`.

    Attributes:
        item_ids: The catalogue.
        edges: Item graph for each of the kinds in `DECAYS`, and `cooccurrence`, which no term of the score reads.
        popularity: float32 (n,), log(1 + events) over its maximum: 0 to 1.
        weights: Weight of (term, smallest history length it applies to).
        text_vectors: float16 (n, d), centred on the catalogue, unit length (zero where the text says nothing).
        features: float32 (n, 256), what the sequence model reads of the texts; not served.
        inputs: float16 (n, 256), p of the sequence model.
        outputs: float16 (n, 257), its q over the temperature, and the bias.
        position_weights: float32 (20, 256), its w, that of the newest item first.
    """

    item_ids: list[str]
    edges: dict[str, Edges]
    popularity: NDArray[np.float32]
    weights: Weights
    text_vectors: NDArray[np.float16]
    features: NDArray[np.float32]
    inputs: NDArray[np.float16]
    outputs: NDArray[np.float16]
    position_weights: NDArray[np.float32]


def recent(history: Sequence[int]) -> list[int]:
    """Return the last 20 distinct items of a history in time order, newest first."""
    return list(dict.fromkeys(reversed(history)))[:HISTORY]


def edge_scores(
    matrix: sparse.csr_array, histories: Sequence[Sequence[int]], decay: float, first: int = 0, after: int = HISTORY
) -> NDArray[np.float64]:
    """Return Σ_k decay^k · matrix[h_k] over first <= k < after for each history; 0 for items already had.

    Returns:
        float64 (n_histories, n_items).
    """
    newest_first = [recent(history)[first:after] for history in histories]
    lengths = [len(items) for items in newest_first]
    columns = np.array([item for items in newest_first for item in items], dtype=int)
    powers = np.array([decay ** (first + k) for length in lengths for k in range(length)])
    rows = np.repeat(np.arange(len(histories)), lengths)
    taken = sparse.csr_array((powers, (rows, columns)), (len(histories), matrix.shape[0]))
    scores: NDArray[np.float64] = (taken @ matrix).toarray()
    for row, history in zip(scores, histories, strict=True):
        row[list(history)] = 0.0
    return scores


def score(recommender: Recommender, history: Sequence[int]) -> NDArray[np.float64]:
    """Return the served score of every item for one history in time order; -inf for items already had."""
    block = next(score_batch(recommender, [history]))
    return np.asarray(block[0])


def score_batch(recommender: Recommender, histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
    """Yield the served scores of blocks of histories, in order: float64 (up to 256, n_items)."""
    table = _weight_table(recommender.weights)
    for block, terms in _term_blocks(recommender, histories):
        weights = table[[len(recent(history)) for history in block]]
        scores = np.einsum("ut,uti->ui", weights, terms, optimize=True)
        for row, history in zip(scores, block, strict=True):
            row[list(history)] = -np.inf
        yield scores


def fit_weights(
    recommender: Recommender, histories: Sequence[Sequence[int]], targets: Sequence[int], least: int = MIN_USERS
) -> Weights:
    """Learn the weights from what shoppers took next.

    Softmax cross-entropy of the next item among the candidates (the 200 likeliest by the sequence model, items with
    an edge from the history, and the 200 most popular), over the shoppers whose next item is one of them;
    L2-regularised; weights not negative: a reason never speaks against its item.
    One set of weights per bucket of history lengths with at least 200 shoppers, or `least`.

    Args:
        recommender: Fitted without the targets; its weights are ignored.
        histories: What each shopper had, in time order, not empty.
        targets: What each took next.
        least: Shoppers of a bucket.

    Returns:
        Weights of every term for every bucket; equal ones if there are fewer than `least` shoppers.
    """
    weights: Weights = {}
    for first, users in _buckets(histories, least).items():
        most = max(1, min(MAX_USERS, MAX_SCORES // len(recommender.item_ids)))
        users = users[:: 1 + len(users) // most]
        features, sizes, chosen = _candidates(
            recommender, [histories[user] for user in users], [targets[user] for user in users]
        )
        if not len(chosen):
            return dict(EQUAL_WEIGHTS)
        fitted = _fit_softmax(features, sizes, chosen)
        weights |= {(term, first): float(value) for term, value in zip(TERMS, fitted, strict=True)}
    return weights or dict(EQUAL_WEIGHTS)


def _weight_table(weights: Weights) -> NDArray[np.float64]:
    """Return the weights by history length, (HISTORY + 1, terms); without a history, popularity alone."""
    table = np.zeros((HISTORY + 1, len(TERMS)))
    table[0, TERMS.index("popularity")] = 1.0
    for (term, first), value in sorted(weights.items(), key=lambda item: item[0][1]):
        table[first:, TERMS.index(term)] = value
    return table


def _term_blocks(
    recommender: Recommender, histories: Sequence[Sequence[int]]
) -> Iterator[tuple[Sequence[Sequence[int]], NDArray[np.float64]]]:
    """Yield blocks of histories with their normalised terms, (users, terms, n_items)."""
    n_items = len(recommender.item_ids)
    graphs = {kind: [recommender.edges[kind].matrix(n_items, top) for _, _, top in REACH] for kind in DECAYS}
    outputs = recommender.outputs.astype(np.float32).T
    per_block = max(1, min(USERS_PER_BLOCK, SCORES_PER_BLOCK // max(n_items, 1)))
    for start in range(0, len(histories), per_block):
        block = histories[start : start + per_block]
        terms = np.empty((len(block), len(TERMS), n_items))
        terms[:, 0] = _likelihood(recommender, block, outputs)
        for number, (kind, decay) in enumerate(DECAYS.items(), 1):
            scores = sum(
                (
                    edge_scores(graph, block, decay, first, after)
                    for graph, (first, after, _) in zip(graphs[kind], REACH, strict=True)
                ),
                np.zeros((len(block), n_items)),
            )
            largest = scores.max(axis=1, keepdims=True, initial=0.0)
            terms[:, number] = np.divide(scores, largest, out=scores, where=largest > 0)
        terms[:, -1] = recommender.popularity
        yield block, terms


def _likelihood(
    recommender: Recommender, histories: Sequence[Sequence[int]], outputs: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the term `sequence`, (users, n_items), given the outputs as float32 (d + 1, n_items)."""
    logits = tastes(recommender.inputs, recommender.position_weights, [recent(items) for items in histories]) @ outputs
    for row, history in zip(logits, histories, strict=True):
        row[list(history)] = -np.inf
    largest = logits.max(axis=1, keepdims=True, initial=-np.inf)
    known = np.isfinite(largest)
    return np.maximum(0, 1 + (logits - np.where(known, largest, 0)) / LOGIT_RANGE)


def _buckets(histories: Sequence[Sequence[int]], least: int) -> dict[int, NDArray[np.int64]]:
    """Return the users of each bucket by its smallest history length; small ones are joined to the next shorter."""
    lengths = np.array([len(recent(history)) for history in histories], dtype=int)
    buckets: dict[int, NDArray[np.int64]] = {}
    members = np.zeros(0, dtype=np.int64)
    for first, after in reversed(list(zip(BUCKETS, (*BUCKETS[1:], HISTORY + 1), strict=True))):
        members = np.concatenate([np.flatnonzero((lengths >= first) & (lengths < after)), members])
        if len(members) >= least:
            buckets[first] = members
            members = np.zeros(0, dtype=np.int64)
    if buckets:
        # Histories shorter than any that could be learned from are served by the shortest bucket.
        shortest = min(buckets)
        members = np.concatenate([members, buckets.pop(shortest)])
        buckets[BUCKETS[0]] = members
    return buckets


def _candidates(
    recommender: Recommender, histories: Sequence[Sequence[int]], targets: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the terms of all candidates (m, terms), their number per user, and the row of each target.

    Only users whose target is a candidate are in it.
    """
    popular = np.argsort(-recommender.popularity, kind="stable")[:POPULAR]
    likely = min(LIKELY, len(recommender.item_ids))
    features: list[NDArray[np.float64]] = [np.zeros((0, len(TERMS)))]
    chosen: list[int] = []
    read = done = 0
    for block, terms in _term_blocks(recommender, histories):
        for history, target, of_user in zip(block, targets[read : read + len(block)], terms, strict=True):
            is_candidate = (of_user[1:-1] > 0).any(axis=0)
            is_candidate[np.argpartition(-of_user[0], likely - 1)[:likely]] = True
            is_candidate[popular] = True
            is_candidate[list(history)] = False
            # A target that no term reaches would only teach that every term is wrong.
            if is_candidate[target]:
                chosen.append(done + int(is_candidate[:target].sum()))
                features.append(of_user[:, is_candidate].T)
                done += len(features[-1])
        read += len(block)
    return np.concatenate(features), np.array([len(rows) for rows in features[1:]]), np.array(chosen)


def _fit_softmax(
    features: NDArray[np.float64], sizes: NDArray[np.int64], chosen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the weights >= 0 that minimise the mean cross-entropy of the chosen rows within their groups."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = features @ weights
        logits -= np.repeat(np.maximum.reduceat(logits, starts), sizes)
        shares = np.exp(logits)
        totals = np.add.reduceat(shares, starts)
        shares /= np.repeat(totals, sizes)
        value = np.mean(np.log(totals) - logits[chosen]) + L2 * weights @ weights
        gradient = (shares @ features - features[chosen].sum(axis=0)) / len(sizes) + 2 * L2 * weights
        return float(value), gradient

    start = np.ones(len(TERMS))
    fit = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(TERMS))
    return np.asarray(fit.x, dtype=np.float64)
