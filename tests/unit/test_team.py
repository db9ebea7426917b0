"""Several processes that train one sequence model together; threads stand for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from ml.recommender.pq import PQ, Team, train

SIZE = 3


def sequences() -> list[list[int]]:
    chance = np.random.default_rng(0)
    return [chance.permutation(30)[: chance.integers(2, 6)].tolist() for _ in range(400)]


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    drawn = np.random.default_rng(1).normal(size=(30, 8))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def together(features: np.ndarray, *, adds: bool) -> list[PQ]:
    """The models that the members end with; without `adds` they do not hear of each other."""
    barrier, given = Barrier(SIZE, timeout=60), [None] * SIZE

    def member(rank: int) -> PQ:
        def add(tensor):
            given[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(sum(given))
            barrier.wait()

        return train(features, sequences(), 0, Team(rank, SIZE, add if adds else lambda _: None))

    with ThreadPoolExecutor(SIZE) as pool:
        return list(pool.map(member, range(SIZE)))


def test_a_team_learns_what_one_learns(features):
    alone = train(features, sequences(), 0)
    models = together(features, adds=True)
    for name in ("inputs", "outputs", "position_weights"):
        of_all = [getattr(model, name) for model in models]
        assert np.array_equal(of_all[0], of_all[1])
        assert np.array_equal(of_all[0], of_all[2])
        assert np.allclose(of_all[0], getattr(alone, name), atol=0.02)


def test_members_that_do_not_add_drift_apart(features):
    first, second, _ = together(features, adds=False)
    assert not np.allclose(first.inputs, second.inputs, atol=0.02)
