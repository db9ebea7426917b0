"""Champion and challenger: is a new model worse than the one that is served?

Both are tried in the same way: by a model that has not seen each shopper's last new product, on that product. What is
compared is what both were tried on, shopper by shopper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.beyond_accuracy import POPULAR_SHARE, coverage
from ml.evaluation.compare import paired
from ml.evaluation.protocol import CUT, RESAMPLES, gains, ranked
from ml.recommender import Recommender, score_batch

MOST_SHOPPERS = 5_000
# With fewer shoppers in common, the two are compared as samples of their own.
FEWEST_IN_COMMON = 100
# A challenger may reach this much of what the champion reaches of the catalogue,
LEAST_COVERAGE = 0.8
# give this much more of its places to the popular fifth,
MOST_POPULARITY = 0.15
# and take this many times as long, if that is more than a shopper notices.
SLOWEST, NOTICED_MS = 2.0, 25.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """How a model did on products that it had not seen shoppers take.

    Attributes:
        keys: int64 (u,), one for each shopper and product; the same in every trial of the pair.
        ndcg: float64 (u,), NDCG@10 of the product among all that the shopper did not have.
        recall: float64 (u,), whether it was among the first ten.
        coverage: Share of the catalogue in at least one of the lists of ten.
        popularity: Share of the places of the lists that the most popular fifth of the catalogue has.
    """

    keys: NDArray[np.int64]
    ndcg: Floats
    recall: Floats
    coverage: float
    popularity: float


@dataclass(frozen=True)
class Comparison:
    """What a challenger is against the champion.

    Attributes:
        shoppers: Number of shoppers that the difference rests on.
        is_paired: Whether both were tried on the same shoppers and products.
        champion: Mean NDCG@10 over them.
        challenger: Likewise.
        low: Lower bound of the 95 % interval of challenger − champion.
        high: Its upper bound.
        faults: In which respects the challenger is worse; empty if it may be published.
    """

    shoppers: int
    is_paired: bool
    champion: float
    challenger: float
    low: float
    high: float
    faults: list[str]


def hold_trial(
    recommender: Recommender, histories: Sequence[Sequence[int]], targets: Sequence[int], keys: Sequence[int]
) -> Trial:
    """Try a model on what shoppers took next.

    Args:
        recommender: Fitted without the targets.
        histories: What each shopper had, in time order.
        targets: What each took next; not in the history.
        keys: One for each. The 5,000 with the lowest keys are tried: the same in every trial.
    """
    chosen = np.argsort(np.array(keys, np.int64), kind="stable")[:MOST_SHOPPERS]
    n_items = len(recommender.item_ids)
    is_popular = np.zeros(n_items, bool)
    is_popular[np.argsort(-recommender.popularity, kind="stable")[: int(POPULAR_SHARE * n_items)]] = True
    positions, lists = ranked(
        lambda asked: score_batch(recommender, asked),
        [histories[user] for user in chosen],
        [targets[user] for user in chosen],
    )
    figures = gains(positions).astype(np.float64)
    listed = lists[lists >= 0]
    return Trial(
        keys=np.array(keys, np.int64)[chosen],
        ndcg=figures[:, 1],
        recall=figures[:, 0],
        coverage=coverage(lists, n_items),
        popularity=float(is_popular[listed].mean()) if len(listed) else 0.0,
    )


def compare(
    champion: Trial, challenger: Trial, champion_ms: float = 0.0, challenger_ms: float = 0.0, seed: int = 0
) -> Comparison:
    """Compare two trials: worse is what is worse with 95 % confidence, or breaks a guard-rail.

    Args:
        champion: The trial of what is served.
        challenger: The trial of what is to replace it.
        champion_ms: Median time of a list from the champion, in milliseconds; 0 if nobody measured.
        challenger_ms: Likewise of the challenger.
        seed: Of the bootstrap.
    """
    _, ours, theirs = np.intersect1d(challenger.keys, champion.keys, return_indices=True)
    is_paired = len(ours) >= FEWEST_IN_COMMON
    new = challenger.ndcg[ours] if is_paired else challenger.ndcg
    old = champion.ndcg[theirs] if is_paired else champion.ndcg
    low = high = 0.0
    if is_paired:
        _, low, high = paired(new[:, None], old[:, None], seed)[:, 0].tolist()
    elif len(new) and len(old):
        low, high = _apart(new, old, seed)
    mean_new, mean_old = (float(values.mean()) if len(values) else 0.0 for values in (new, old))
    faults = []
    if high < 0:
        faults.append(
            f"ranks worse: NDCG@{CUT} {mean_new:.4f} after {mean_old:.4f} (difference {low:.4f} to {high:.4f},"
            f" {len(new):,} shoppers)"
        )
    if not len(challenger.keys) and len(champion.keys):
        faults.append(f"was tried on nobody after {len(champion.keys):,} shoppers")
    elif challenger.coverage < LEAST_COVERAGE * champion.coverage:
        faults.append(f"lists {challenger.coverage:.1%} of the catalogue after {champion.coverage:.1%}")
    if len(champion.keys) and challenger.popularity > champion.popularity + MOST_POPULARITY:
        faults.append(
            f"gives {challenger.popularity:.0%} of its places to the popular fifth after {champion.popularity:.0%}"
        )
    if challenger_ms > NOTICED_MS and challenger_ms > SLOWEST * champion_ms > 0:
        faults.append(f"takes {challenger_ms:.0f} ms for a list after {champion_ms:.0f} ms")
    return Comparison(len(new), is_paired, mean_old, mean_new, low, high, faults)


def _apart(new: Floats, old: Floats, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of mean(new) − mean(old), each drawn by itself (Efron and Tibshirani 1993)."""
    chance = np.random.default_rng(seed)
    means = [
        new[chance.integers(len(new), size=len(new))].mean() - old[chance.integers(len(old), size=len(old))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
