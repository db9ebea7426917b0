"""Item graph, fusion and training, against figures worked out by hand and a naive double loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ml.recommender import Catalogue, Edges, fit, fusion, score, score_batch
from ml.recommender import edges as recommender_edges
from ml.recommender.edges import cooccurrences, text_edges, transitions
from ml.recommender.fusion import BUCKETS, DECAYS, EQUAL_WEIGHTS, TERMS, recent
from ml.recommender.tfidf import tfidf
from ml.recommender.train import centre, from_texts, popularity, with_events


def as_dict(edges: Edges) -> dict[tuple[int, int], float]:
    return dict(zip(zip(edges.src.tolist(), edges.dst.tolist(), strict=True), edges.val.tolist(), strict=True))


def catalogue(n_items: int = 40, seed: int = 0) -> Catalogue:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(n_items, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    terms = [[f"w{word}" for word in chance.integers(0, 30, size=8)] for _ in range(n_items)]
    return Catalogue([f"i{item}" for item in range(n_items)], terms, vectors)


def walks(n_users: int, n_items: int = 40, seed: int = 0) -> list[list[int]]:
    """Return walks of which every other step goes to the next item of a ring."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(n_users):
        items = [int(chance.integers(n_items))]
        while len(items) < 3 + chance.integers(10):
            follows = chance.random() < 0.5
            items.append((items[-1] + 1) % n_items if follows else int(chance.integers(n_items)))
        found.append(items)
    return found


class TestTransitions:
    def test_hand_computed(self):
        edges = as_dict(transitions([[0, 1, 2], [0, 1]], 3))
        heavy, light = 3.0**-0.3, 2.0**-0.3  # degrees are 2, 2, 1
        assert edges == pytest.approx(
            {
                (0, 1): 2 * heavy * heavy,
                (1, 0): 2 * 0.5 * heavy * heavy,
                (1, 2): heavy * light,
                (2, 1): 0.5 * heavy * light,
                (0, 2): 2**-0.5 * heavy * light,
                (2, 0): 0.5 * 2**-0.5 * heavy * light,
            }
        )

    def test_direction_matters(self):
        edges = as_dict(transitions([[0, 1]] * 5, 2))
        assert edges[0, 1] == pytest.approx(2 * edges[1, 0])

    def test_shoppers_are_not_joined(self):
        assert set(as_dict(transitions([[0, 1], [2, 3]], 4))) == {(0, 1), (1, 0), (2, 3), (3, 2)}

    def test_gap_ends_at_ten(self):
        edges = as_dict(transitions([list(range(12))], 12))
        assert (0, 10) in edges
        assert (0, 11) not in edges

    def test_keeps_the_strongest_and_drops_itself(self):
        edges = transitions([[0, 0, 1, 2, 3, 4]], 5, top=2)
        pairs = as_dict(edges)
        assert {dst for src, dst in pairs if src == 0} == {1, 2}
        assert all(src != dst for src, dst in pairs)
        assert max(np.bincount(edges.src)) == 2

    def test_sorted_by_source_then_falling_value(self):
        edges = transitions(walks(50), 40)
        order = np.lexsort((edges.dst, -edges.val, edges.src))
        assert len(order) > 100
        assert order.tolist() == list(range(len(order)))

    @pytest.mark.parametrize("sequences", [[], [[]], [[0]], [[0, 0]]])
    def test_nothing_to_learn_from(self, sequences):
        assert len(transitions(sequences, 2).src) == 0


def test_cooccurrence_is_the_cosine_of_shopper_sets():
    edges = as_dict(cooccurrences([[0, 1], [0, 1, 1], [0], [2]], 3))
    assert edges == pytest.approx({(0, 1): 2 / np.sqrt(6), (1, 0): 2 / np.sqrt(6)})


@pytest.mark.parametrize("rows", [1, 7, 1024])
def test_cooccurrence_does_not_depend_on_the_block(monkeypatch, rows):
    sequences = walks(80)
    taken = np.zeros((80, 40))
    for user, items in enumerate(sequences):
        taken[user, items] = 1
    cosine = taken.T @ taken / np.sqrt(np.outer(taken.sum(axis=0), taken.sum(axis=0)))
    np.fill_diagonal(cosine, 0)
    monkeypatch.setattr(recommender_edges, "ROWS_PER_BLOCK", rows)
    edges = cooccurrences(sequences, 40)
    assert len(edges.src) == (cosine > 0).sum() > 100
    assert edges.val == pytest.approx(cosine[edges.src, edges.dst], rel=1e-6)
    assert np.lexsort((edges.dst, -edges.val, edges.src)).tolist() == list(range(len(edges.src)))


