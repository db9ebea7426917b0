"""The evaluation, on data whose right answer is planted."""

from __future__ import annotations

import numpy as np
import pytest

from ml import evaluate as evaluation
from ml.evaluate import Extras, evaluate
from ml.recommender import Catalogue
from ml.recommender.fusion import TERMS

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
    return evaluate(*planted, data="planted").report


def test_transitions_find_what_was_planted_and_popularity_does_not(report):
    assert report["arms"]["transition"]["test"]["recall@10"] == 1.0
    assert report["arms"]["souk"]["test"]["ndcg@10"] == pytest.approx(1.0)
    assert report["arms"]["popularity"]["test"]["recall@10"] < 0.5


def test_the_report_follows_the_convention(report):
    counts = {"items", "users", "users_skipped", "events"}
    assert set(report) == {"data", "data_key", "protocol", "arms", "time_split", *counts}
    assert (report["data"], report["items"], report["users"], report["events"]) == ("planted", 60, 300, 1800)
    assert list(report["arms"]) == ["popularity", "item-knn", "transition", "souk"]
    for arm in report["arms"].values():
        assert set(arm) == {"validation", "test", "ci95", "train_seconds", "beyond", "groups"}
        figures = arm["test"] | arm["beyond"]
        assert {"recall@10", "ndcg@10", "novelty", "diversity", "popular_share"} <= set(arm["ci95"])
        for name, (low, high) in arm["ci95"].items():
            assert low - 1e-9 <= figures[name] <= high + 1e-9


def test_the_report_is_the_same_twice(planted, report):
    again = evaluate(*planted, data="planted").report
    assert again["arms"]["souk"]["test"] == report["arms"]["souk"]["test"]
    assert again["arms"]["souk"]["ci95"] == report["arms"]["souk"]["ci95"]


def test_no_training_data_holds_a_held_out_item(planted, monkeypatch):
    seen: list[list[int]] = []
    build = evaluation.with_events

    def spy(model, sequences, seed):
        seen.extend(map(list, sequences))
        return build(model, sequences, seed)

    monkeypatch.setattr(evaluation, "with_events", spy)
    evaluate(*planted, data="planted", arms=["souk"])
    assert seen == [sequence[:4] for sequence in planted[1]]


def test_shuffled_sequences_lose_what_was_planted(planted):
    catalogue, sequences = planted
    chance = np.random.default_rng(1)
    shuffled = [chance.permutation(N_ITEMS)[: len(sequence)].tolist() for sequence in sequences]
    report = evaluate(catalogue, shuffled, data="shuffled", arms=["souk"]).report
    assert report["arms"]["souk"]["test"]["recall@10"] < 0.4


def test_nothing_to_hold_out_is_refused(planted):
    with pytest.raises(ValueError, match="three distinct items"):
        evaluate(planted[0], [[0, 1], [2, 2, 2]], data="short")


def test_the_time_split_says_why_there_is_none(planted):
    catalogue, sequences = planted
    without = evaluate(catalogue, sequences, "planted", arms=["popularity"])
    assert without.report["time_split"] == {"skipped": "the data has no times, only an order"}
    constant = [[5.0] * len(sequence) for sequence in sequences]
    report = evaluate(catalogue, sequences, "planted", arms=["popularity"], times=constant).report
    assert report["time_split"] == {"skipped": "all events have the same time"}


def test_the_time_split_trains_on_the_past_only(planted, monkeypatch):
    catalogue, sequences = planted
    times = [[float(user % 5 + 10 * step) for step in range(6)] for user in range(len(sequences))]
    seen: list[list[list[int]]] = []
    build = evaluation.with_events

    def spy(model, sequences, seed):
        seen.append([list(sequence) for sequence in sequences])
        return build(model, sequences, seed)

    monkeypatch.setattr(evaluation, "with_events", spy)
    found = evaluate(catalogue, sequences, "planted", arms=["souk"], times=times)
    by_time = found.report["time_split"]
    assert by_time["users_test"] >= 20
    assert by_time["arms"]["souk"]["test"]["recall@10"] > 0.8
    assert set(found.gains) == {"loo/souk", "time/souk"}
    before = by_time["validation_from"]
    assert sorted(seen[1]) == sorted(
        [item for item, time in zip(items, when, strict=True) if time < before]
        for items, when in zip(sequences, times, strict=True)
    )


@pytest.mark.slow
def test_extras_add_refit_seeds_and_ablation(planted):
    found = evaluate(*planted, data="planted", arms=["transition", "souk"], extras=Extras(True, 2, True)).report
    assert found["arms"]["souk"]["seeds"]["seeds"] == 2
    assert set(found["arms"]["souk"]["seeds"]["test"]) == {"mean", "spread"}
    assert set(found["ablation"]) == set(TERMS)
    assert "not comparable" in found["refit"]["note"]
    assert set(found["refit"]["arms"]) == {"transition", "souk"}
    assert "validation" not in found["refit"]["arms"]["souk"]
    assert found["refit"]["arms"]["souk"]["test"]["recall@10"] == 1.0


def test_a_refit_knows_what_only_the_validation_item_tells():
    """Nobody takes item 2 after item 1 but as the validation item, and item 3 after item 2 but as the test."""
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    catalogue = Catalogue([str(item) for item in range(40)], [[f"w{item}"] for item in range(40)], vectors)
    sequences = [[0, 10 + user % 30, 2, 3] if user % 2 else [4, 2, 3, 5, 6] for user in range(100)]
    found = evaluate(catalogue, sequences, "planted", arms=["popularity"], extras=Extras(refit=True)).report
    plain, refit = found["arms"]["popularity"]["test"], found["refit"]["arms"]["popularity"]["test"]
    assert refit != plain


@pytest.mark.parametrize(
    "damage",
    ["one event each but for one", "no texts", "twenty items", "all the same popularity", "everybody takes the same"],
)
def test_poor_data_is_measured_without_nan(planted, damage):
    catalogue, sequences = planted
    if damage == "one event each but for one":
        sequences = [sequences[0], *([sequence[0]] for sequence in sequences[1:])]
    elif damage == "no texts":
        catalogue = Catalogue(catalogue.item_ids, [[] for _ in catalogue.terms], np.zeros_like(catalogue.vectors))
    elif damage == "twenty items":
        catalogue = Catalogue(catalogue.item_ids[:20], catalogue.terms[:20], catalogue.vectors[:20])
        sequences = [[item % 20 for item in sequence] for sequence in sequences]
    elif damage == "everybody takes the same":
        sequences = [[0, 1, 2, 3]] * 50
    report = evaluate(catalogue, sequences, damage, categories=["c"] * len(catalogue.item_ids)).report
    assert list(report["arms"]) == ["popularity", "item-knn", "transition", "souk"]
    assert np.isfinite(list(_numbers(report))).all()


def _numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, float | int):
        yield value
