import numpy as np
import pytest

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
    assert refiner.arm in {"adversarial", "regression"}
    assert refiner.report[refiner.arm]["retrieval"] > refiner.report["none"]["retrieval"]
    refiner.save(tmp_path)
    assert np.array_equal(VectorRefiner.load(tmp_path).refine(pairs[0]), moved)


def test_what_strays_or_is_not_finite_stays(pairs):
    refiner = VectorRefiner.fit(*pairs, seed=0, settings=QUICK)
    refiner._weights["outer.bias"] = refiner._weights["outer.bias"] * np.nan
    assert np.allclose(refiner.refine(pairs[0]), pairs[0], atol=1e-6)
    broken = pairs[0][:2].copy()
    broken[0, 0] = np.nan
    assert np.isfinite(refiner.refine(broken)).all()
    with pytest.raises(ValueError, match="not finite"):
        VectorRefiner.fit(broken.repeat(60, axis=0), broken.repeat(60, axis=0), seed=0)
    with pytest.raises(ValueError, match="pairs"):
        VectorRefiner.fit(pairs[0][:10], pairs[1][:10], seed=0)
