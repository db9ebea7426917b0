"""The peers of the ranking benchmark: that they are what they are called, and that only validation chooses."""

from __future__ import annotations

import numpy as np
import pytest

from bench import sasrec as reference
from bench.peers import Tuned, ease, matrix_of
from bench.ranking import peers
from ml.evaluation.protocol import Arm, gains, leave_one_out, ranks
from ml.recommender import Catalogue

N_ITEMS = 40


@pytest.fixture(scope="module")
def ring():
    """A catalogue without texts, and 400 shoppers who walk six steps along a ring of its items."""
    starts = np.random.default_rng(0).integers(0, N_ITEMS, 400)
    split = leave_one_out([[int(start + step) % N_ITEMS for step in range(6)] for start in starts])
    items = [str(item) for item in range(N_ITEMS)]
    return Catalogue(items, [[] for _ in items], np.zeros((N_ITEMS, 2), np.float32)), split


@pytest.mark.parametrize("block", [7, 256])
def test_ease_is_the_closed_form(ring, block, monkeypatch):
    catalogue, split = ring
    monkeypatch.setattr("bench.peers.USERS_PER_BLOCK", block)
    arm = ease(catalogue, split, 0, {"l2": 30.0})
    taken = matrix_of(split.train, N_ITEMS).toarray().astype(float)
    inverse = np.linalg.inv(taken.T @ taken + 30.0 * np.eye(N_ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    scores = np.concatenate(list(arm.test(split.test_histories)))
    assert scores == pytest.approx(matrix_of(split.test_histories, N_ITEMS).toarray() @ weights, abs=1e-5)


@pytest.mark.slow
def test_sasrec_learns_an_order(ring, monkeypatch):
    catalogue, split = ring
    monkeypatch.setattr(reference, "EPOCHS", 10)
    arm = reference.sasrec(catalogue, split, 0, {"dimension": 32, "dropout": 0.0})
    assert gains(ranks(arm.test, split.test_histories, split.test))[:, 1].mean() > 0.8


def test_sasrec_does_not_look_ahead():
    import torch

    network = reference._network(N_ITEMS, 16, 0.0).eval()
    places = torch.arange(4)[None]
    with torch.no_grad():
        one = network(torch.tensor([[1, 2, 3, 4]]), places)
        other = network(torch.tensor([[1, 2, 30, 39]]), places)
    assert torch.allclose(one[:, :2], other[:, :2], atol=1e-6)
    assert not torch.allclose(one[:, 2:], other[:, 2:], atol=1e-3)


def test_tuning_keeps_the_best_on_validation(ring):
    catalogue, split = ring
    asked: list[str] = []

    def train(catalogue, split, seed, setting):
        def scorer(name, targets, right):
            def score(histories):
                asked.append(name)
                scores = np.zeros((len(histories), N_ITEMS))
                scores[np.arange(len(histories)), targets] = 1.0 if right else -1.0
                yield scores

            return score

        right = setting["right"]
        return Arm(scorer("validation", split.validation, right), scorer("test", split.test, not right), 0.0)

    peer = Tuned(train, [{"right": False}, {"right": True}, {"right": False}])
    arm = peer(catalogue, split, 0)
    assert peer.chosen == {"right": True}
    assert asked == ["validation"] * 3
    assert gains(ranks(arm.validation, split.train, split.validation)).mean() == 1.0


def test_a_catalogue_too_large_for_ease_has_no_ease():
    assert "ease" in peers(1_000)
    assert "ease" not in peers(1_000_000)
    assert "sasrec" in peers(1_000_000)
