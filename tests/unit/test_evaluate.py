"""The evaluation protocol, on data whose right answer is planted."""

from __future__ import annotations

import numpy as np
import pytest

from ml import evaluate as evaluation
from ml.evaluate import evaluate, gains, leave_one_out, ranks
from ml.recommender import Catalogue

N_ITEMS = 60


@pytest.fixture(scope="module")
def planted() -> tuple[Catalogue, list[list[int]]]:
    """Everyone walks along a ring of 60 items for six steps: the next item is certain, and all are equally popular."""
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(N_ITEMS, 8)).astype(np.float32)
    catalogue = Catalogue([str(item) for item in range(N_ITEMS)], [[f"w{item}"] for item in range(N_ITEMS)], vectors)
    return catalogue, [[(start + step) % N_ITEMS for step in range(6)] for start in range(N_ITEMS) for _ in range(5)]


@pytest.fixture(scope="module")
def report(planted):
    return evaluate(*planted, data="planted")


def test_transitions_find_what_was_planted_and_popularity_does_not(report):
    assert report["arms"]["transition"]["test"]["recall@10"] == 1.0
    assert report["arms"]["souk"]["test"]["ndcg@10"] == pytest.approx(1.0)
    assert report["arms"]["popularity"]["test"]["recall@10"] < 0.5


def test_the_report_follows_the_convention(report):
    assert set(report) == {"data", "protocol", "items", "users", "users_skipped", "events", "arms"}
    assert (report["data"], report["items"], report["users"], report["events"]) == ("planted", 60, 300, 1800)
    assert list(report["arms"]) == ["popularity", "item-knn", "transition", "souk"]
    for arm in report["arms"].values():
        assert set(arm) == {"validation", "test", "ci95", "train_seconds"}
        for name, (low, high) in arm["ci95"].items():
            assert low <= arm["test"][name] <= high


def test_the_report_is_the_same_twice(planted, report):
    again = evaluate(*planted, data="planted")
    assert again["arms"]["souk"]["test"] == report["arms"]["souk"]["test"]
    assert again["arms"]["souk"]["ci95"] == report["arms"]["souk"]["ci95"]


def test_split_holds_out_the_last_two_new_items():
    split = leave_one_out([[1, 2, 3, 4], [1, 2, 1, 3, 3], [5, 5, 6], []])
    assert split.train == [[1, 2], [1]]
    assert split.validation == [3, 2]
    assert split.test == [4, 3]
    assert split.skipped == [[5, 6], []]


def test_no_training_data_holds_a_held_out_item(planted, monkeypatch):
    seen: list[list[int]] = []
    build = evaluation.with_events

    def spy(model, sequences, seed):
        seen.extend(map(list, sequences))
        return build(model, sequences, seed)

    monkeypatch.setattr(evaluation, "with_events", spy)
    evaluate(*planted, data="planted", arms=["souk"])
    assert seen == [sequence[:4] for sequence in planted[1]]


def test_a_leaked_target_is_refused():
    def constant(histories):
        yield np.zeros((len(histories), 5))

    assert ranks(constant, [[0]], [1]).tolist() == [1.5]  # four unseen items tie: the mean of 0 to 3
    with pytest.raises(ValueError, match="in the history"):
        ranks(constant, [[0, 1]], [1])


def test_ranks_mask_the_history_and_share_ties():
    def scorer(histories):
        yield np.array([[9.0, 3.0, 3.0, 1.0, 8.0]] * len(histories))

    assert ranks(scorer, [[0], [0, 4], []], [1, 1, 3]).tolist() == [1.5, 0.5, 4.0]


def test_gains_hand_computed():
    assert gains(np.array([0.0, 1.0, 9.0, 9.5, 10.0])) == pytest.approx(
        np.array([[1, 1], [1, 1 / np.log2(3)], [1, 1 / np.log2(11)], [1, 1 / np.log2(11.5)], [0, 0]])
    )


def test_shuffled_sequences_lose_what_was_planted(planted):
    catalogue, sequences = planted
    chance = np.random.default_rng(1)
    shuffled = [chance.permutation(N_ITEMS)[: len(sequence)].tolist() for sequence in sequences]
    report = evaluate(catalogue, shuffled, data="shuffled", arms=["souk"])
    assert report["arms"]["souk"]["test"]["recall@10"] < 0.4


def test_nothing_to_hold_out_is_refused(planted):
    with pytest.raises(ValueError, match="three distinct items"):
        evaluate(planted[0], [[0, 1], [2, 2, 2]], data="short")