class TestTfidf:
    def test_hand_computed(self):
        rows = tfidf([["a", "a", "b"], ["a", "c"], ["a", "d"]]).toarray()
        assert rows.shape == (3, 1)  # only `a` is shared
        assert rows == pytest.approx(np.ones((3, 1)))
        rows = tfidf([["a", "a", "b"], ["a", "b"], ["b", "e"]]).toarray()
        idf = np.log(4 / 3) + 1  # of `a` and of `a b`; `b` is everywhere: idf 1
        expected = np.array([(1 + np.log(2)) * idf, 1.0, idf])
        found = sorted(rows[0].tolist())
        assert found == pytest.approx(sorted((expected / np.linalg.norm(expected)).tolist()))

    def test_documents_without_shared_words_are_zero(self):
        assert not tfidf([["a"], ["b"], []]).toarray().any()
        assert tfidf([]).shape == (0, 0)

    def test_word_order_counts(self):
        rows = tfidf([["red", "shoe"], ["red", "shoe"], ["shoe", "red"], ["shoe", "red"]])
        near, far = (rows @ rows.T).toarray()[0, [1, 2]]
        assert near == pytest.approx(1.0)
        assert far < 0.7


def test_text_edges_agree_with_sorting_everything():
    vectors = centre(catalogue(60).vectors)
    similar = (vectors @ vectors.T).astype(np.float32)
    np.fill_diagonal(similar, -1)
    edges = text_edges(vectors, top=5)
    for item in range(60):
        best = [other for other in np.argsort(-similar[item])[:5] if similar[item, other] > 0]
        assert edges.dst[edges.src == item].tolist() == best


def test_text_edges_agree_between_sparse_and_dense():
    matrix = tfidf(catalogue().terms)
    sparse_edges, dense_edges = as_dict(text_edges(matrix, 50)), as_dict(text_edges(matrix.toarray(), 50))
    assert len(sparse_edges) > 100
    assert sparse_edges == pytest.approx(dense_edges, abs=1e-6)


def test_recent_is_newest_first_and_once():
    assert recent([1, 2, 1, 3]) == [3, 1, 2]
    assert recent(list(range(30))) == list(range(29, 9, -1))


def neighbours_of(edges, source: int) -> list[tuple[int, float]]:
    found = [
        (int(dst), float(val)) for src, dst, val in zip(edges.src, edges.dst, edges.val, strict=True) if src == source
    ]
    return sorted(found, key=lambda edge: -edge[1])


def naive_logits(model, newest: list[int]) -> list[float]:
    taste = [0.0] * model.inputs.shape[1]
    for item, weights in zip(newest, model.position_weights, strict=False):
        for place, (weight, value) in enumerate(zip(weights, model.inputs[item], strict=True)):
            taste[place] += float(weight) * float(value)
    length = sum(value**2 for value in taste) ** 0.5
    rounded = [float(np.float16(value / length)) for value in taste] + [1.0]
    return [sum(a * float(b) for a, b in zip(rounded, row, strict=True)) for row in model.outputs]


def naive_score(model, history: list[int]) -> list[float]:
    """The formula of the contract, item by item."""
    newest: list[int] = []
    for item in reversed(history):
        if item not in newest:
            newest.append(item)
    newest = newest[:20]
    reach = [50] * 3 + [20] * 7
    n_items = len(model.item_ids)
    terms = {term: [0.0] * n_items for term in TERMS}
    for kind, decay in DECAYS.items():
        spoken = [dict(neighbours_of(model.edges[kind], had)[:top]) for had, top in zip(newest, reach, strict=False)]
        for item in set(range(n_items)) - set(history):
            terms[kind][item] = sum(decay**k * near.get(item, 0.0) for k, near in enumerate(spoken))
        largest = max(terms[kind])
        terms[kind] = [value / largest if largest > 0 else 0.0 for value in terms[kind]]
    logits = naive_logits(model, newest)
    best = max([logits[item] for item in range(n_items) if item not in history], default=0.0)
    terms["sequence"] = [max(0.0, 1 + (logit - best) / 10) for logit in logits]
    terms["popularity"] = model.popularity.tolist()
    bucket = max(first for _, first in model.weights if first <= len(newest))
    return [
        -np.inf if item in history else sum(model.weights[term, bucket] * terms[term][item] for term in TERMS)
        for item in range(n_items)
    ]


