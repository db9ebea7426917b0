"""The sequence model PQ: two vectors per item, and one weighted sum per shopper.

Item i has a text t_i, an input p_i = E_i + W_p t_i and an output q_i = normalise(O_i + W_q t_i). A shopper with the
items h_0 (newest), h_1, … is u = normalise(Σ_k w_k ⊙ p_{h_k}) over k < 20, and takes item j next with a probability of
softmax_j(u · q_j / τ + b_j). It is learned by sampled softmax (Jean et al. 2015) on every step of every sequence.
An item without events has E = O = 0 and is known by its text: there is no cold start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

DIMENSION = 256
PLACES = 20
TEMPERATURE = 0.1
NEGATIVES = 1024
# Of few steps batches are smaller: with fewer updates than these nothing would be learned.
BATCH = (64, 1024)
UPDATES = 200
EPOCHS = 4
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.5
DROPOUT = 0.2
START_DECAY = 0.7
START_SPREAD = 0.01
# The logit of what is no negative.
NEVER = -1e4
# Of more steps than this a part is drawn anew for each epoch.
MAX_STEPS = 3_000_000
# With fewer steps to learn from, the texts alone say more.
MIN_STEPS = 500
ROWS_PER_BLOCK = 65_536

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PQ:
    """A model as it is served.

    Attributes:
        inputs: float16 (n, d), p.
        outputs: float16 (n, d + 1), q / τ and the bias b.
        position_weights: float32 (20, d), w, that of the newest item first.
    """

    inputs: NDArray[np.float16]
    outputs: NDArray[np.float16]
    position_weights: Floats


@dataclass(frozen=True)
class Team:
    """Processes that train one model together: each learns from its part of every batch.

    Attributes:
        rank: Of this process, from 0.
        size: Number of processes.
        add: Replaces a tensor by its sum over all processes.
    """

    rank: int = 0
    size: int = 1
    add: Callable[[torch.Tensor], object] = lambda _: None


@dataclass(frozen=True)
class Steps:
    """All steps of all sequences: `items[place]` is what was taken, the items before it from `starts` on the past."""

    items: Ints
    places: Ints
    starts: Ints

    def histories(self, chosen: Ints) -> tuple[Ints, Ints, Ints]:
        """Return row (among the chosen), position (0: newest) and item of everything in the chosen steps' pasts."""
        places, lengths = self.places[chosen], np.minimum(self.places[chosen] - self.starts[chosen], PLACES)
        rows = np.repeat(np.arange(len(chosen)), lengths)
        positions = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, positions, self.items[places[rows] - 1 - positions]


