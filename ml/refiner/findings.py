"""What the trials of all seeds say together: means, paired intervals, and which part earned it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.compare import paired
from ml.refiner.arms import CURVES
from ml.refiner.trial import Measured, Trial

GAN = "GAN"
# What each comparison isolates: an arm, and the same without that part.
PARTS = {
    "the GAN system against MLE": (GAN, "MLE"),
    "the GAN system against best by likelihood": (GAN, "MLE, likelihood"),
    "the GAN system against best by coverage": (GAN, "MLE, coverage"),
    "the generator's gradient": ("adversarial", "MLE"),
    "the generator's gradient under selection": ("adversarial, D + coverage", "MLE, D + coverage"),
    "selection by D": ("MLE, D", "MLE"),
    "selection by D beside coverage": ("MLE, D + coverage", "MLE, coverage"),
    "selection by coverage": ("MLE, coverage", "MLE"),
    "rejection sampling by D": ("MLE, rejection", "MLE"),
}
SEARCHED = {
    "published against original": ("published", "original"),
    "published against title + attributes": ("published", "title + attributes"),
    "the GAN system against MLE": (GAN, "MLE"),
    "the GAN system against original": (GAN, "original"),
}

Floats = NDArray[np.float64]


def findings(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the figures of a catalogue, means over seeds, with 95 % intervals by the paired bootstrap over products.

    Args:
        trials: One for each seed, of the same products.

    Raises:
        ValueError: There is none.
    """
    if not trials:
        raise ValueError("There is no trial")
    names = [name for name in trials[0].arms if all(name in trial.arms for trial in trials)]
    arms = {name: _arm([trial.arms[name] for trial in trials]) for name in names}
    arms[GAN] = _arm([trial.arms[trial.gan] for trial in trials])
    for name, found in arms.items():
        gains = _all_gains(trials, name, "retrieval")
        found["ndcg@10"] = None if gains is None else float(gains.mean())
    return {
        "sizes": trials[0].sizes,
        "seeds": len(trials),
        "arms": arms,
        "gan": [{"arm": trial.gan, "temperature": trial.temperature} for trial in trials],
        "parts": {
            part: {
                kind: _difference(
                    np.mean([_values(trial, one, kind) for trial in trials], axis=0),
                    np.mean([_values(trial, other, kind) for trial in trials], axis=0),
                )
                for kind in ("network", "ngrams")
            }
            for part, (one, other) in PARTS.items()
            if {one, other} <= arms.keys()
        },
        "curves": _curves(trials),
        "retrieval": _retrieval(trials, "retrieval"),
        "untouched": _retrieval(trials, "untouched"),
        "published": _outcomes([trial.published for trial in trials]),
        "poor": _outcomes([trial.poor for trial in trials]),
        "planted": {
            kind: {
                "planted": sum(trial.planted.get(kind, (0, 0))[0] for trial in trials),
                "caught": sum(trial.planted.get(kind, (0, 0))[1] for trial in trials),
            }
            for kind in sorted({kind for trial in trials for kind in trial.planted})
        },
        "validation": [
            {name: {str(t): auc for t, auc in found.items()} for name, found in trial.validation.items()}
            for trial in trials
        ],
        "training": [trial.report for trial in trials],
    }


def _of(trial: Trial, name: str) -> Measured:
    return trial.arms[trial.gan if name == GAN else name]


def _values(trial: Trial, name: str, kind: str) -> Floats:
    arm = _of(trial, name)
    return arm.network.pseudo if kind == "network" else arm.ngrams.pseudo


def _arm(measured: Sequence[Measured]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: float(np.mean([one.figures[name] for one in measured])) for name in measured[0].figures
    }
    for kind, judged in (("network", [m.network for m in measured]), ("ngrams", [m.ngrams for m in measured])):
        interval = _difference(np.mean([one.pseudo for one in judged], axis=0), np.zeros(len(judged[0].pseudo)))
        found[kind] = {"auc": interval["difference"], "ci95": interval["ci95"], "by_seed": [one.auc for one in judged]}
        found[kind]["steps" if kind == "network" else "ridge"] = float(np.mean([one.steps for one in judged]))
    return found


def _difference(ours: Floats, theirs: Floats) -> dict[str, Any]:
    """Return ours − theirs, product by product, with its 95 % interval."""
    mean, low, high = paired(ours[:, None], theirs[:, None])[:, 0].tolist()
    return {"difference": mean, "ci95": [low, high]}


def _curves(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return each arm's figures over temperatures, and what it differs from MLE by at each."""
    found: dict[str, Any] = {}
    for name in (*CURVES, GAN):
        lines = [trial.curves.get(trial.gan if name == GAN else name, {}) for trial in trials]
        if not all(lines):
            continue
        found[name] = {}
        for temperature in lines[0]:
            points = [line[temperature] for line in lines]
            ours = np.mean([point[0].pseudo for point in points], axis=0)
            against = {}
            for other in ("MLE", "MLE, likelihood"):
                theirs = np.mean([trial.curves[other][temperature][0].pseudo for trial in trials], axis=0)
                against[other] = _difference(ours, theirs)
            found[name][str(temperature)] = {
                "auc": float(ours.mean()),
                "distinct_2": float(np.mean([point[1] for point in points])),
                "self_bleu": float(np.mean([point[2] for point in points])),
                "against": against,
            }
    return found


def _gains(trial: Trial, name: str, which: str) -> Floats | None:
    gains: dict[str, Floats] = getattr(trial, which)
    return gains.get(trial.gan if name == GAN else name)


def _all_gains(trials: Sequence[Trial], name: str, which: str) -> Floats | None:
    """Return nDCG@10 of each query, mean over seeds; None for an arm that was not searched with."""
    found = [gains for trial in trials if (gains := _gains(trial, name, which)) is not None]
    return np.mean(found, axis=0) if len(found) == len(trials) else None


def _retrieval(trials: Sequence[Trial], which: str) -> dict[str, Any]:
    """Return nDCG@10 of each arm, and of pairs of arms how they differ."""
    names = [*getattr(trials[0], which), GAN]
    gains = {name: found for name in names if (found := _all_gains(trials, name, which)) is not None}
    pairs = {}
    for what, (one, other) in SEARCHED.items():
        difference, base = _difference(gains[one], gains[other]), float(gains[other].mean())
        pairs[what] = difference | {"relative": difference["difference"] / base if base else None}
    means = {name: float(found.mean()) for name, found in gains.items()}
    return {"queries": len(gains[GAN]), "ndcg@10": means, "pairs": pairs}


def _outcomes(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return sums of counts and means of shares over seeds."""
    take: dict[str, Callable[[list[float]], float]] = {"precision": np.mean, "coverage": np.mean}
    found: dict[str, Any] = {
        name: float(take.get(name, np.sum)([outcome[name] for outcome in outcomes]))
        for name in outcomes[0]
        if name != "reasons"
    }
    reasons = {reason for outcome in outcomes for reason in outcome["reasons"]}
    found["reasons"] = {reason: sum(outcome["reasons"].get(reason, 0) for outcome in outcomes) for reason in reasons}
    found["share"] = found["published"] / found["asked"] if found["asked"] else None
    return found
