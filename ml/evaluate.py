"""Offline evaluation: leave-one-out, full ranking over the catalogue, history masked, mean rank for ties."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.recommender.edges import Edges, cooccurrences, transitions
from ml.recommender.fusion import Recommender, edge_scores, fit_weights, score_batch
from ml.recommender.train import Catalogue, check, distinct, from_texts, popularity, with_events

PROTOCOL = (
    "leave-one-out: a shopper's last new item is the test, the one before it validation, the rest trains; "
    "full ranking, history masked, mean rank for ties; weights learned on validation, whose figures are cross-fitted"
)
CUT = 10
RESAMPLES = 1000
USERS_PER_BLOCK = 256
# The best of 0.7 to 1 on validation, for both baselines.
BASELINE_DECAY = 0.7

Scorer = Callable[[Sequence[Sequence[int]]], Iterator[NDArray[np.float64]]]
Report = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """Histories and what followed them, one of each per shopper.

    Attributes:
        train: Sequences without the last two items.
        validation: The item after `train`.
        test: The item after that; its history is `train` and `validation`.
        skipped: Number of shoppers with fewer than three distinct items, who only train.
    """

    train: list[list[int]]
    validation: list[int]
    test: list[int]
    skipped: list[list[int]]


def leave_one_out(sequences: Sequence[Sequence[int]]) -> Split:
    """Split sequences in time order; of a repeated item only the first occurrence counts."""
    firsts = [distinct(sequence) for sequence in sequences]
    long = [items for items in firsts if len(items) >= 3]
    return Split(
        [items[:-2] for items in long],
        [items[-2] for items in long],
        [items[-1] for items in long],
        [items for items in firsts if len(items) < 3],
    )


def ranks(scorer: Scorer, histories: Sequence[Sequence[int]], targets: Sequence[int]) -> NDArray[np.float64]:
    """Return the rank of each target among all items outside its history: 0 is best, ties get their mean.

    Raises:
        ValueError: A target is in its own history, so it could not be ranked: the split leaks.
    """
    if any(target in history for history, target in zip(histories, targets, strict=True)):
        raise ValueError("a target is in the history that it is to be predicted from")
    found: list[NDArray[np.float64]] = []
    done = 0
    for block in scorer(histories):
        for row, history in zip(block, histories[done : done + len(block)], strict=True):
            row[list(history)] = -np.inf
        reached = block[np.arange(len(block)), targets[done : done + len(block)]][:, None]
        found.append((block > reached).sum(axis=1) + ((block == reached).sum(axis=1) - 1) / 2)
        done += len(block)
    return np.concatenate(found)


def gains(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return recall@10 and NDCG@10 of each user, shape (users, 2)."""
    hit = positions < CUT
    return np.stack([hit, hit / np.log2(positions + 2)], axis=1)


