"""Which of k texts is taken: at random, by likelihood, coverage, the discriminator, or by rejection sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ARMS = ("random", "likelihood", "coverage", "discriminator", "discriminator+coverage", "rejection")
Floats = NDArray[np.float64]


def choose(
    arm: str, logits: Floats, likelihoods: Floats, coverage: Floats, rng: np.random.Generator, calibration: float = 1.0
) -> int:
    """Return the place of the text that an arm takes out of k of one product.

    Args:
        arm: One of `ARMS`.
        logits: float64 (k,), the discriminator's, of real.
        likelihoods: float64 (k,), log-probabilities under the generator.
        coverage: float64 (k,), 0 to 1.
        rng: Of what is drawn.
        calibration: Slope that makes the logits log-odds, see `calibrate`.

    Raises:
        ValueError: There is no text or no such arm.
    """
    if not len(logits):
        raise ValueError("there is nothing to choose from")
    realness = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
    if arm == "random":
        return int(rng.integers(len(logits)))
    if arm == "rejection":
        return resample(logits, rng, calibration)
    scores = {
        "likelihood": likelihoods,
        "coverage": coverage,
        "discriminator": realness,
        "discriminator+coverage": realness + coverage,
    }
    if arm not in scores:
        raise ValueError(f"there is no arm {arm}: {', '.join(ARMS)}")
    return int(np.argmax(scores[arm]))


def resample(logits: Floats, rng: np.random.Generator, calibration: float = 1.0) -> int:
    """Return a place drawn ∝ D / (1 − D) = exp(calibrated logit).

    What discriminator rejection sampling aims at with a finite budget (Azadi et al. 2019; Turner et al. 2019): the
    distribution of real texts, where the maximum would give its mode.
    """
    weights = calibration * logits
    weights = np.exp(weights - weights.max())
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def calibrate(real: Sequence[float], generated: Sequence[float]) -> float:
    """Return the slope a ≥ 0 for which σ(a · logit + b) is the probability of real, on held-out texts (Platt 1999)."""
    logits = np.concatenate([real, generated])
    labels = np.concatenate([np.ones(len(real)), np.zeros(len(generated))])
    slope, shift = 1.0, 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(slope * logits + shift, -50, 50)))
        w = np.maximum(p * (1 - p), 1e-9)
        gradient = np.array([((labels - p) * logits).sum() - 1e-3 * slope, (labels - p).sum()])
        hessian = np.array([[(w * logits**2).sum() + 1e-3, (w * logits).sum()], [(w * logits).sum(), w.sum() + 1e-9]])
        step = np.linalg.solve(hessian, gradient)
        slope, shift = slope + float(np.clip(step[0], -1, 1)), shift + float(np.clip(step[1], -1, 1))
        if np.abs(step).max() < 1e-9:
            break
    return max(0.0, slope)
