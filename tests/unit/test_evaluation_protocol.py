"""What is held out, how it is ranked, and what a list is worth beyond hits, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ml.evaluation.beyond_accuracy import OF_SHOPPERS, coverage, describe, groups, of_shoppers
from ml.evaluation.compare import data_key, paired
from ml.evaluation.protocol import gains, leave_one_out, ranked, ranks, time_split
from ml.recommender import Catalogue


def test_split_holds_out_the_last_two_new_items():
    split = leave_one_out([[1, 2, 3, 4], [1, 2, 1, 3, 3], [5, 5, 6], []])
    assert split.train == [[1, 2], [1]]
    assert split.validation == [3, 2]
    assert split.test == [4, 3]
    assert split.test_histories == [[1, 2, 3], [1, 2]]
    assert split.skipped == [[5, 6], []]
    assert split.known == [[1, 2, 3], [1, 2], [5, 6], []]


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


def test_lists_hold_the_ten_best_outside_the_history():
    def scorer(histories):
        yield np.array([[9.0, 3.0, 3.0, 1.0, 8.0]] * len(histories))

    _, lists = ranked(scorer, [[0], []], [1, 3])
    assert lists.tolist() == [[4, 1, 2, 3, -1, -1, -1, -1, -1, -1], [0, 4, 1, 2, 3, -1, -1, -1, -1, -1]]


def test_time_split_by_hand():
    """Forty shoppers take 0, 1 and 2 at times 0, 80 and 90; seventy take item 3 at time 1."""
    sequences = [[0, 1, 2]] * 40 + [[3, 3, 3, 3]] * 70
    times = [[0.0, 80.0, 90.0]] * 40 + [[1.0, 1.0, 1.0, 1.0]] * 70
    split, start, middle = time_split(sequences, times)
    assert (start, middle) == (80.0, 90.0)
    assert (split.train, split.validation) == ([[0]] * 40, [1] * 40)
    assert (split.test_histories, split.test) == ([[0, 1]] * 40, [2] * 40)
    assert split.skipped == [[3]] * 70
    assert split.known == [[0, 1]] * 40 + [[3]] * 70


def test_time_split_asks_nobody_without_a_history_nor_for_a_known_item():
    sequences = [[0, 1, 2]] * 40 + [[3]] * 200 + [[4], [0, 0, 0]]
    times = [[0.0, 80.0, 90.0]] * 40 + [[1.0]] * 200 + [[95.0], [0.0, 81.0, 96.0]]
    split, _, _ = time_split(sequences, times)
    assert len(split.test) == 40
    assert 4 not in split.test


@pytest.mark.parametrize(
    ("times", "why"),
    [([[1.0, 1.0]] * 50, "same time"), ([[0.0, 100.0]] * 5, "only [0-9]+ shoppers"), ([[], []] * 25, "same time")],
)
def test_time_split_says_why_not(times, why):
    with pytest.raises(ValueError, match=why):
        time_split([[0, 1][: len(when)] for when in times], times)


@pytest.fixture(scope="module")
def items():
    """Ten items; 0 and 1 are popular (taken by 3 and 2 of 3 shoppers), 0 to 4 are of category a, 9 of none."""
    vectors = np.eye(10, dtype=np.float32)
    catalogue = Catalogue([str(item) for item in range(10)], [[] for _ in range(10)], vectors)
    return describe(catalogue, [[0, 1], [0, 1], [0, 5]], ["a"] * 5 + ["b"] * 4 + [None])


def test_measures_of_a_list_by_hand(items):
    lists = np.array([[0, 5, *[-1] * 8], [8, *[-1] * 9], [-1] * 10])
    found = dict(zip(OF_SHOPPERS, of_shoppers(items, lists, [[1, 2], [9], [0]]).T, strict=True))
    assert found["novelty"][:2] == pytest.approx([(0 + 1) / 2, 2])  # -log2 of 4/4, 2/4 and 1/4
    assert found["diversity"][0] == pytest.approx(1 + 1 / 9)  # centred unit vectors of ten items: cosine -1/9
    assert found["popular_share"][:2].tolist() == [0.5, 0.0]
    assert found["popular_share_own"].tolist() == [0.5, 0.0, 1.0]
    # History all of a, list half of it: KL = log(1 / (0.99 / 2 + 0.01)).
    assert found["calibration"][0] == pytest.approx(np.log(1 / 0.505))
    assert np.isnan(found["calibration"][1:]).all()
    assert np.isnan(found["diversity"][1:]).all()
    assert np.isnan(found["novelty"][2])


def test_coverage_counts_listed_items_once():
    assert coverage(np.array([[0, 1, -1], [1, 2, -1]]), 10) == 0.3


def test_groups_tell_cold_items_and_short_histories(items):
    histories = [[1], [1, 2, 3, 4, 6], list(range(1, 10))]
    found = groups(items, histories, [0, 5, 0])
    assert found["cold items"].tolist() == [True, True, True]
    assert {name for name, is_in in found.items() if is_in[1]} == {"cold items", "history 5-9"}
    assert sum(is_in.sum() for name, is_in in found.items() if name != "cold items") == 3


def test_paired_bootstrap_sees_what_two_intervals_hide():
    chance = np.random.default_rng(0)
    theirs = chance.random((2000, 1)) * 10
    mean, low, high = paired(theirs + 0.01 + chance.normal(size=(2000, 1)) * 0.01, theirs)[:, 0]
    assert 0 < low < mean < high < 0.02
    mean, low, high = paired(theirs, theirs)[:, 0]
    assert (mean, low, high) == (0, 0, 0)
    with pytest.raises(ValueError, match="one by one"):
        paired(theirs, theirs[1:])


def test_data_key_tells_data_apart():
    key = data_key(["a", "b"], [[0, 1], [1]])
    assert key == data_key(["a", "b"], [[0, 1], [1]])
    others = [
        data_key(["a", "c"], [[0, 1], [1]]),
        data_key(["a", "b"], [[0], [1, 1]]),
        data_key(["a", "b"], [[1], [0, 1]]),
        data_key(["a", "b"], [[0, 1], [1]], [[0.0, 1.0], [2.0]]),
    ]
    assert len({key, *others}) == 5