@pytest.fixture(scope="module")
def model():
    return fit(catalogue(), walks(1500))


class TestScore:
    @pytest.mark.parametrize(
        "history",
        [[3], [3, 4], [5, 5, 9], [9, 5, 9, 1, 2, 3, 4], list(range(0, 40, 3)), list(range(30)), list(range(40))],
    )
    def test_agrees_with_a_naive_double_loop(self, model, history):
        assert score(model, history) == pytest.approx(naive_score(model, history), abs=1e-5)

    def test_notices_shuffled_weights(self, model):
        shuffled = replace(model, weights={**model.weights, ("transition", 1): 0.0, ("popularity", 1): 3.0})
        assert score(shuffled, [3]) != pytest.approx(naive_score(model, [3]), abs=1e-4)

    def test_batch_agrees_with_single(self, model):
        histories = walks(300, seed=5)
        together = np.concatenate(list(score_batch(model, histories)))
        assert together.shape == (300, 40)
        assert together[[0, 255, 256, 299]] == pytest.approx(
            np.stack([score(model, histories[user]) for user in (0, 255, 256, 299)])
        )

    def test_blocks_of_a_large_catalogue_are_smaller(self, model, monkeypatch):
        histories = walks(20, seed=5)
        whole = next(score_batch(model, histories))
        monkeypatch.setattr(fusion, "SCORES_PER_BLOCK", 3 * 40)
        blocks = list(score_batch(model, histories))
        assert [len(block) for block in blocks] == [3] * 6 + [2]
        assert np.concatenate(blocks) == pytest.approx(whole, abs=1e-5)

    def test_what_is_likeliest_by_the_sequence_is_one_and_far_below_it_nothing(self, model):
        """The other terms are silent: items outside the history have pq alone, from 0 to 1."""
        alone = replace(model, weights={(term, 1): float(term == "sequence") for term in TERMS})
        scores = np.delete(score(alone, [3, 4]), [3, 4])
        assert scores.max() == 1.0
        assert scores.min() >= 0
        steep = replace(alone, outputs=model.outputs * np.float16(3))
        assert np.delete(score(steep, [3, 4]), [3, 4]).min() == 0.0

    def test_order_matters(self, model):
        assert score(model, [3, 20]) != pytest.approx(score(model, [20, 3]))

    def test_without_history_it_is_the_popularity(self, model):
        assert score(model, []) == pytest.approx(model.popularity)