def intervals(values: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Return the 95 % bootstrap intervals of the means of (n, m) values, shape (2, m); nan is left out."""
    chance = np.random.default_rng(seed)
    means = [np.nanmean(values[chance.integers(len(values), size=len(values))], axis=0) for _ in range(RESAMPLES)]
    return np.quantile(np.stack(means), [0.025, 0.975], axis=0)


def evaluate(
    catalogue: Catalogue, sequences: Sequence[Sequence[int]], data: str, seed: int = 0, arms: Sequence[str] = ()
) -> Report:
    """Measure the served model next to its baselines.

    Args:
        catalogue: The items.
        sequences: Item indices in time order, one sequence per shopper.
        data: Name of the data, repeated in the report.
        seed: Of the bootstrap and of the two halves of the cross-fit.
        arms: Names to measure; all of popularity, item-knn, transition and souk if empty.

    Returns:
        `{"data", "protocol", "items", "users", "users_skipped", "events", "arms": {arm: {"validation", "test",
        "ci95", "train_seconds"}}}`; `ci95` holds the 95 % bootstrap interval of the test figures.

    Raises:
        ValueError: The catalogue or the sequences are malformed, or no shopper has three distinct items.
    """
    check(catalogue, sequences)
    split = leave_one_out(sequences)
    if not split.train:
        raise ValueError("no shopper has three distinct items: there is nothing to hold out")
    measured = {arm: _measure(ARMS[arm](catalogue, split, seed), split, seed) for arm in arms or ARMS}
    return {
        "data": data,
        "protocol": PROTOCOL,
        "items": len(catalogue.item_ids),
        "users": len(split.train),
        "users_skipped": len(split.skipped),
        "events": sum(len(sequence) for sequence in sequences),
        "arms": measured,
    }


@dataclass(frozen=True)
class _Arm:
    """A trained model: how it scores validation and test histories, and what training took."""

    validation: Scorer
    test: Scorer
    train_seconds: float


def _measure(arm: _Arm, split: Split, seed: int) -> Report:
    """Return the figures of one arm."""
    test_histories = [[*items, item] for items, item in zip(split.train, split.validation, strict=True)]
    validation = gains(ranks(arm.validation, split.train, split.validation))
    test = gains(ranks(arm.test, test_histories, split.test))
    low, high = intervals(test, seed)
    return {
        "validation": _named(validation.mean(axis=0)),
        "test": _named(test.mean(axis=0)),
        "ci95": {name: [low_, high_] for (name, low_), high_ in zip(_named(low).items(), high.tolist(), strict=True)},
        "train_seconds": round(arm.train_seconds, 3),
    }


def _named(figures: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip((f"recall@{CUT}", f"ndcg@{CUT}"), figures.tolist(), strict=True))


def _popularity(catalogue: Catalogue, split: Split, seed: int) -> _Arm:
    started = time.perf_counter()
    heat = popularity([*split.train, *split.skipped], len(catalogue.item_ids)).astype(np.float64)

    def scorer(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(histories), USERS_PER_BLOCK):
            yield np.tile(heat, (len(histories[start : start + USERS_PER_BLOCK]), 1))

    return _Arm(scorer, scorer, time.perf_counter() - started)


def _graph(build: Callable[[Sequence[Sequence[int]], int, int], Edges]) -> Callable[[Catalogue, Split, int], _Arm]:
    """Return an arm that scores by one kind of edges alone, all of them: a baseline is not cut to what fits a table."""

    def arm(catalogue: Catalogue, split: Split, seed: int) -> _Arm:
        started = time.perf_counter()
        n_items = len(catalogue.item_ids)
        matrix = build([*split.train, *split.skipped], n_items, n_items).matrix(n_items)

        def scorer(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
            for start in range(0, len(histories), USERS_PER_BLOCK):
                yield edge_scores(matrix, histories[start : start + USERS_PER_BLOCK], BASELINE_DECAY)

        return _Arm(scorer, scorer, time.perf_counter() - started)

    return arm


def _souk(catalogue: Catalogue, split: Split, seed: int) -> _Arm:
    started = time.perf_counter()
    model = with_events(from_texts(catalogue), [*split.train, *split.skipped], seed)
    served = replace(model, weights=fit_weights(model, split.train, split.validation))
    seconds = time.perf_counter() - started
    is_first = np.random.default_rng(seed).random(len(split.train)) < 0.5
    halves = [_fit_on(model, split, is_first), _fit_on(model, split, ~is_first)]

    def cross_fitted(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
        """Score each validation user by the weights of the other half."""
        for start in range(0, len(histories), USERS_PER_BLOCK):
            block = histories[start : start + USERS_PER_BLOCK]
            by_first, by_second = (np.concatenate(list(score_batch(half, block))) for half in halves)
            yield np.where(is_first[start : start + len(block), None], by_second, by_first)

    return _Arm(cross_fitted, lambda histories: score_batch(served, histories), seconds)


def _fit_on(model: Recommender, split: Split, is_in: NDArray[np.bool_]) -> Recommender:
    users = np.flatnonzero(is_in)
    weights = fit_weights(model, [split.train[user] for user in users], [split.validation[user] for user in users])
    return replace(model, weights=weights)


ARMS: dict[str, Callable[[Catalogue, Split, int], _Arm]] = {
    "popularity": _popularity,
    "item-knn": _graph(cooccurrences),
    "transition": _graph(transitions),
    "souk": _souk,
}
