"""Peers of the ranking, each tuned on validation: EASE, and ALS and BPR of the library implicit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.evaluation.protocol import Arm, Scorer, Split, gains, ranks
from ml.recommender import Catalogue

USERS_PER_BLOCK = 256
# EASE inverts a matrix of items by items: 0.6 GB for 12,000, 1.6 GB for 20,000.
MOST_ITEMS_OF_EASE = 20_000

Setting = Mapping[str, Any]


@dataclass
class Tuned:
    """A peer that is trained with every setting of a small grid and keeps the best NDCG@10 on validation.

    Attributes:
        train: Returns the arm of one setting.
        grid: The settings.
        chosen: The best setting, once called.
    """

    train: Callable[[Catalogue, Split, int, Setting], Arm]
    grid: Sequence[Setting]
    chosen: Setting = field(default_factory=dict)

    def __call__(self, catalogue: Catalogue, split: Split, seed: int) -> Arm:
        """Train with every setting, and return the best arm; its time is that of its own training."""
        print(f"tuning {self.train.__name__}", flush=True)
        best, reached = None, -1.0
        for setting in self.grid:
            arm = self.train(catalogue, split, seed, setting)
            ndcg = float(gains(ranks(arm.validation, split.train, split.validation))[:, 1].mean())
            print(f"  {setting}: validation NDCG@10 {ndcg:.4f}, {arm.train_seconds:.0f} s", flush=True)
            if ndcg > reached:
                best, reached, self.chosen = arm, ndcg, setting
        assert best is not None
        return best


def matrix_of(histories: Sequence[Sequence[int]], n_items: int) -> sparse.csr_matrix:
    """Return who took what: float32 (shoppers, items)."""
    rows = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    columns = np.array([item for items in histories for item in items], dtype=int)
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(histories), n_items))


def ease(catalogue: Catalogue, split: Split, seed: int, setting: Setting) -> Arm:
    """Train EASE (Steck 2019): a closed-form linear autoencoder without self-similarity.

    Args:
        catalogue: Items; only their number is read.
        split: What trains.
        seed: Not used: the solution is closed.
        setting: `l2`.
    """
    from scipy.linalg import lapack

    started = time.perf_counter()
    n_items = len(catalogue.item_ids)
    taken = matrix_of([*split.train, *split.skipped], n_items)
    gram = np.asfortranarray((taken.T @ taken).toarray(), dtype=np.float32)
    gram[np.diag_indices(n_items)] += setting["l2"]
    factor, _ = lapack.spotrf(gram, lower=True, overwrite_a=True)
    inverse, _ = lapack.spotri(factor, lower=True, overwrite_c=True)
    # The routines fill the lower half only.
    for start in range(0, n_items, USERS_PER_BLOCK):
        after = min(start + USERS_PER_BLOCK, n_items)
        square = np.tril(inverse[start:after, start:after])
        inverse[start:after, start:after] = square + np.tril(square, -1).T
        inverse[start:after, after:] = inverse[after:, start:after].T
    inverse /= -np.diag(inverse)[None, :].copy()
    np.fill_diagonal(inverse, 0.0)

    def scorer(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(histories), USERS_PER_BLOCK):
            yield (matrix_of(histories[start : start + USERS_PER_BLOCK], n_items) @ inverse).astype(np.float64)

    return Arm(scorer, scorer, time.perf_counter() - started)


def als(catalogue: Catalogue, split: Split, seed: int, setting: Setting) -> Arm:
    """Train implicit's ALS (Hu et al. 2008); a shopper's vector is solved anew from the history at hand."""
    from implicit.cpu.als import AlternatingLeastSquares

    started = time.perf_counter()
    n_items = len(catalogue.item_ids)
    model = AlternatingLeastSquares(iterations=15, random_state=seed, num_threads=1, **setting)
    model.fit(matrix_of([*split.train, *split.skipped], n_items), show_progress=False)

    def scorer(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(histories), USERS_PER_BLOCK):
            block = histories[start : start + USERS_PER_BLOCK]
            users = model.recalculate_user(np.arange(len(block)), matrix_of(block, n_items))
            yield (users @ model.item_factors.T).astype(np.float64)

    return Arm(scorer, scorer, time.perf_counter() - started)


def bpr(catalogue: Catalogue, split: Split, seed: int, setting: Setting) -> Arm:
    """Train implicit's BPR (Rendle et al. 2009); it knows a shopper by what trains, not by the history at hand."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    started = time.perf_counter()
    n_items = len(catalogue.item_ids)
    model = BayesianPersonalizedRanking(random_state=seed, num_threads=1, **setting)
    model.fit(matrix_of([*split.train, *split.skipped], n_items), show_progress=False)
    return Arm(_by_place(model), _by_place(model), time.perf_counter() - started)


def _by_place(model: Any) -> Scorer:  # noqa: ANN401
    """Return a scorer of the shoppers that trained, by their place."""

    def scorer(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(histories), USERS_PER_BLOCK):
            users = model.user_factors[start : min(start + USERS_PER_BLOCK, len(histories))]
            yield (users @ model.item_factors.T).astype(np.float64)

    return scorer
