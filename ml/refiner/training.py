"""Training of the composer: imitation of real descriptions, then a short adversarial phase that has to win."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.refiner.corpus import MAX_SENTENCES, Vectoriser
from ml.refiner.decoding import gumbel, rollout
from ml.refiner.generator import Batch, Pool, advance, first_state, make_selector

# How sharply a true sentence points at the candidates that resemble it.
SHARPNESS = 12.0
CHECKPOINT = 10
# The phase ends where so many products, at a step after these, get the same text each time.
COLLAPSED = 0.9
COLLAPSE_AFTER = 5


def targets(vectoriser: Vectoriser, pool: Pool, said: Sequence[str]) -> NDArray[np.float32]:
    """Return for each true sentence how it is spread over a product's candidates: float32 (m, n), rows sum to 1.

    The truth is never among the candidates at generation, so it is not in training: it is imitated by what resembles
    it, softmax(SHARPNESS · cos).
    """
    ours = vectoriser.words(list(said))
    theirs = vectoriser.words([candidate.text for candidate in pool.candidates])
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


def adversarial(
    selector: Any,  # noqa: ANN401
    pools: Sequence[Pool],
    aims: Sequence[NDArray[np.float32]],
    reward: Callable[[list[int], list[list[str]]], NDArray[np.float64]] | None,
    steps: int,
    seed: int,
    batch: int = 16,
    k: int = 4,
    anchor: float = 1.0,
) -> tuple[Any, list[float], str]:
    """Train a copy of the composer by policy gradient: leave-one-out baseline, the imitation loss as anchor.

    Args:
        selector: After `fit_mle`; it is not changed.
        pools: As in `fit_mle`.
        aims: As in `fit_mle`.
        reward: Of products' numbers and their sentences, higher is better; None for the anchor alone, which is what
            the phase would be without an adversary.
        steps: Of Adam.
        seed: Of everything drawn.
        batch: Products in a step.
        k: Texts of each.
        anchor: Weight of the imitation loss.

    Returns:
        The network, the mean reward of each step, and which guard ended the phase, "" for none: `not_finite`, or
        `collapsed` where nearly all texts of a product are the same. The network is the last one before it.
    """
    import torch

    model = copy.deepcopy(selector).train()
    rng = np.random.default_rng([seed, 4])
    usable = [place for place, pool in enumerate(pools) if len(pool) > 1]
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-4)
    rewards: list[float] = []
    kept = copy.deepcopy(model.state_dict())
    for step in range(steps):
        rows = [usable[at] for at in rng.integers(len(usable), size=batch)]
        loss = anchor * imitation_loss(model, [pools[row] for row in rows], [aims[row] for row in rows], rng)
        if reward is not None:
            guard, gain, mean = _gain(model, pools, rows, reward, rng, k, step)
            if guard:
                model.load_state_dict(kept)
                return model.eval(), rewards, guard
            loss = loss - gain
            rewards.append(mean)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if step % CHECKPOINT == 0:
            kept = copy.deepcopy(model.state_dict())
        optimiser.step()
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        model.load_state_dict(kept)
        return model.eval(), rewards, "not_finite"
    return model.eval(), rewards, ""


def _gain(
    model: Any,  # noqa: ANN401
    pools: Sequence[Pool],
    rows: list[int],
    reward: Callable[[list[int], list[list[str]]], NDArray[np.float64]],
    rng: np.random.Generator,
    k: int,
    step: int,
) -> tuple[str, Any, float]:
    """Return the guard that fires, if any; what the policy gains, to be maximised; and the mean reward."""
    import torch

    b = len(rows)
    stacked = Batch.of([pools[row] for row in rows]).repeat(k)
    n = stacked.present.shape[1]
    chosen, logs, _ = rollout(model, stacked, 1.0, gumbel(rng, b * k, n))
    texts = [[place for place in row if place < n] for row in chosen.tolist()]
    of = [row for row in rows for _ in range(k)]
    said = [pools[row].texts(text) for row, text in zip(of, texts, strict=True)]
    got = torch.from_numpy(np.asarray(reward(of, said), np.float32)).view(b, k)
    if not torch.isfinite(got).all() or not torch.isfinite(logs).all():
        return "not_finite", None, 0.0
    same = np.mean([len({tuple(t) for t in texts[at : at + k]}) == 1 for at in range(0, b * k, k)])
    if step > COLLAPSE_AFTER and same > COLLAPSED:
        return "collapsed", None, 0.0
    baseline = (got.sum(1, keepdim=True) - got) / (k - 1)
    advantage = (got - baseline) / got.std().clamp(min=1e-3)
    return "", (advantage.view(-1) * logs).mean(), float(got.mean())
