"""SASRec (Kang and McAuley 2018) with sampled softmax, as Klenitskiy and Vasilev 2023 train it: a compact reference.

Causal self-attention over the items of a shopper; every position predicts the next item against 1,024 negatives that a
batch shares. It reads ids only. Epochs are chosen on validation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.protocol import Arm, Split, gains, ranks
from ml.recommender import Catalogue

if TYPE_CHECKING:
    import torch

LENGTH = 50
LAYERS = 2
HEADS = 2
BATCH = 256
NEGATIVES = 1024
RATE = 1e-3
EPOCHS = 60
# Validated after so many epochs; two times without a gain end the training.
EVERY, PATIENCE = 5, 2
USERS_PER_BLOCK = 256


def sasrec(catalogue: Catalogue, split: Split, seed: int, setting: Mapping[str, Any]) -> Arm:
    """Train with one setting.

    Args:
        catalogue: Items; only their number is read.
        split: What trains, and the validation that ends the training.
        seed: Of the start, the order, the negatives and the dropout.
        setting: `dimension` and `dropout`.
    """
    import torch

    started = time.perf_counter()
    torch.manual_seed(seed)
    chance = np.random.default_rng(seed)
    n_items = len(catalogue.item_ids)
    model = _network(n_items, setting["dimension"], setting["dropout"])
    optimiser = torch.optim.Adam(model.parameters(), RATE, betas=(0.9, 0.98))
    sequences = sorted(
        (items[-LENGTH - 1 :] for items in [*split.train, *split.skipped] if len(items) > 1), key=len, reverse=True
    )
    batches = [sequences[start : start + BATCH] for start in range(0, len(sequences), BATCH)]

    def scorer(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
        model.eval()
        for start in range(0, len(histories), USERS_PER_BLOCK):
            block = [list(items[-LENGTH:]) for items in histories[start : start + USERS_PER_BLOCK]]
            with torch.no_grad():
                states = model(*_padded(block))[torch.arange(len(block)), torch.tensor([len(h) - 1 for h in block])]
                scores = states @ model.items.weight[:n_items].T
            yield scores.double().numpy()

    best, reached, kept = -1.0, 0, {name: value.clone() for name, value in model.state_dict().items()}
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for number in chance.permutation(len(batches)):
            loss = _loss(model, batches[number], n_items, chance)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if epoch % EVERY:
            continue
        ndcg = float(gains(ranks(scorer, split.train, split.validation))[:, 1].mean())
        if ndcg > best:
            best, reached = ndcg, epoch
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        elif epoch - reached >= PATIENCE * EVERY:
            break
    model.load_state_dict(kept)
    return Arm(scorer, scorer, time.perf_counter() - started)


def _padded(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return items and positions, int64 (users, longest), padded at the end; the newest has the last position."""
    import torch

    longest = max(map(len, sequences))
    items = np.zeros((len(sequences), longest), np.int64)
    positions = np.zeros_like(items)
    for row, sequence in enumerate(sequences):
        items[row, : len(sequence)] = sequence
        positions[row, : len(sequence)] = np.arange(LENGTH - len(sequence), LENGTH)
    return torch.from_numpy(items), torch.from_numpy(positions)


def _loss(
    model: torch.nn.Module, sequences: Sequence[Sequence[int]], n_items: int, chance: np.random.Generator
) -> torch.Tensor:
    """Return the sampled softmax loss of every next item of a batch."""
    import torch

    items, positions = _padded([sequence[:-1] for sequence in sequences])
    is_real = torch.zeros(items.shape, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        is_real[row, : len(sequence) - 1] = True
    states = model(items, positions)[is_real]
    targets = torch.tensor([item for sequence in sequences for item in sequence[1:]])
    drawn = torch.from_numpy(chance.choice(n_items, min(NEGATIVES, n_items), replace=False))
    reached = (states * model.items(targets)).sum(dim=1)
    logits = states @ model.items(drawn).T + float(np.log(n_items / len(drawn)))
    logits = logits.masked_fill(targets[:, None] == drawn[None, :], -torch.inf)
    return (torch.logaddexp(reached, logits.logsumexp(dim=1)) - reached).mean()


def _network(n_items: int, dimension: int, dropout: float) -> Any:  # noqa: ANN401
    """Return the network: (items, positions) to states, float32 (users, longest, dimension)."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(dimension), nn.LayerNorm(dimension)
            self.project, self.join = nn.Linear(dimension, 3 * dimension), nn.Linear(dimension, dimension)
            self.feed = nn.Sequential(
                nn.Linear(dimension, dimension), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dimension, dimension)
            )
            self.drop = nn.Dropout(dropout)

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            users, longest, _ = states.shape
            parts = self.project(self.before(states)).view(users, longest, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            seen = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
            states = states + self.drop(self.join(seen.transpose(1, 2).reshape(users, longest, dimension)))
            return states + self.drop(self.feed(self.between(states)))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.positions = nn.Embedding(n_items, dimension), nn.Embedding(LENGTH, dimension)
            nn.init.normal_(self.items.weight, std=0.02)
            nn.init.normal_(self.positions.weight, std=0.02)
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.drop, self.last = nn.Dropout(dropout), nn.LayerNorm(dimension)

        def forward(self, items: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            states = self.drop(self.items(items) * dimension**0.5 + self.positions(positions))
            return self.last(self.blocks(states))

    return Network()
