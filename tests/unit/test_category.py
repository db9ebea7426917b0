from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ml.recommender import category
from ml.recommender.category import (
    Examples,
    fit_category,
    fit_query_category,
    fragment_examples,
    history_vectors,
    leaf_categories,
    query_examples,
    user_examples,
)

DIRECTIONS = np.eye(6, dtype=np.float32)


def clouds(count: int = 600, noise: float = 0.4, seed: int = 0) -> Examples:
    """Examples of four categories of unequal frequency, each around a direction of its own."""
    chance = np.random.default_rng(seed)
    labels = chance.choice(4, count, p=[0.5, 0.3, 0.15, 0.05])
    vectors = DIRECTIONS[labels] + noise * chance.normal(size=(count, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Examples(vectors.astype(np.float32), labels, np.arange(count) // 2)


def encode(texts: list[str]) -> np.ndarray:
    """The direction of each text's first letter; zero for others."""
    vectors = np.zeros((len(texts), 6), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        if text[:1] in "abcdef":
            row["abcdef".index(text[0])] = 1
    return vectors


class TestFit:
    def test_learns_the_categories_and_says_how_well(self):
        model = fit_category(clouds(), 4, seed=0)
        quality = model.quality
        assert quality.examples == 600
        assert quality.held_out == pytest.approx(120, abs=5)
        assert quality.accuracy > 0.85 > 0.6 > quality.majority_accuracy
        assert quality.log_loss < 0.5 * quality.majority_log_loss
        unseen = clouds(seed=9)
        told = model.log_probabilities(unseen.vectors).argmax(axis=1)
        assert (told == unseen.labels).mean() == pytest.approx(quality.accuracy, abs=0.08)

    def test_probabilities_sum_to_one_and_are_calibrated(self):
        model, unseen = fit_category(clouds(), 4, seed=0), clouds(2000, seed=9)
        probabilities = np.exp(model.log_probabilities(unseen.vectors))
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(2000))
        sure = probabilities.max(axis=1)
        assert sure.mean() == pytest.approx((probabilities.argmax(axis=1) == unseen.labels).mean(), abs=0.03)

    def test_the_gradient_vanishes_at_the_optimum(self):
        examples, model = clouds(), fit_category(clouds(), 4, seed=0)
        penalty = model.quality.penalty
        error = np.exp(model.log_probabilities(examples.vectors))
        error[np.arange(len(examples)), examples.labels] -= 1
        gradient = error.T @ examples.vectors / len(examples) + 2 * penalty * model.weights
        assert np.abs(gradient).max() < 1e-3
        assert np.abs(error.mean(axis=0)).max() < 1e-3  # of the biases

    def test_without_a_vector_the_biases_tell_the_shares(self):
        examples = replace(clouds(), vectors=np.zeros((600, 6), dtype=np.float32))
        model = fit_category(examples, 4, seed=0)
        shares = np.bincount(examples.labels) / 600
        assert np.exp(model.log_probabilities(np.zeros((1, 6), np.float32)))[0] == pytest.approx(shares, abs=0.01)
        assert model.quality.log_loss == pytest.approx(model.quality.majority_log_loss, abs=0.02)

    def test_is_the_same_twice_and_the_seed_draws_the_split(self):
        first, again, other = (fit_category(clouds(), 4, seed) for seed in (0, 0, 1))
        assert np.array_equal(first.weights, again.weights)
        assert first.quality == again.quality
        assert first.quality.log_loss != other.quality.log_loss

    def test_does_not_depend_on_the_block(self, monkeypatch):
        whole = fit_category(clouds(), 4, seed=0)
        monkeypatch.setattr(category, "ROWS_PER_BLOCK", 7)
        assert fit_category(clouds(), 4, seed=0).quality.log_loss == pytest.approx(whole.quality.log_loss, abs=1e-3)

    def test_groups_are_not_torn(self):
        # A label that the vector does not tell, but that all examples of a group share: torn groups would look learned.
        chance = np.random.default_rng(0)
        groups = np.repeat(np.arange(100), 10)
        vectors = np.repeat(chance.normal(size=(100, 50)).astype(np.float32), 10, axis=0)
        labels = np.repeat(chance.integers(0, 2, 100), 10)
        quality = fit_category(Examples(vectors, labels, groups), 2, seed=0).quality
        assert quality.held_out == 200
        assert quality.accuracy < 0.75

    def test_more_examples_teach_and_are_not_measured(self):
        few = clouds(40, seed=3)
        alone, helped = fit_category(few, 4, 0), fit_category(few, 4, 0, clouds(2000))
        assert (helped.quality.held_out, helped.quality.examples) == (alone.quality.held_out, 2040)
        unseen = clouds(1000, seed=9)
        right = [(m.log_probabilities(unseen.vectors).argmax(axis=1) == unseen.labels).mean() for m in (alone, helped)]
        assert right[1] > right[0]

    def test_rows_hold_the_whole_model(self):
        model = fit_category(clouds(), 4, seed=0)
        rows = model.rows("query", ["a", "b", "c", "d"])
        x = clouds().vectors[0]
        logits = np.array([row.vector @ x + row.bias for row in rows])
        assert logits - np.log(np.exp(logits).sum()) == pytest.approx(model.log_probabilities(x[None])[0], abs=1e-5)
        assert [(row.input, row.category) for row in rows[:2]] == [("query", "a"), ("query", "b")]

    @pytest.mark.parametrize(("count", "categories"), [(0, 4), (2, 4), (100, 1), (100, 0)])
    def test_nothing_to_tell_apart_is_no_model(self, count, categories):
        assert fit_category(clouds(count), categories, 0) is None


class TestExamples:
    def test_leaf_categories_leave_out_single_products(self):
        names, leaf = leaf_categories([["all", "b"], ["all", "a"], ["x", "b"], [], ["all", "once"], ["a"]])
        assert names == ["a", "b"]
        assert leaf.tolist() == [1, 0, 1, -1, -1, 0]

    def test_history_vectors_by_hand(self):
        found = history_vectors([[0, 1, 0], [], [2]], DIRECTIONS)
        expected = np.array([1, 0.8, 0, 0, 0, 0]) / np.hypot(1, 0.8)
        assert found[0] == pytest.approx(expected)
        assert not found[1].any()
        assert found[2] == pytest.approx(DIRECTIONS[2])

    def test_a_shopper_teaches_the_new_items_after_a_history(self):
        leaf = np.array([0, 1, 0, -1, 1, 0])
        examples = user_examples([[0, 1, 0, 2, 3], [4], []], leaf, DIRECTIONS, seed=0)
        assert examples.labels.tolist() == [1, 0]  # items 1 and 2; 0 is not new, 3 has no category, 4 no history
        assert examples.groups.tolist() == [0, 0]
        assert examples.vectors[0] == pytest.approx(DIRECTIONS[0])

    def test_only_the_last_steps_of_a_long_history(self):
        examples = user_examples([list(range(6)) * 2], np.zeros(6, dtype=np.int64), DIRECTIONS, seed=0)
        assert len(examples) == category.STEPS_PER_SHOPPER == 5
        assert len(user_examples([[0, 1, 2, 3, 4, 5]] * 7000, np.zeros(6, np.int64), DIRECTIONS, 0)) == 30_000

    def test_queries_are_encoded_once_and_grouped(self):
        asked = []

        def counting(texts):
            asked.extend(texts)
            return encode(texts)

        examples = query_examples([("a", 0), ("b", 1), ("a", 2), ("c", 3)], np.array([0, 1, 1, -1]), counting, 0)
        assert asked == ["a", "b"]
        assert examples.labels.tolist() == [0, 1, 1]
        assert examples.groups.tolist() == [0, 1, 0]

    def test_fragments_are_pieces_of_titles_in_both_languages(self):
        titles = ["Alpine tent for two people", "不锈钢保温杯", "nothing", ""]
        texts: list[str] = []

        def keep(given):
            texts.extend(given)
            return encode(given)

        examples = fragment_examples(titles, np.array([0, 1, -1, 0]), keep, seed=0)
        assert examples.groups.tolist() == [0] * 4 + [1] * 4
        assert all(text in titles[0] for text in texts[:4])
        assert all(text in titles[1] for text in texts[4:])

    def test_a_large_catalogue_is_read_in_part_without_losing_a_category(self, monkeypatch):
        monkeypatch.setattr(category, "MAX_EXAMPLES", 40)
        leaf = np.array([0] * 100 + [1] * 2 + [2] * 2)
        examples = fragment_examples(["a b"] * 104, leaf, encode, seed=0)
        assert len(examples) == 40
        assert np.bincount(examples.labels).tolist() == [24, 8, 8]


def test_queries_are_the_measure_only_where_there_are_enough():
    titles = [f"{letter} {number}" for letter in "abcd" for number in range(30)]
    leaf = np.repeat(np.arange(4), 30)
    few = fit_query_category([], titles, leaf, 4, encode, seed=0)
    assert few.quality.examples == 480
    searches = [(f"{'abcd'[item // 30]} search {item}, {again}", item) for item in range(120) for again in range(3)]
    assert fit_query_category([], [], np.zeros(0, np.int64), 0, encode, seed=0) is None
    many = fit_query_category(searches, titles, leaf, 4, encode, seed=0)
    assert many.quality.held_out == 72
    assert many.quality.accuracy == 1.0
    assert many.quality.examples == 480 + 360
