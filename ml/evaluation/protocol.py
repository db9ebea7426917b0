"""What is held out, and how it is ranked: full ranking over the catalogue, history masked, mean rank for ties."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.recommender import Recommender
from ml.recommender.train import distinct

CUT = 10
RESAMPLES = 1000
# Times before which four fifths and nine tenths of the events lie.
TIME_QUANTILES = (0.8, 0.9)
# A window with fewer shoppers says nothing.
FEWEST_SHOPPERS = 20

Scorer = Callable[[Sequence[Sequence[int]]], Iterator[NDArray[np.float64]]]


@dataclass(frozen=True)
class Split:
    """What trains, and who is asked for what.

    Attributes:
        train: Histories of the validation shoppers; they train.
        validation: What each took next.
        test_histories: Histories of the test shoppers, everything before the test. What came after `train` is
            scored from, but does not train.
        test: What each took next.
        skipped: Sequences that only train.
        known: All that is known before the test, of all shoppers: what a refit trains on.
    """

    train: list[list[int]]
    validation: list[int]
    test_histories: list[list[int]]
    test: list[int]
    skipped: list[list[int]]
    known: list[list[int]]


@dataclass(frozen=True)
class Arm:
    """A trained model: how it scores validation and test histories, and what training took.

    Attributes:
        validation: Scores the histories of the validation, all of them in order.
        test: Likewise those of the test.
        train_seconds: Of training and of learning the weights.
        model: The served model, where there is one.
    """

    validation: Scorer
    test: Scorer
    train_seconds: float
    model: Recommender | None = None


def leave_one_out(sequences: Sequence[Sequence[int]]) -> Split:
    """Hold out the last new item of each shopper for the test and the one before it for validation.

    Of a repeated item only the first occurrence counts. Shoppers with fewer than three distinct items only train.

    Args:
        sequences: Item indices in time order, one sequence per shopper.
    """
    firsts = [distinct(sequence) for sequence in sequences]
    long = [items for items in firsts if len(items) >= 3]
    skipped = [items for items in firsts if len(items) < 3]
    histories = [items[:-1] for items in long]
    return Split(
        [items[:-2] for items in long],
        [items[-2] for items in long],
        histories,
        [items[-1] for items in long],
        skipped,
        [*histories, *skipped],
    )


def time_split(sequences: Sequence[Sequence[int]], times: Sequence[Sequence[float]]) -> tuple[Split, float, float]:
    """Train on what happened before one moment, validate up to a second one, and test after it.

    The moments are quantiles of the times of all events, each the time of an event. Each shopper with a history is
    asked for the first new item of the window, so that nobody is asked for what a later event has taught the model
    (Ji et al. 2023, data leakage in offline evaluation).

    Args:
        sequences: Item indices in time order, one sequence per shopper.
        times: When, in seconds, ascending in each sequence.

    Returns:
        The split, the first moment of the validation, and that of the test.

    Raises:
        ValueError: Fewer than 20 shoppers with a history took something new in one of the windows; says why.
    """
    every = np.array([time for of_shopper in times for time in of_shopper], float)
    if not len(every) or every.min() == every.max():
        raise ValueError("all events have the same time")
    start, middle = np.quantile(every, TIME_QUANTILES, method="higher").tolist()
    train: list[list[int]] = []
    validation: list[int] = []
    test_histories: list[list[int]] = []
    test: list[int] = []
    skipped: list[list[int]] = []
    known: list[list[int]] = []
    for items, when in zip(sequences, times, strict=True):
        first, second = np.searchsorted(when, [start, middle]).tolist()
        before, until = distinct(items[:first]), distinct(items[:second])
        target = next((item for item in items[first:second] if item not in before), None)
        if before and target is not None:
            train.append(before)
            validation.append(target)
        else:
            skipped.append(before)
        known.append(until)
        target = next((item for item in items[second:] if item not in until), None)
        if until and target is not None:
            test_histories.append(until)
            test.append(target)
    for window, shoppers in (("validation", len(validation)), ("test", len(test))):
        if shoppers < FEWEST_SHOPPERS:
            raise ValueError(f"only {shoppers} shoppers with a history took something new in the {window} window")
    return Split(train, validation, test_histories, test, skipped, known), start, middle


def ranks(scorer: Scorer, histories: Sequence[Sequence[int]], targets: Sequence[int]) -> NDArray[np.float64]:
    """Return the rank of each target among all items outside its history: 0 is best, ties get their mean.

    Raises:
        ValueError: A target is in its own history, so it could not be ranked: the split leaks.
    """
    return ranked(scorer, histories, targets)[0]


def ranked(
    scorer: Scorer, histories: Sequence[Sequence[int]], targets: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the ranks as `ranks` does, and the ten best items of each history.

    Returns:
        float64 (users,), and int64 (users, 10), best first; -1 where fewer items are outside the history.

    Raises:
        ValueError: A target is in its own history, so it could not be ranked: the split leaks.
    """
    if any(target in history for history, target in zip(histories, targets, strict=True)):
        raise ValueError("a target is in the history that it is to be predicted from")
    found: list[NDArray[np.float64]] = [np.zeros(0)]
    lists = np.full((len(histories), CUT), -1)
    done = 0
    for block in scorer(histories):
        for row, history in zip(block, histories[done : done + len(block)], strict=True):
            row[list(history)] = -np.inf
        reached = block[np.arange(len(block)), targets[done : done + len(block)]][:, None]
        found.append((block > reached).sum(axis=1) + ((block == reached).sum(axis=1) - 1) / 2)
        top = min(CUT, block.shape[1])
        best = np.sort(np.argpartition(-block, top - 1, axis=1)[:, :top], axis=1)
        values = np.take_along_axis(block, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        best = np.where(np.isfinite(values), best, -1)
        lists[done : done + len(block), :top] = np.take_along_axis(best, order, axis=1)
        done += len(block)
    return np.concatenate(found), lists


def gains(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return recall@10 and NDCG@10 of each user, shape (users, 2)."""
    hit = positions < CUT
    return np.stack([hit, hit / np.log2(positions + 2)], axis=1)


def intervals(values: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Return the 95 % bootstrap intervals of the means of (n, m) values, shape (2, m); nan is left out."""
    chance = np.random.default_rng(seed)
    means = [np.nanmean(values[chance.integers(len(values), size=len(values))], axis=0) for _ in range(RESAMPLES)]
    return np.nanquantile(np.stack(means), [0.025, 0.975], axis=0)
