"""Training of the composer: imitation of real descriptions, then a short adversarial phase that has to win."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.refiner.corpus import MAX_SENTENCES, Vectoriser
from ml.refiner.generator import Batch, Pool, advance, first_state, make_selector

# How sharply a true sentence points at the candidates that resemble it.
SHARPNESS = 12.0


def targets(vectoriser: Vectoriser, pool: Pool, said: Sequence[str]) -> NDArray[np.float32]:
    """Return for each true sentence how it is spread over a product's candidates: float32 (m, n), rows sum to 1.

    The truth is never among the candidates at generation, so it is not in training: it is imitated by what resembles
    it, softmax(SHARPNESS · cos).
    """
    ours = vectoriser.sparse(list(said))
    theirs = vectoriser.sparse([candidate.text for candidate in pool.candidates])
    cosines = np.asarray((ours @ theirs.T).todense(), np.float32)
    weights = np.exp(SHARPNESS * (cosines - cosines.max(axis=1, keepdims=True)))
    return weights / weights.sum(axis=1, keepdims=True)


def fit_mle(
    pools: Sequence[Pool], aims: Sequence[NDArray[np.float32]], steps: int, seed: int, batch: int = 32
) -> tuple[Any, list[float]]:
    """Fit the composer to real descriptions.

    Args:
        pools: Of each product, without its own sentences.
        aims: `targets` of each.
        steps: Of AdamW.
        seed: Of the weights and the order.
        batch: Products in a step.

    Returns:
        The network, and the mean loss per choice of each step in nats.
    """
    import torch

    selector = make_selector(seed)
    rng = np.random.default_rng([seed, 2])
    usable = [place for place, pool in enumerate(pools) if len(pool)]
    optimiser = torch.optim.AdamW(selector.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda at: 1.0 - 0.9 * at / max(1, steps))
    losses: list[float] = []
    for _ in range(steps):
        rows = [usable[at] for at in rng.integers(len(usable), size=batch)]
        loss = imitation_loss(selector, [pools[row] for row in rows], [aims[row] for row in rows], rng)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(selector.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return selector.eval(), losses


def imitation_loss(
    selector: Any,  # noqa: ANN401
    pools: Sequence[Pool],
    aims: Sequence[NDArray[np.float32]],
    rng: np.random.Generator,
) -> Any:  # noqa: ANN401
    """Return the mean cross-entropy of the choices against the targets, each step after one drawn from them."""
    import torch

    batch = Batch.of(pools)
    b, n = batch.present.shape
    aim = torch.zeros(b, MAX_SENTENCES + 1, n + 1)
    for row, each in enumerate(aims):
        aim[row, : len(each), : each.shape[1]] = torch.from_numpy(each)
        aim[row, len(each), n] = 1.0
    state = first_state(batch)
    total, count = torch.zeros(()), 0.0
    for step in range(MAX_SENTENCES + 1):
        wanted = aim[:, step]
        wanted = wanted * torch.cat([1.0 - state.chosen, torch.ones(b, 1)], dim=1)
        mass = wanted.sum(1, keepdim=True)
        active = (mass[:, 0] > 1e-6).float()
        if not active.any() or step == MAX_SENTENCES:
            break
        wanted = wanted / mass.clamp(min=1e-6)
        logs = torch.log_softmax(selector(batch, state), dim=1)
        total = total - (active * (wanted * logs.clamp(min=-30.0)).sum(1)).sum()
        count += float(active.sum())
        drawn = (wanted.cumsum(1) > torch.from_numpy(rng.random((b, 1)).astype(np.float32))).float().argmax(1)
        state = advance(state, torch.where(active > 0, drawn, n))
    return total / max(count, 1.0)
