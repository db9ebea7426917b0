"""Drawing texts from the composer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ml.refiner.corpus import MAX_SENTENCES
from ml.refiner.generator import Batch, Pool, advance, first_state

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sample:
    """A composed text.

    Attributes:
        chosen: Candidates of its pool, in order.
        log_probability: Of all choices with STOP, at temperature 1, in nats.
    """

    chosen: tuple[int, ...]
    log_probability: float


def rollout(
    selector: Any,  # noqa: ANN401
    batch: Batch,
    temperature: float,
    noise: torch.Tensor,
    straight_through: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Draw one text for each row, by the Gumbel-max rule.

    Args:
        selector: The network.
        batch: b pools of at most n candidates.
        temperature: Of the choices, above 0.
        noise: float32 (b, MAX_SENTENCES + 1, n + 1), Gumbel.
        straight_through: Also return choices that carry a gradient.

    Returns:
        Choices int64 (b, MAX_SENTENCES), n for none; log-probabilities of them with STOP at temperature 1, (b,); and
        for each step the choices as one-hot rows with the gradient of the softmax, where asked for.
    """
    import torch

    n = batch.present.shape[1]
    state = first_state(batch)
    alive = torch.ones(len(batch.source), dtype=torch.bool)
    total = torch.zeros(len(batch.source))
    choices, soft = [], []
    for step in range(MAX_SENTENCES):
        logits = selector(batch, state)
        drawn = logits / temperature + noise[:, step]
        choice = drawn.argmax(dim=1)
        choice = torch.where(alive, choice, n)
        logs = torch.log_softmax(logits, dim=1)
        total = total + torch.where(alive, logs.gather(1, choice[:, None])[:, 0], 0.0)
        if straight_through:
            hard = torch.nn.functional.one_hot(choice, n + 1).float()
            relaxed = torch.softmax(drawn, dim=1)
            soft.append((hard + relaxed - relaxed.detach()) * alive[:, None])
        alive = alive & (choice < n)
        choices.append(choice)
        state = advance(state, choice)
        if not alive.any():
            break
    chosen = torch.full((len(batch.source), MAX_SENTENCES), n)
    chosen[:, : len(choices)] = torch.stack(choices, dim=1)
    return chosen, total, soft


def gumbel(rng: np.random.Generator, rows: int, n: int) -> torch.Tensor:
    """Return Gumbel noise for `rollout`: (rows, MAX_SENTENCES, n + 1)."""
    import torch

    return torch.from_numpy(rng.gumbel(size=(rows, MAX_SENTENCES, n + 1)).astype(np.float32))


def sample(selector: Any, pool: Pool, item_id: str, k: int, temperature: float, seed: int) -> list[Sample]:  # noqa: ANN401
    """Draw k texts for one product; its id and the seed decide them, whatever is drawn beside it."""
    import torch

    if not len(pool):
        return []
    rng = np.random.default_rng([seed, zlib.crc32(item_id.encode())])
    with torch.inference_mode():
        batch = Batch.of([pool]).repeat(k)
        chosen, total, _ = rollout(selector, batch, temperature, gumbel(rng, k, len(pool)))
    rows: Sequence[Sequence[int]] = chosen.tolist()
    return [
        Sample(tuple(place for place in row if place < len(pool)), float(log))
        for row, log in zip(rows, total.tolist(), strict=True)
    ]
