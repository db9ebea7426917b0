"""Do two runs differ? Shopper by shopper, on the same data only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.protocol import RESAMPLES

Gains = dict[str, NDArray[np.float64]]


def data_key(item_ids: Sequence[str], sequences: Sequence[Sequence[int]], times: Sequence[Sequence[float]] = ()) -> str:
    """Return the SHA-256, in hex, of what a run was measured on: items, sequences and times, in their order."""
    digest = hashlib.sha256()
    for part in item_ids:
        digest.update(part.encode() + b"\0")
    for sequence in sequences:
        digest.update(np.array([len(sequence), *sequence], "<i8").tobytes())
    for when in times:
        digest.update(np.array(when, "<f8").tobytes())
    return digest.hexdigest()


def paired(ours: NDArray[np.float64], theirs: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Return the mean of ours − theirs over shoppers with its 95 % interval, by the paired bootstrap.

    Shoppers are drawn, and both runs are read on the same ones (Efron and Tibshirani 1993; Sakai 2006).

    Args:
        ours: float64 (users, m), a value of each shopper.
        theirs: The same shoppers in the same order.
        seed: Of the bootstrap.

    Returns:
        float64 (3, m): difference, lower and upper bound.

    Raises:
        ValueError: The two do not hold the same shoppers.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"{len(ours):,} and {len(theirs):,} shoppers cannot be compared one by one")
    difference = ours - theirs
    chance = np.random.default_rng(seed)
    means = [difference[chance.integers(len(difference), size=len(difference))].mean(axis=0) for _ in range(RESAMPLES)]
    return np.concatenate([difference.mean(axis=0)[None], np.quantile(np.stack(means), [0.025, 0.975], axis=0)])
