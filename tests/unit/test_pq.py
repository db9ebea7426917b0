"""Text features and the sequence model, against exact decompositions, figures worked out by hand and planted walks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from ml.recommender import pq
from ml.recommender.text_features import latent, text_features, unit

N_ITEMS = 30


def texts(n_items: int = N_ITEMS, dimension: int = 12, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n_items, dimension)))


def ring(n_users: int, seed: int = 0) -> list[list[int]]:
    """Return walks along a ring: the next item is certain."""
    starts = np.random.default_rng(seed).integers(N_ITEMS, size=n_users)
    return [[int(start + step) % N_ITEMS for step in range(6)] for start in starts]


def best(model: pq.PQ, newest_first: list[int]) -> int:
    logits = pq.tastes(model.inputs, model.position_weights, [newest_first]) @ model.outputs.astype(np.float32).T
    logits[0, newest_first] = -np.inf
    return int(logits.argmax())


class TestTextFeatures:
    def words(self, rank: int = 5) -> sparse.csr_array:
        chance = np.random.default_rng(1)
        dense = chance.random((60, rank)) @ chance.random((rank, 40))
        return sparse.csr_array(unit(dense))

    def test_latent_keeps_the_angles_of_a_matrix_of_low_rank(self):
        words = self.words()
        found = latent(words, 5, seed=0)
        assert found.shape == (60, 5)
        assert found @ found.T == pytest.approx((words @ words.T).toarray(), abs=1e-4)

    def test_latent_finds_the_leading_directions(self):
        chance = np.random.default_rng(2)
        dense = chance.normal(size=(80, 50)) * 0.8 ** np.arange(50)
        left, values, _ = np.linalg.svd(dense, full_matrices=False)
        expected = unit(left[:, :8] * values[:8])
        found = latent(sparse.csr_array(dense.astype(np.float32)), 8, seed=0)
        assert np.abs(found @ found.T - expected @ expected.T).mean() < 0.01

    def test_the_rarest_grams_go_first(self, monkeypatch):
        monkeypatch.setattr("ml.recommender.text_features.MAX_GRAMS", 1)
        words = sparse.csr_array(np.array([[1, 1], [0, 1], [0, 1]], dtype=np.float32))
        assert np.abs(latent(words, 2, seed=0)).ravel() == pytest.approx([1, 1, 1])

    def test_rows_are_of_unit_length_and_half_whitened(self):
        chance = np.random.default_rng(3)
        vectors = (chance.normal(size=(4000, 4)) * [1.0, 0.5, 0.25, 0.125]).astype(np.float32)
        features = text_features(sparse.csr_array((4000, 0), dtype=np.float32), vectors, 6)
        assert features.shape == (4000, 6)
        assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(4000), abs=1e-5)
        assert not features[:, 4:].any()
        # Before the rows are normalised the standard deviations are 1, .5^.5, .25^.5, .125^.5.
        expected = unit(vectors / [1.0, 0.5**0.5, 0.25**0.5, 0.125**0.5])
        assert np.abs(features[:, :4]) == pytest.approx(np.abs(expected), abs=0.1)

    def test_items_that_say_the_same_say_nothing(self):
        words = sparse.csr_array(np.ones((5, 1), dtype=np.float32))
        assert not text_features(words, np.full((5, 4), 0.5, np.float32), 8).any()

    @pytest.mark.parametrize("n_items", [0, 1, 2])
    def test_hardly_any_items(self, n_items):
        words = sparse.csr_array((n_items, 3), dtype=np.float32)
        features = text_features(words, texts(n_items, 4), 8)
        assert features.shape == (n_items, 8)
        assert np.isfinite(features).all()

    def test_the_same_twice(self):
        first, second = (text_features(self.words(), texts(60), 16) for _ in range(2))
        assert np.abs(first).sum() > 0
        assert np.array_equal(first, second)


def test_steps_hold_what_came_before():
    steps = pq.steps_of([[7, 8, 9], [5], [], [3, 4]])
    found: dict[int, list[int]] = {}
    rows, positions, items = steps.histories(np.arange(len(steps.places)))
    for row, position, item in zip(rows, positions, items, strict=True):
        past = found.setdefault(int(steps.items[steps.places[row]]), [])
        assert position == len(past)
        past.append(int(item))
    assert found == {8: [7], 9: [8, 7], 4: [3]}


def test_steps_hold_the_last_twenty():
    steps = pq.steps_of([list(range(30))])
    rows, positions, items = steps.histories(np.array([28]))
    assert items.tolist() == list(range(28, 8, -1))
    assert positions.tolist() == list(range(20))
    assert set(rows.tolist()) == {0}


class TestTastes:
    def test_hand_computed(self):
        inputs = np.array([[1, 0], [0, 2], [4, 4]], dtype=np.float16)
        weights = np.array([[1, 1], [0.5, 0.25]] + [[0, 0]] * 18, dtype=np.float32)
        # [0] alone; 1 then 0: (0, 2) + (.5, 0), of length 17^.5 / 2; nothing.
        found = pq.tastes(inputs, weights, [[0], [1, 0], []])
        expected = [[1, 0, 1], [1 / 17**0.5, 4 / 17**0.5, 1], [0, 0, 1]]
        assert found == pytest.approx(np.array(expected), abs=5e-4)
        assert np.array_equal(found, found.astype(np.float16))

    def test_the_twenty_newest_count(self):
        inputs, weights = texts(40).astype(np.float16), np.ones((20, 12), dtype=np.float32)
        long, short = list(range(40)), list(range(20))
        assert np.array_equal(*pq.tastes(inputs, weights, [long, short]))
        assert not np.array_equal(*pq.tastes(inputs, weights, [short, short[:19]]))


class TestTrain:
    @pytest.fixture(scope="class")
    def model(self) -> pq.PQ:
        return pq.train(texts(), ring(1500))

    def test_learns_what_follows(self, model):
        right = sum(best(model, [(item - 1) % N_ITEMS, (item - 2) % N_ITEMS]) == item for item in range(N_ITEMS))
        assert right == N_ITEMS
        assert sum(best(pq.from_features(texts()), [(item - 1) % N_ITEMS]) == item for item in range(N_ITEMS)) < 10

    def test_the_newest_item_speaks_loudest(self, model):
        assert np.abs(model.position_weights[0]).mean() > 2 * np.abs(model.position_weights[4]).mean()

    def test_outputs_are_of_one_length_and_carry_a_bias(self, model):
        lengths = np.linalg.norm(model.outputs[:, :-1].astype(np.float64), axis=1)
        assert lengths == pytest.approx(np.full(N_ITEMS, 1 / pq.TEMPERATURE), rel=1e-2)
        skewed = pq.train(texts(), [[int(item), 0] for item in np.tile(np.arange(1, N_ITEMS), 50)])
        assert skewed.outputs[:, -1].argmax() == 0

    def test_a_seed_gives_one_model(self):
        first, second, other = (pq.train(texts(), ring(200), seed) for seed in (0, 0, 1))
        assert np.array_equal(first.inputs, second.inputs)
        assert np.array_equal(first.outputs, second.outputs)
        assert not np.array_equal(other.inputs, first.inputs)

    def test_sampled_negatives_learn_it_too(self, monkeypatch):
        monkeypatch.setattr(pq, "NEGATIVES", 8)
        model = pq.train(texts(), ring(1500))
        right = sum(best(model, [(item - 1) % N_ITEMS, (item - 2) % N_ITEMS]) == item for item in range(N_ITEMS))
        assert right > 0.9 * N_ITEMS

    def test_of_too_many_steps_a_part_is_drawn(self, monkeypatch):
        monkeypatch.setattr(pq, "MAX_STEPS", 5000)
        model = pq.train(texts(), ring(1500))
        assert best(model, [4, 3]) == 5

    def test_an_item_without_events_is_known_by_its_text(self):
        """Item 29 is never taken; its text is that of item 6."""
        features = texts()
        features[29] = features[6]
        walks = [[item % 29 for item in walk] for walk in ring(1500)]
        model = pq.train(features, walks)
        taste = pq.tastes(model.inputs, model.position_weights, [[5, 4]])[:, :-1]
        logits = taste @ model.outputs[:, :-1].astype(np.float32).T
        order = np.argsort(-logits[0]).tolist()
        assert order[0] == 6
        assert order.index(29) < 5

    @pytest.mark.parametrize("sequences", [[], [[]], [[3]] * 900, [[1, 2]] * (pq.MIN_STEPS - 1)])
    def test_with_few_steps_the_texts_speak_alone(self, sequences):
        model, alone = pq.train(texts(), sequences), pq.from_features(texts())
        assert np.array_equal(model.inputs, alone.inputs)
        assert np.array_equal(model.outputs, alone.outputs)

    def test_items_without_text_are_learned(self):
        model = pq.train(np.zeros((N_ITEMS, 12), dtype=np.float32), ring(1500))
        assert all(np.isfinite(part.astype(np.float64)).all() for part in (model.inputs, model.outputs))
        assert sum(best(model, [item, (item - 1) % N_ITEMS]) == (item + 1) % N_ITEMS for item in range(N_ITEMS)) > 20


def test_the_learning_rate_rises_then_falls():
    rates = [pq.one_cycle(done) for done in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(pq.LEARNING_RATE)
    assert int(np.argmax(rates)) == 30
    assert rates[0] == pytest.approx(pq.LEARNING_RATE / 25)
    assert rates[-1] < pq.LEARNING_RATE / 1e5
