"""Whether a challenger may replace the champion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ml.champion import MOST_SHOPPERS, Trial, compare, hold_trial
from ml.recommender import Catalogue, fit_with_trial

SHOPPERS = 1000


def trial(quality: float, seed: int = 0, first: int = 0, **facts: float) -> Trial:
    """A trial in which a share of the shoppers is served well."""
    chance = np.random.default_rng(seed)
    hit = chance.random(SHOPPERS) < quality
    gain = np.where(hit, chance.random(SHOPPERS), 0.0)
    return Trial(
        np.arange(first, first + SHOPPERS), gain, hit.astype(float), **{"coverage": 0.4, "popularity": 0.5, **facts}
    )


def test_an_equal_and_a_better_challenger_pass() -> None:
    champion = trial(0.2)
    for challenger in (champion, trial(0.2, seed=1), trial(0.35, seed=1)):
        outcome = compare(champion, challenger)
        assert outcome.is_paired
        assert outcome.shoppers == SHOPPERS
        assert outcome.faults == []
        assert outcome.low <= outcome.challenger - outcome.champion <= outcome.high


def test_a_worse_challenger_is_named() -> None:
    outcome = compare(trial(0.3), trial(0.1, seed=1))
    assert outcome.high < 0
    assert outcome.faults[0].startswith(f"ranks worse: NDCG@10 {outcome.challenger:.4f} after {outcome.champion:.4f}")


def test_other_shoppers_make_other_samples() -> None:
    outcome = compare(trial(0.3), trial(0.1, seed=1, first=SHOPPERS - 50))
    assert not outcome.is_paired
    assert outcome.shoppers == SHOPPERS
    assert len(outcome.faults) == 1
    assert compare(trial(0.3), trial(0.31, seed=2, first=5000)).faults == []


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"coverage": 0.3}, "lists 30.0% of the catalogue after 40.0%"),
        ({"popularity": 0.7}, "gives 70% of its places to the popular fifth after 50%"),
    ],
)
def test_guard_rails_hold(facts: dict[str, float], fault: str) -> None:
    assert compare(trial(0.2), trial(0.2, **facts)).faults == [fault]


def test_a_slow_challenger_is_refused_once_shoppers_notice() -> None:
    same = trial(0.2)
    assert compare(same, same, 10, 40).faults == ["takes 40 ms for a list after 10 ms"]
    assert compare(same, same, 2, 20).faults == []
    assert compare(same, same, 30, 50).faults == []
    assert compare(same, same, 0, 50).faults == []


def test_nothing_held_out_is_no_fault() -> None:
    none = np.zeros(0)
    empty = Trial(none.astype(np.int64), none, none, 0.0, 0.0)
    assert compare(empty, empty).faults == []
    assert compare(empty, trial(0.2)).faults == []
    assert compare(trial(0.2), empty).faults == ["was tried on nobody after 1,000 shoppers"]


def test_a_trial_ranks_what_the_model_has_not_seen() -> None:
    """Shoppers walk around a ring; what comes next is next to what was taken last."""
    n_items, chance = 60, np.random.default_rng(0)
    walks = [[(start + step) % n_items for step in range(6)] for start in chance.integers(n_items, size=600).tolist()]
    catalogue = Catalogue(
        [f"i{n}" for n in range(n_items)], [[f"w{n}"] for n in range(n_items)], np.eye(n_items, 384, dtype=np.float32)
    )
    tried = fit_with_trial(catalogue, walks).tried
    histories, targets = [walk[:-1] for walk in walks], [walk[-1] for walk in walks]
    keys = chance.permutation(len(walks)).tolist()
    good = hold_trial(tried, histories, targets, keys)
    assert len(good.keys) == len(walks)
    assert good.recall.mean() > 0.9
    assert good.coverage == 1
    wrong = hold_trial(tried, histories, [(target + 30) % n_items for target in targets], keys)
    assert compare(good, wrong).faults
    popular = dataclasses.replace(tried, weights={(term, 1): float(term == "popularity") for term, _ in tried.weights})
    flat = hold_trial(popular, histories, targets, keys)
    assert flat.popularity > 0.7 > good.popularity


def test_a_large_shop_is_tried_on_a_sample_that_stays() -> None:
    n = MOST_SHOPPERS + 500
    catalogue = Catalogue(["a", "b", "c"], [["x"], ["y"], ["z"]], np.eye(3, 384, dtype=np.float32))
    tried = fit_with_trial(catalogue, [[0, 1], [1, 2]]).tried
    keys = np.random.default_rng(0).permutation(n)
    found = hold_trial(tried, [[0]] * n, [1] * n, keys.tolist())
    assert found.keys.tolist() == list(range(MOST_SHOPPERS))
