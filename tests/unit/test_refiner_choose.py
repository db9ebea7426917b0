import numpy as np
import pytest

from ml.refiner.choose import ARMS, calibrate, choose, resample


def test_each_arm_takes_what_it_is_named_after():
    logits, likelihoods, coverage = np.array([0.0, 3.0, 1.0]), np.array([-1.0, -9.0, -5.0]), np.array([0.1, 0.1, 0.9])
    taken = {arm: choose(arm, logits, likelihoods, coverage, np.random.default_rng(0)) for arm in ARMS}
    assert taken["likelihood"] == 0
    assert taken["coverage"] == 2
    assert taken["discriminator"] == 1
    assert taken["discriminator+coverage"] == 2
    with pytest.raises(ValueError, match="no arm"):
        choose("luck", logits, likelihoods, coverage, np.random.default_rng(0))
    with pytest.raises(ValueError, match="nothing"):
        choose("random", np.zeros(0), np.zeros(0), np.zeros(0), np.random.default_rng(0))


def test_resampling_turns_the_generators_distribution_into_the_real_one():
    # Real texts are of kind 1 in 8 of 10 cases, generated ones in 3: the best discriminator knows the ratio.
    rng = np.random.default_rng(0)
    ratio = np.log([0.2 / 0.7, 0.8 / 0.3])
    taken = [kinds[resample(ratio[kinds], rng)] for kinds in (rng.random((4000, 24)) < 0.3).astype(int)]
    assert np.mean(taken) == pytest.approx(0.8, abs=0.03)
    # The maximum overshoots to the mode.
    maxima = [kinds[np.argmax(ratio[kinds])] for kinds in (rng.random((4000, 24)) < 0.3).astype(int)]
    assert np.mean(maxima) > 0.98


def test_calibration_finds_the_slope_of_overconfident_logits():
    rng = np.random.default_rng(1)
    log_odds = rng.normal(size=20_000)
    is_real = rng.random(20_000) < 1 / (1 + np.exp(-log_odds))
    assert calibrate(4 * log_odds[is_real], 4 * log_odds[~is_real]) == pytest.approx(0.25, rel=0.1)