def steps_of(sequences: Sequence[Sequence[int]]) -> Steps:
    """Return every step but the first of each sequence."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    items = np.fromiter((item for sequence in sequences for item in sequence), np.int64, count=int(lengths.sum()))
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.flatnonzero(np.arange(len(items)) > starts)
    return Steps(items, places, starts[places])


def from_features(features: Floats) -> PQ:
    """Return the model without events: what resembles the shopper's items, the newer the more.

    Args:
        features: float32 (n, d), unit vectors of the texts, or zero.
    """
    bias = np.zeros((len(features), 1), dtype=np.float32)
    outputs = np.concatenate([features / TEMPERATURE, bias], axis=1)
    return PQ(features.astype(np.float16), outputs.astype(np.float16), _start_weights(features.shape[1]))


def tastes(inputs: NDArray[np.float16], position_weights: Floats, histories: Sequence[Sequence[int]]) -> Floats:
    """Return the shoppers' vectors as they are served: float32 (users, d + 1), rounded to halves, the last column 1.

    Args:
        inputs: float16 (n, d).
        position_weights: float32 (20, d).
        histories: Distinct items of each, the newest first; only the first 20 count.

    Returns:
        Rows of a normalised sum, or of zeros for an empty history, with the 1 that the bias is multiplied by.
    """
    lengths = np.array([min(len(history), PLACES) for history in histories], dtype=np.int64)
    total = np.zeros((len(histories), inputs.shape[1]), dtype=np.float32)
    for place in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > place).tolist()
        items = [histories[row][place] for row in rows]
        total[rows] += position_weights[place] * inputs[items].astype(np.float32)
    length = np.sqrt((total.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    total = np.divide(total, length, out=np.zeros_like(total), where=length > 0).astype(np.float32)
    return np.concatenate([total, np.ones((len(total), 1), np.float32)], axis=1).astype(np.float16).astype(np.float32)


def train(features: Floats, sequences: Sequence[Sequence[int]], seed: int = 0, team: Team | None = None) -> PQ:
    """Train on every step of the sequences.

    Negatives are drawn uniformly and shared by a batch, each standing for n / 1,024 items; of a small catalogue all
    items are negatives. Only the rows that a batch touches are updated (Adam with decoupled weight decay, Loshchilov
    and Hutter 2019), so that a step costs the same in a large catalogue.

    Args:
        features: float32 (n, d), unit vectors of the texts, or zero.
        sequences: Distinct item indices in time order, one sequence per shopper.
        seed: Of the start, the order, the negatives and the dropout.
        team: The processes that train together; this one alone by default. All draw the same and end with the same
            model, which is that of one process but for the rounding of sums.

    Returns:
        The model; `from_features` if there are fewer than 500 steps.
    """
    steps = steps_of(sequences)
    if len(steps.places) < MIN_STEPS:
        return from_features(features)
    return _Training(features, seed, team or Team()).run(steps)


class _Training:
    """Parameters and optimiser of one run."""

    def __init__(self, features: Floats, seed: int, team: Team) -> None:
        import torch

        n_items, dimension = features.shape
        self.chance = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.features = torch.from_numpy(features)
        self.team = team

        def table() -> _Parameter:
            spread = torch.empty(n_items, dimension).normal_(0.0, START_SPREAD, generator=self.generator)
            return _Parameter(spread, WEIGHT_DECAY)

        self.item_inputs, self.item_outputs = table(), table()
        self.bias = _Parameter(torch.zeros(n_items, 1), 0.0)
        self.map_inputs, self.map_outputs = (_Parameter(torch.eye(dimension), 0.0) for _ in range(2))
        self.weights = _Parameter(torch.from_numpy(_start_weights(dimension)), 0.0)

    def run(self, steps: Steps) -> PQ:
        """Train for all epochs."""
        per_epoch = min(len(steps.places), MAX_STEPS)
        batch = int(np.clip(EPOCHS * per_epoch // UPDATES, *BATCH))
        total = EPOCHS * -(-per_epoch // batch)
        done = 0
        for _ in range(EPOCHS):
            order = self.chance.permutation(len(steps.places))[:per_epoch]
            for start in range(0, per_epoch, batch):
                self._step(steps, order[start : start + batch], one_cycle(done / total), done + 1)
                done += 1
        self._forget_unseen(steps)
        return self._served()

    def _step(self, steps: Steps, chosen: Ints, rate: float, number: int) -> None:
        import torch

        n_items = len(self.features)
        rows, positions, had = steps.histories(chosen)
        targets = steps.items[steps.places[chosen]]
        every = n_items <= 4 * NEGATIVES
        drawn = np.arange(n_items) if every else np.unique(self.chance.integers(n_items, size=NEGATIVES))
        inputs, had_at = np.unique(had, return_inverse=True)
        outputs, output_at = np.unique(np.concatenate([targets, drawn]), return_inverse=True)
        input_rows, output_rows = torch.from_numpy(inputs), torch.from_numpy(outputs)

        p = self.item_inputs.rows(input_rows) + self.features[input_rows] @ self.map_inputs.all()
        # index_select has a fast gradient on a CPU, indexing has not.
        kept = torch.rand(len(had), p.shape[1], generator=self.generator) >= DROPOUT
        first, after = (len(chosen) * rank // self.team.size for rank in (self.team.rank, self.team.rank + 1))
        own = slice(*np.searchsorted(rows, [first, after]))
        p = p.index_select(0, torch.from_numpy(had_at[own]))
        p = p * kept[own] * self.weights.all().index_select(0, torch.from_numpy(positions[own]))
        u = torch.zeros(after - first, p.shape[1]).index_add(0, torch.from_numpy(rows[own] - first), p)
        u = torch.nn.functional.normalize(u) / TEMPERATURE
        q = self.item_outputs.rows(output_rows) + self.features[output_rows] @ self.map_outputs.all()
        q = torch.nn.functional.normalize(q)
        bias = self.bias.rows(output_rows)[:, 0]
        target_at, drawn_at = torch.from_numpy(output_at[first:after]), torch.from_numpy(output_at[len(targets) :])
        reached = (u * q.index_select(0, target_at)).sum(dim=1) + bias.index_select(0, target_at)
        offsets = bias.index_select(0, drawn_at) + float(np.log(n_items / len(drawn)))
        logits = torch.addmm(offsets[None, :], u, q.index_select(0, drawn_at).T)
        same = np.nonzero(targets[first:after, None] == drawn[None, :])
        logits = logits.index_put(tuple(map(torch.from_numpy, same)), torch.tensor(NEVER))
        loss = (torch.logaddexp(reached, logits.logsumexp(dim=1)) - reached).sum() / len(chosen)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in self._parameters():
            parameter.update(rate, number, self.team)

    def _parameters(self) -> tuple[_Parameter, ...]:
        return self.item_inputs, self.item_outputs, self.bias, self.map_inputs, self.map_outputs, self.weights

    def _forget_unseen(self, steps: Steps) -> None:
        """Leave items without events to their texts: they were only ever negatives."""
        import torch

        seen = np.zeros((len(self.features), 1), dtype=np.float32)
        seen[steps.items] = 1.0
        for table in (self.item_inputs, self.item_outputs):
            table.value *= torch.from_numpy(seen)

    def _served(self) -> PQ:
        import torch

        n_items, dimension = self.features.shape
        inputs = np.empty((n_items, dimension), dtype=np.float16)
        outputs = np.empty((n_items, dimension + 1), dtype=np.float16)
        for start in range(0, n_items, ROWS_PER_BLOCK):
            rows = slice(start, start + ROWS_PER_BLOCK)
            features = self.features[rows]
            inputs[rows] = self.item_inputs.value[rows] + features @ self.map_inputs.value
            q = torch.nn.functional.normalize(self.item_outputs.value[rows] + features @ self.map_outputs.value)
            outputs[rows] = torch.cat([q / TEMPERATURE, self.bias.value[rows]], dim=1)
        return PQ(inputs, outputs, self.weights.value.numpy())


class _Parameter:
    """A matrix of which a step may read some rows only, with Adam's moments."""

    def __init__(self, value: torch.Tensor, decay: float) -> None:
        import torch

        self.value = value
        self.decay = decay
        self.mean = torch.zeros_like(value)
        self.square = torch.zeros_like(value)

    def rows(self, which: torch.Tensor) -> torch.Tensor:
        """Return some rows, to be updated."""
        self.which: torch.Tensor | slice = which
        self.read = self.value[which].requires_grad_()
        return self.read

    def all(self) -> torch.Tensor:
        """Return all rows, to be updated."""
        self.which = slice(None)
        self.read = self.value.detach().clone().requires_grad_()
        return self.read

    def update(self, rate: float, number: int, team: Team) -> None:
        """Take one step of Adam with what was read.

        Args:
            rate: Learning rate.
            number: Of the step, from 1.
            team: Whose gradients count.
        """
        gradient = self.read.grad
        assert gradient is not None
        team.add(gradient)
        mean = self.mean[self.which].lerp(gradient, 0.1)
        square = self.square[self.which].lerp(gradient * gradient, 0.001)
        self.mean[self.which], self.square[self.which] = mean, square
        step = (mean / (1 - 0.9**number)) / ((square / (1 - 0.999**number)).sqrt() + 1e-8)
        self.value[self.which] = self.read.detach() * (1 - rate * self.decay) - rate * step


def one_cycle(done: float) -> float:
    """Return the learning rate after a share of the steps: up for 30 %, then down, along cosines (Smith 2018)."""
    low, high, end = LEARNING_RATE / 25, LEARNING_RATE, LEARNING_RATE / 250_000
    first, last, share = (low, high, done / 0.3) if done < 0.3 else (high, end, (done - 0.3) / 0.7)
    return float(last + (first - last) * (1 + np.cos(np.pi * share)) / 2)


def _start_weights(dimension: int) -> Floats:
    decays = START_DECAY ** np.arange(PLACES, dtype=np.float32)
    return np.repeat(decays[:, None], dimension, axis=1).astype(np.float32)
