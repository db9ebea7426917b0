"""The vector-level refiner: moves the vector of a poor item to where good descriptions live.

Three arms: ridge regression; a network that is fitted by cosine; and the same network trained on as a Wasserstein GAN
with gradient penalty (Gulrajani et al. 2017), conditional on the poor vector. Held-out queries choose, and the vectors
as they were stay where no arm is better beyond chance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.compare import paired

Floats = NDArray[np.float32]
LEAST_PAIRS = 50
HELD_OUT = 0.3
# Of vectors of unit length.
RIDGE = 1.0
# A result further from the given vector than this, in cosine, is not trusted.
LEAST_COSINE = 0.2
NEIGHBOURS = 10
# An arm whose vectors are hubs, by so much more skewness than before, crowds out others.
MORE_HUBNESS = 1.0
FORMAT = 2


@dataclass(frozen=True)
class VectorSettings:
    """How much is trained, in steps.

    Attributes:
        hidden: Width of both networks.
        regression_steps: Without a critic.
        adversarial_steps: Of the generator; the critic takes three for each.
        anchor: Weight of 1 − cosine beside the critic.
        batch: Pairs in a step.
    """

    hidden: int = 192
    regression_steps: int = 300
    adversarial_steps: int = 150
    anchor: float = 10.0
    batch: int = 64


class VectorRefiner:
    """Made by `fit` or `load`.

    Attributes:
        arm: `ridge`, `regression`, `adversarial`, or `none`, which returns vectors as they are.
        report: Hubness, spread and retrieval of held-out pairs, of each arm, and by how much the best one gains.
    """

    def __init__(
        self, arm: str, report: dict[str, Any], settings: VectorSettings, weights: Mapping[str, Floats]
    ) -> None:
        self.arm, self.report, self.settings, self._weights = arm, report, settings, dict(weights)

    @classmethod
    def fit(
        cls,
        poor: Floats,
        good: Floats,
        *,
        original: Floats | None = None,
        queries: Floats | None = None,
        owners: NDArray[np.int64] | None = None,
        seed: int = 0,
        settings: VectorSettings | None = None,
    ) -> VectorRefiner:
        """Train on pairs, and keep the arm that finds held-out products best, if it does so beyond chance.

        Args:
            poor: float32 (n, d), vectors of products without their descriptions.
            good: float32 (n, d), the same with them.
            original: float32 (n, d), vectors with spoilt descriptions, which the gain is measured against; `poor` if
                they are not given.
            queries: float32 (q, d), of unit length; the good vectors themselves if they are not given.
            owners: int64 (q,), the row of the product that each query is after.
            seed: Of everything drawn.
            settings: How much is trained.

        Raises:
            ValueError: There are too few pairs, their shapes differ, or a number is not finite.
        """
        settings = settings or VectorSettings()
        original = poor if original is None else original
        if poor.shape != good.shape or original.shape != good.shape or len(poor) < LEAST_PAIRS:
            raise ValueError(f"{len(poor)} and {len(good)} vectors are no {LEAST_PAIRS} pairs")
        if not all(np.isfinite(vectors).all() for vectors in (poor, good, original)):
            raise ValueError("a vector is not finite")
        if queries is None or owners is None:
            queries, owners = _unit(good), np.arange(len(good))
        order = np.random.default_rng(seed).permutation(len(poor))
        held, rest = np.split(order, [max(NEIGHBOURS, round(HELD_OUT * len(poor)))])
        asked = np.isin(owners, held)
        queries, owners = queries[asked], owners[asked]
        fitted = {"ridge": _ridge(poor[rest], good[rest])} | _train(poor[rest], good[rest], settings, seed)
        report: dict[str, Any] = {"pairs": len(rest), "held_out": len(held), "queries": len(queries)}
        ranks: dict[str, NDArray[np.float64]] = {}
        for name, weights in [("none", {}), *fitted.items()]:
            moved = _apply(weights, poor[held]) if weights else _unit(original[held])
            if not all(np.isfinite(array).all() for array in [moved, *weights.values()]):
                report[name] = {"guard": "not finite"}
                continue
            items = _unit(good)
            items[held] = moved
            ranks[name] = _reciprocal_ranks(queries, owners, items)
            report[name] = _figures(moved, _unit(good[held]), original[held])
            report[name]["retrieval"] = float(ranks[name].mean()) if len(queries) else 0.0
        fit = [name for name in ranks if report[name]["hubness"] <= report["none"]["hubness"] + MORE_HUBNESS]
        arm = max(fit, key=lambda name: report[name]["retrieval"])
        if len(queries) and arm != "none":
            gain = paired(ranks[arm][:, None], ranks["none"][:, None], seed)[:, 0]
            report["gain"] = [float(bound) for bound in gain]
        report["arm"] = arm = arm if report.get("gain", [0.0, 0.0])[1] > 0 else "none"
        return cls(arm, report, settings, fitted.get(arm, {}))

    def refine(self, vectors: Floats) -> Floats:
        """Return moved vectors, float32 (m, d) of unit length; one that is not finite or strays stays as it was."""
        given = _unit(np.nan_to_num(vectors, nan=0.0, posinf=0.0, neginf=0.0))
        if not self._weights or not len(vectors):
            return given
        moved = _apply(self._weights, given)
        trusted = np.isfinite(moved).all(axis=1) & ((moved * given).sum(axis=1) >= LEAST_COSINE)
        return np.where(trusted[:, None], moved, given).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write weights as safetensors and the rest as JSON into a folder."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._weights, folder / "vectors.safetensors")
        saved = {"format": FORMAT, "arm": self.arm, "report": self.report, "settings": asdict(self.settings)}
        (folder / "vectors.json").write_text(json.dumps(saved, sort_keys=True), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> VectorRefiner:
        """Read what `save` wrote.

        Raises:
            ValueError: Another version of the code wrote it.
        """
        from safetensors.numpy import load_file

        saved = json.loads((folder / "vectors.json").read_text("utf-8"))
        if saved.get("format") != FORMAT:
            raise ValueError(f"{folder} holds a vector refiner of format {saved.get('format')}, not {FORMAT}")
        weights = load_file(folder / "vectors.safetensors")
        return cls(saved["arm"], saved["report"], VectorSettings(**saved["settings"]), weights)


def _train(poor: Floats, good: Floats, settings: VectorSettings, seed: int) -> dict[str, dict[str, Floats]]:
    """Return the weights after regression, and after the critic."""
    import torch
    from torch import nn

    x, y = torch.from_numpy(_unit(poor)), torch.from_numpy(_unit(good))
    d = x.shape[1]
    rng = np.random.default_rng([seed, 1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        last = nn.Linear(settings.hidden, d)
        move = nn.Sequential(nn.Linear(d, settings.hidden), nn.GELU(), last)
        critic = nn.Sequential(nn.Linear(2 * d, settings.hidden), nn.LeakyReLU(0.2), nn.Linear(settings.hidden, 1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

        def moved(rows: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(x[rows] + move(x[rows]), dim=1)

        def drawn() -> torch.Tensor:
            return torch.from_numpy(rng.integers(len(x), size=settings.batch))

        def regression(rows: torch.Tensor) -> torch.Tensor:
            return 1 - (moved(rows) * y[rows]).sum(1).mean()

        first = torch.optim.AdamW(move.parameters(), lr=1e-3, weight_decay=0.01)
        for _ in range(settings.regression_steps):
            first.zero_grad()
            regression(drawn()).backward()  # type: ignore[no-untyped-call]
            first.step()
        found = {"regression": _arrays(move)}
        second = torch.optim.Adam(move.parameters(), lr=2e-4, betas=(0.5, 0.9))
        judge = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.5, 0.9))
        for _ in range(settings.adversarial_steps):
            for _ in range(3):
                rows = drawn()
                real = torch.cat([x[rows], y[rows]], dim=1)
                fake = torch.cat([x[rows], moved(rows).detach()], dim=1)
                mix = torch.from_numpy(rng.random((len(rows), 1)).astype(np.float32))
                between = (mix * real + (1 - mix) * fake).requires_grad_()
                (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
                loss = critic(fake).mean() - critic(real).mean() + 10 * ((slope.norm(dim=1) - 1) ** 2).mean()
                judge.zero_grad()
                loss.backward()
                judge.step()
            rows = drawn()
            loss = -critic(torch.cat([x[rows], moved(rows)], dim=1)).mean() + settings.anchor * regression(rows)
            second.zero_grad()
            loss.backward()
            second.step()
    return found | {"adversarial": _arrays(move)}


def _ridge(poor: Floats, good: Floats) -> dict[str, Floats]:
    x, y = _unit(poor).astype(np.float64), _unit(good).astype(np.float64)
    centre, target = x.mean(axis=0), y.mean(axis=0)
    gram = (x - centre).T @ (x - centre) + RIDGE * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, (x - centre).T @ (y - target))
    return {"weight": weight.astype(np.float32), "bias": (target - centre @ weight).astype(np.float32)}


def _reciprocal_ranks(queries: Floats, owners: NDArray[np.int64], items: Floats) -> NDArray[np.float64]:
    scores = queries @ items.T
    own = scores[np.arange(len(queries)), owners]
    return 1.0 / (1 + (scores > own[:, None]).sum(axis=1))


def _arrays(move: Any) -> dict[str, Floats]:  # noqa: ANN401
    names = ("inner.weight", "inner.bias", "outer.weight", "outer.bias")
    return {name: p.detach().numpy().copy() for name, p in zip(names, move.parameters(), strict=True)}


def _apply(weights: Mapping[str, Floats], vectors: Floats) -> Floats:
    from scipy.special import erf

    given = _unit(vectors)
    if "weight" in weights:
        return _unit(given @ weights["weight"] + weights["bias"])
    inner = given @ weights["inner.weight"].T + weights["inner.bias"]
    inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2, dtype=np.float32)))
    return _unit(given + inner @ weights["outer.weight"].T + weights["outer.bias"])


def _figures(moved: Floats, good: Floats, poor: Floats) -> dict[str, float]:
    """Return cosine to the good vector, spread of the moved relative to the good, hubness, and how far they moved.

    Hubness is the skewness of how often a vector is among the ten nearest of others (Radovanović et al. 2010).
    """
    near = moved @ moved.T
    np.fill_diagonal(near, -np.inf)
    nearest = np.argsort(-near, axis=1)[:, :NEIGHBOURS]
    often = np.bincount(nearest.ravel(), minlength=len(moved)).astype(np.float64)
    skew = ((often - often.mean()) ** 3).mean() / max(often.std() ** 3, 1e-9)
    spread = moved.std(axis=0).sum() / max(float(good.std(axis=0).sum()), 1e-9)
    return {
        "cosine": float((moved * good).sum(axis=1).mean()),
        "spread": float(spread),
        "hubness": float(skew),
        "moved": float(1 - (moved * _unit(poor)).sum(axis=1).mean()),
    }


def _unit(vectors: NDArray[np.floating]) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros(vectors.shape, np.float32), where=length > 1e-8).astype(np.float32)