class TestFit:
    def test_learns_where_the_signal_is(self, model):
        firsts = {first for _, first in model.weights}
        assert min(firsts) == 1
        assert len(firsts) > 1
        assert set(model.weights) == {(term, first) for term in TERMS for first in firsts}
        for first in firsts:  # texts are noise here
            assert model.weights["transition", first] + model.weights["sequence", first] > 1
            assert model.weights["tfidf", first] < 0.5
        assert min(model.weights.values()) >= 0

    def test_serves_edges_of_the_last_items_too(self):
        served = fit(catalogue(), [[0, 1], [0, 1], [7, 8]])
        assert (7, 8) in as_dict(served.edges["transition"])

    def test_what_was_bought_together_is_served_but_not_scored(self):
        sequences = [[0, 1, 2], [0, 1, 2], [0, 3]]
        bought = fit(catalogue(), sequences, [[0, 2], [2, 0], []])
        assert as_dict(bought.edges["cooccurrence"]) == pytest.approx({(0, 2): 1.0, (2, 0): 1.0})
        taken = fit(catalogue(), sequences)
        assert as_dict(taken.edges["cooccurrence"]) == as_dict(cooccurrences(sequences, 40))
        assert score(bought, [0]) == pytest.approx(score(taken, [0]))

    def test_is_the_same_twice(self):
        first, second = (fit(catalogue(), walks(300)) for _ in range(2))
        assert first.weights == second.weights != EQUAL_WEIGHTS
        assert all(np.array_equal(first.edges[kind].val, second.edges[kind].val) for kind in DECAYS)
        assert np.array_equal(first.inputs, second.inputs)
        assert np.array_equal(first.outputs, second.outputs)

    def test_a_seed_moves_what_is_drawn_only(self):
        first, second = (fit(catalogue(), walks(300), seed=seed) for seed in (0, 1))
        assert not np.array_equal(first.inputs, second.inputs)
        assert np.array_equal(first.features, second.features)
        assert np.array_equal(first.edges["transition"].val, second.edges["transition"].val)

    def test_known_transitions_are_taken_as_they_are(self):
        known = from_texts(catalogue())
        given = Edges(np.array([3], np.int32), np.array([5], np.int32), np.array([0.25], np.float32))
        served = with_events(known, walks(50), transition=given)
        assert as_dict(served.edges["transition"]) == {(3, 5): 0.25}
        assert served.popularity.max() == 1.0

    def test_popularity_is_between_zero_and_one(self, model):
        assert model.popularity.max() == 1.0
        assert popularity([[0, 0, 1]], 3) == pytest.approx([1.0, np.log(2) / np.log(3), 0.0])
        assert not popularity([], 3).any()

    def test_text_vectors_are_centred_and_of_unit_length(self, model):
        vectors = model.text_vectors.astype(np.float64)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(40), abs=1e-2)
        assert np.linalg.norm(vectors.mean(axis=0)) < 0.1

    def test_few_shoppers_get_equal_weights(self):
        assert fit(catalogue(), walks(50)).weights == EQUAL_WEIGHTS

    def test_half_the_shoppers_may_be_enough(self):
        model = with_events(from_texts(catalogue()), [walk[:-1] for walk in walks(150)])
        histories, targets = [walk[:-1] for walk in walks(150)], [walk[-1] for walk in walks(150)]
        assert fusion.fit_weights(model, histories, targets) == EQUAL_WEIGHTS
        assert fusion.fit_weights(model, histories, targets, fusion.MIN_USERS // 2) != EQUAL_WEIGHTS

    def test_small_buckets_join_the_next_shorter(self):
        sequences = [[user % 40, (user + 1) % 40] for user in range(250)] + [list(range(15))] * 30
        weights = fit(catalogue(), sequences).weights
        assert {first for _, first in weights} == {BUCKETS[0]}


class TestDegenerateData:
    def check(self, model, n_items: int) -> None:
        for history in ([], [0], [0, n_items - 1]):
            scores = score(model, history)
            assert scores.shape == (n_items,)
            assert np.isfinite(np.delete(scores, history)).all()
            assert np.isneginf(scores[history]).all()
        assert all(np.isfinite(edges.val).all() and (edges.val > 0).all() for edges in model.edges.values())
        assert model.inputs.shape == (n_items, 256)
        assert model.outputs.shape == (n_items, 257)
        assert all(np.isfinite(part).all() for part in (model.inputs, model.outputs, model.position_weights))
        assert np.isfinite(model.text_vectors).all()

    @pytest.mark.parametrize("sequences", [[], [[]], [[0]] * 5, [[0, 0, 0]], [[19, 0]]])
    def test_hardly_any_events(self, sequences):
        self.check(fit(catalogue(20), sequences), 20)

    def test_all_items_are_duplicates(self):
        same = Catalogue([str(item) for item in range(20)], [["red", "shoe"]] * 20, np.full((20, 4), 0.5, np.float32))
        model = fit(same, walks(300, 20))
        self.check(model, 20)
        assert len(model.edges["encoder"].src) == 0
        assert not model.text_vectors.any()

    def test_items_without_text(self):
        bare = Catalogue([str(item) for item in range(20)], [[]] * 20, np.zeros((20, 4), np.float32))
        model = fit(bare, walks(300, 20))
        self.check(model, 20)
        assert len(model.edges["tfidf"].src) == 0

    def test_two_items(self):
        self.check(fit(catalogue(2), [[0, 1]] * 300), 2)

    def test_malformed_input_is_refused(self):
        whole = catalogue(5)
        with pytest.raises(ValueError, match="names item 5"):
            fit(whole, [[0, 5]])
        with pytest.raises(ValueError, match="names item -1"):
            fit(whole, [[-1]])
        with pytest.raises(ValueError, match="names item 7"):
            fit(whole, [[0]], [[7]])
        with pytest.raises(ValueError, match="as many terms and vectors"):
            fit(replace(whole, terms=whole.terms[:4]), [])
        with pytest.raises(ValueError, match="not finite"):
            fit(replace(whole, vectors=whole.vectors * np.nan), [])
