"""The composer's training: its gradient raises what is rewarded, and the guards end what goes wrong."""

from __future__ import annotations

import numpy as np
import pytest

from ml.refiner.corpus import Bank, sentences
from ml.refiner.decoding import gumbel, sample
from ml.refiner.fitting import good_texts
from ml.refiner.generator import make_pool
from ml.refiner.training import adversarial, fit_mle, imitation_loss, targets
from tests import refiner


@pytest.fixture(scope="module")
def trained():
    corpus = good_texts(refiner.demo_shop()[0])[:60]
    bank = Bank.build(corpus, 0)
    pools = [make_pool(bank, product, place) for place, product in enumerate(corpus)]
    aims = [targets(bank.vectoriser, p, sentences(q.description)) for p, q in zip(pools, corpus, strict=True)]
    selector, losses = fit_mle(pools, aims, 20, 0)
    return pools, aims, selector, losses


def test_imitation_learns_and_reaches_every_weight(trained):
    pools, aims, selector, losses = trained
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    selector.zero_grad()
    imitation_loss(selector, pools[:8], aims[:8], np.random.default_rng(0)).backward()
    assert all(w.grad is not None and bool(w.grad.abs().sum() > 0) for w in selector.parameters() if w.ndim > 1)


@pytest.mark.slow
def test_the_policy_gradient_raises_what_is_rewarded(trained):
    pools, aims, selector, _ = trained

    def length(chosen):
        drawn = [pool.texts(one.chosen) for pool in pools for one in sample(chosen, pool, "x", 4, 1.0, 7)]
        return float(np.mean([len("".join(said)) for said in drawn]))

    before = {name: weight.clone() for name, weight in selector.state_dict().items()}
    short, _, guard = adversarial(
        selector,
        pools,
        aims,
        lambda _, said: np.array([-float(len("".join(each))) for each in said]),
        40,
        0,
        anchor=0.0,
    )
    assert guard == ""
    assert length(short) < 0.98 * length(selector)
    assert all(bool((weight == before[name]).all()) for name, weight in selector.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_ends_the_phase(trained, value):
    pools, aims, selector, _ = trained
    kept, rewards, guard = adversarial(selector, pools, aims, lambda rows, _: np.full(len(rows), value), 5, 0)
    assert guard == "not_finite"
    assert rewards == []
    assert all(bool((a == b).all()) for a, b in zip(kept.parameters(), selector.parameters(), strict=True))


def test_a_generator_that_says_one_thing_has_collapsed(trained, monkeypatch):
    pools, aims, selector, _ = trained
    # Without noise the composer says the same each time, which is what a collapsed one does.
    noise = gumbel
    monkeypatch.setattr("ml.refiner.training.gumbel", lambda rng, rows, n: 0 * noise(rng, rows, n))
    _, rewards, guard = adversarial(selector, pools, aims, lambda rows, _: np.zeros(len(rows)), 20, 0)
    assert guard == "collapsed"
    assert 0 < len(rewards) < 20
