import numpy as np
import pytest

from ml.refiner import vectors
from ml.refiner.vectors import VectorRefiner, VectorSettings

QUICK = VectorSettings(hidden=32, regression_steps=150, adversarial_steps=10)


def _unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    poor = _unit(rng.normal(size=(240, 24)))
    return poor, _unit(poor @ (np.eye(24) + 0.25 * rng.normal(size=(24, 24))) + 0.1 * rng.normal(size=(240, 24)))


def test_result_is_finite_unit_and_the_same_after_loading(pairs, tmp_path):
    refiner = VectorRefiner.fit(*pairs, seed=0, settings=QUICK)
    moved = refiner.refine(pairs[0])
    assert np.linalg.norm(moved, axis=1) == pytest.approx(1, abs=1e-5)
    assert refiner.arm in {"adversarial", "regression", "ridge"}
    assert refiner.report["gain"][1] > 0
    assert refiner.report[refiner.arm]["retrieval"] > refiner.report["none"]["retrieval"]
    refiner.save(tmp_path)
    assert np.array_equal(VectorRefiner.load(tmp_path).refine(pairs[0]), moved)


def test_a_gan_that_diverges_is_passed_over(pairs):
    broken = VectorSettings(hidden=32, regression_steps=20, adversarial_steps=3, anchor=float("nan"))
    refiner = VectorRefiner.fit(*pairs, seed=0, settings=broken)
    assert refiner.report["adversarial"] == {"guard": "not finite"}
    assert refiner.arm in {"regression", "ridge"}
    assert np.isfinite(refiner.refine(pairs[0])).all()


def test_without_a_gain_beyond_chance_vectors_stay(pairs):
    rng = np.random.default_rng(1)
    noise = _unit(rng.normal(size=pairs[0].shape))
    refiner = VectorRefiner.fit(noise, pairs[1], original=pairs[1], seed=0, settings=QUICK)
    assert refiner.arm == "none"
    assert np.allclose(refiner.refine(noise), noise, atol=1e-6)


def test_an_arm_whose_vectors_are_hubs_is_not_taken(pairs, monkeypatch):
    taken = VectorRefiner.fit(*pairs, seed=0, settings=QUICK).arm
    real = vectors._figures
    calls = iter(["none", "ridge", "regression", "adversarial"])

    def figures(*given):
        return real(*given) | ({"hubness": 9.0} if next(calls) == taken else {"hubness": 1.0})

    monkeypatch.setattr(vectors, "_figures", figures)
    refiner = VectorRefiner.fit(*pairs, seed=0, settings=QUICK)
    assert refiner.arm != taken
    assert refiner.report[taken]["hubness"] == 9.0


def test_queries_choose_the_arm(pairs):
    poor, good = pairs
    rotated = np.roll(poor, 1, axis=1)
    refiner = VectorRefiner.fit(
        poor, good, original=rotated, queries=good, owners=np.arange(len(good)), seed=0, settings=QUICK
    )
    assert refiner.report["queries"] == refiner.report["held_out"]
    assert refiner.report[refiner.arm]["retrieval"] > refiner.report["none"]["retrieval"]


def test_what_strays_or_is_not_finite_stays(pairs):
    refiner = VectorRefiner.fit(*pairs, seed=0, settings=QUICK)
    refiner._weights = {name: weight * np.nan for name, weight in refiner._weights.items()}
    assert np.allclose(refiner.refine(pairs[0]), pairs[0], atol=1e-6)
    broken = pairs[0][:2].copy()
    broken[0, 0] = np.nan
    assert np.isfinite(refiner.refine(broken)).all()
    with pytest.raises(ValueError, match="not finite"):
        VectorRefiner.fit(broken.repeat(60, axis=0), broken.repeat(60, axis=0), seed=0)
    with pytest.raises(ValueError, match="pairs"):
        VectorRefiner.fit(pairs[0][:10], pairs[1][:10], seed=0)
