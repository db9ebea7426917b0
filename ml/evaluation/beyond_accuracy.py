"""What lists of ten are worth beyond hits: how much of the catalogue, how new, how diverse, how like the shopper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.recommender.train import Catalogue, centre

POPULAR_SHARE = 0.2
# How much of the history's mix is blended into the list's, so that the divergence is finite (Steck 2018).
BLEND = 0.01
# An item with fewer events in training is cold.
COLD = 5
HISTORY_LENGTHS = ((1, 2), (3, 4), (5, 9), (10, None))
USERS_PER_BLOCK = 1024

# Means over shoppers; each has an interval.
OF_SHOPPERS = ("novelty", "diversity", "popular_share", "popular_share_own", "calibration")


@dataclass(frozen=True)
class Items:
    """What the measures know of the items.

    Attributes:
        vectors: float32 (n, d), text vectors, centred, unit length or zero.
        events: int64 (n,), events of each item in training.
        bits: float64 (n,), self-information −log2 of the share of shoppers who took the item, add-one smoothed.
        is_popular: bool (n,), the fifth of the catalogue with the most events in training.
        categories: int64 (n,), number of the leaf category; -1 for none.
    """

    vectors: NDArray[np.float32]
    events: NDArray[np.int64]
    bits: NDArray[np.float64]
    is_popular: NDArray[np.bool_]
    categories: NDArray[np.int64]


def describe(catalogue: Catalogue, sequences: Sequence[Sequence[int]], categories: Sequence[str | None] = ()) -> Items:
    """Return what the measures know of the items.

    Args:
        catalogue: The items.
        sequences: What trains: distinct item indices, one sequence per shopper.
        categories: Name of the leaf category of each item, None for none; empty where nothing is known of them.
    """
    n_items = len(catalogue.item_ids)
    taken = np.fromiter((item for sequence in sequences for item in sequence), np.int64)
    events = np.bincount(taken, minlength=n_items)
    is_popular = np.zeros(n_items, bool)
    is_popular[np.argsort(-events, kind="stable")[: max(1, int(POPULAR_SHARE * n_items))]] = True
    number: dict[str, int] = {}
    codes = [number.setdefault(name, len(number)) if name else -1 for name in categories] or [-1] * n_items
    return Items(
        centre(catalogue.vectors),
        events,
        -np.log2((events + 1) / (len(sequences) + 1)),
        is_popular,
        np.array(codes, np.int64),
    )


def coverage(lists: NDArray[np.int64], n_items: int) -> float:
    """Return the share of the catalogue that is in at least one list."""
    return len(np.unique(lists[lists >= 0])) / n_items


def of_shoppers(items: Items, lists: NDArray[np.int64], histories: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Return the measures of each list, float64 (users, 5), in the order of `OF_SHOPPERS`; nan where undefined.

    novelty: mean self-information of the items, in bits (Zhou et al. 2010). diversity: 1 − mean cosine of the text
    vectors of two items (Ziegler et al. 2005). popular_share: share of the places that the popular fifth has;
    popular_share_own: its share of the shopper's own history. calibration: the divergence KL(history ‖ list) of the
    mixes of leaf categories, in nats, 0 is best (Steck 2018); nan without known categories.

    Args:
        items: What is known of the items.
        lists: int64 (users, 10), as of `ml.evaluation.protocol.ranked`.
        histories: What each shopper had.
    """
    found = np.full((len(lists), len(OF_SHOPPERS)), np.nan)
    is_listed = lists >= 0
    places = is_listed.sum(axis=1)
    some = places > 0
    found[some, 0] = np.where(is_listed, items.bits[lists], 0).sum(axis=1)[some] / places[some]
    found[:, 1] = _diversity(items.vectors, lists)
    found[some, 2] = (is_listed & items.is_popular[lists]).sum(axis=1)[some] / places[some]
    for user, history in enumerate(histories):
        if len(history):
            found[user, 3] = items.is_popular[list(history)].mean()
        found[user, 4] = _divergence(items.categories[list(history)], items.categories[lists[user][is_listed[user]]])
    return found


def groups(items: Items, histories: Sequence[Sequence[int]], targets: Sequence[int]) -> dict[str, NDArray[np.bool_]]:
    """Return which shoppers are asked for a cold item, and which have a history of which length."""
    lengths = np.array([len(history) for history in histories])
    found = {"cold items": items.events[list(targets)] < COLD}
    for least, most in HISTORY_LENGTHS:
        name = f"history {least}+" if most is None else f"history {least}-{most}"
        found[name] = (lengths >= least) & (lengths <= (most or lengths.max(initial=0)))
    return found


def _diversity(vectors: NDArray[np.float32], lists: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 − the mean cosine over the pairs of each list that have texts; nan for fewer than two items of it."""
    found = np.full(len(lists), np.nan)
    for start in range(0, len(lists), USERS_PER_BLOCK):
        block = lists[start : start + USERS_PER_BLOCK]
        of_list = np.where((block >= 0)[:, :, None], vectors[block], 0).astype(np.float64)
        places = of_list.any(axis=2).sum(axis=1)
        # |Σv|² holds every pair twice, and every item with itself.
        pairs = (of_list.sum(axis=1) ** 2).sum(axis=1) - (of_list**2).sum(axis=(1, 2))
        many = places > 1
        found[start : start + len(block)][many] = 1 - pairs[many] / (places * (places - 1))[many]
    return found


def _divergence(history: NDArray[np.int64], listed: NDArray[np.int64]) -> float:
    """Return KL(p ‖ (1 − α) q + α p), α = 0.01, of the categories of a history and a list; nan if one has none."""
    history, listed = history[history >= 0], listed[listed >= 0]
    if not len(history) or not len(listed):
        return float("nan")
    names, counts = np.unique(history, return_counts=True)
    p = counts / len(history)
    q = (listed[:, None] == names[None, :]).sum(axis=0) / len(listed)
    return float((p * np.log(p / ((1 - BLEND) * q + BLEND * p))).sum())
