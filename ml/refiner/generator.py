"""The sentence composer: which sentences of a pool, in which order, and when to stop.

A pointer network over a pool of candidates (Vinyals et al. 2015). It never writes a character of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml.refiner.corpus import LATENT, MAX_SENTENCES, Bank, Candidate, Vectoriser, source_text
from ml.refiner.product import Product

if TYPE_CHECKING:
    import torch

HIDDEN = 48
STATIC = 9
DYNAMIC = 9
STATE = MAX_SENTENCES + 6
MAX_FACTS = 16
# Words of a sentence are counted up to this many.
LONG = 60.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pool:
    """A product with its candidates as arrays; n candidates.

    Attributes:
        candidates: What can be said.
        source: float32 (d,), what is known of the product.
        vectors: float32 (n, d), the candidates.
        static: float32 (n, STATIC), what is known of each before anything is said.
        follows: bool (n, n), [i, j]: j comes right after i in the description they are from.
        together: bool (n, n), both are from one description.
        alike: float32 (n, n), cosines.
        covers: float32 (n, MAX_FACTS), slots that each candidate fills.
    """

    candidates: list[Candidate]
    source: Floats
    vectors: Floats
    static: Floats
    follows: NDArray[np.bool_]
    together: NDArray[np.bool_]
    alike: Floats
    covers: Floats

    def __len__(self) -> int:
        return len(self.candidates)

    def texts(self, chosen: Sequence[int]) -> list[str]:
        """Return the sentences that were chosen."""
        return [self.candidates[place].text for place in chosen]


def make_pool(bank: Bank, product: Product, without: int = -1, own: Sequence[str] = ()) -> Pool:
    """Return a product's pool.

    Args:
        bank: Sentences of the corpus.
        product: Its description is not read.
        without: Index of a product of the corpus whose sentences are left out.
        own: Sentences of the product's own text that may be said again; they come first.
    """
    candidates = [Candidate(text, -1, frozenset()) for text in own] + bank.pool(product, without)
    vectoriser: Vectoriser = bank.vectoriser
    source_words = vectoriser.words([source_text(product)])
    source = _padded(vectoriser.dense(source_words))[0]
    words = vectoriser.words([candidate.text for candidate in candidates])
    vectors = _padded(vectoriser.dense(words))
    n = len(candidates)
    said = [bank.sentences[c.sentence] if c.sentence >= 0 else None for c in candidates]
    owner = np.array([s.source if s else -2 for s in said], dtype=int)
    place = np.array([s.place if s else at for at, s in enumerate(said)], dtype=int)
    last = np.array([bool(s and s.last) for s in said])
    facts = sorted({slot for candidate in candidates for slot in candidate.filled})[:MAX_FACTS]
    covers = np.zeros((n, MAX_FACTS), np.float32)
    for row, candidate in enumerate(candidates):
        covers[row, [facts.index(slot) for slot in candidate.filled if slot in facts]] = 1.0
    lengths = np.array(
        [len(candidate.text) / (1 if ord(candidate.text[0]) > 0x2E80 else 5) for candidate in candidates]
    )
    near = np.asarray((words @ source_words.T).todense()).ravel() if n else np.zeros(0)
    _, sizes = np.unique(owner, return_inverse=True)
    share = np.bincount(sizes)[sizes] if n else np.zeros(0)
    static = np.zeros((n, STATIC), np.float32)
    if n:
        static[:] = np.stack(
            [
                *(near, vectors @ source, np.arange(n) / max(n, 1), place / MAX_SENTENCES, place == 0, last),
                *(np.minimum(lengths, LONG) / LONG, covers.sum(axis=1) / 4, share / MAX_SENTENCES),
            ],
            axis=1,
        )
    together = (owner[:, None] == owner[None, :]) & ~np.eye(n, dtype=bool)
    follows = together & (place[None, :] == place[:, None] + 1)
    alike = np.asarray((words @ words.T).todense(), np.float32) if n else np.zeros((0, 0), np.float32)
    return Pool(candidates, source, vectors, static, follows, together, alike, covers)


def _padded(vectors: Floats) -> Floats:
    return np.pad(vectors, ((0, 0), (0, LATENT - vectors.shape[1])))


@dataclass(frozen=True)
class Batch:
    """Pools side by side, padded to the largest: tensors with b rows; see `Pool`."""

    source: torch.Tensor
    vectors: torch.Tensor
    static: torch.Tensor
    follows: torch.Tensor
    together: torch.Tensor
    alike: torch.Tensor
    covers: torch.Tensor
    present: torch.Tensor

    @classmethod
    def of(cls, pools: Sequence[Pool]) -> Batch:
        """Stack pools."""
        import torch

        n = max(1, *(len(pool) for pool in pools)) if len(pools) > 1 else max(1, len(pools[0]))

        def stacked(name: str, *shape: int) -> torch.Tensor:
            out = np.zeros((len(pools), *shape), np.float32)
            for row, pool in enumerate(pools):
                array = np.asarray(getattr(pool, name))
                out[row][tuple(slice(0, size) for size in array.shape)] = array
            return torch.from_numpy(out)

        present = torch.zeros(len(pools), n, dtype=torch.bool)
        for row, pool in enumerate(pools):
            present[row, : len(pool)] = True
        return cls(
            stacked("source", LATENT),
            stacked("vectors", n, LATENT),
            stacked("static", n, STATIC),
            stacked("follows", n, n),
            stacked("together", n, n),
            stacked("alike", n, n),
            stacked("covers", n, MAX_FACTS),
            present,
        )

    def repeat(self, times: int) -> Batch:
        """Return each row `times` times, one after the other."""
        return Batch(*(getattr(self, name).repeat_interleave(times, dim=0) for name in self.__dataclass_fields__))


@dataclass
class State:
    """What has been said so far, for each row: `chosen` (b, n), `last` (b,) or -1, and `step`."""

    chosen: torch.Tensor
    last: torch.Tensor
    step: int


def make_selector(seed: int) -> Any:  # noqa: ANN401
    """Return the network: `forward(batch, state)` gives (b, n + 1) logits, STOP last, −inf for what cannot be said."""
    import torch
    from torch import nn

    class Selector(nn.Module):
        """Four projections into one space, and a small network on features of the step."""

        def __init__(self) -> None:
            super().__init__()
            self.ask = nn.Linear(LATENT, HIDDEN)
            self.answer = nn.Linear(LATENT, HIDDEN)
            self.after = nn.Linear(LATENT, HIDDEN)
            self.next = nn.Linear(LATENT, HIDDEN)
            self.features = nn.Sequential(nn.Linear(STATIC + DYNAMIC, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))
            self.stop = nn.Sequential(nn.Linear(STATE + LATENT, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))

        def forward(self, batch: Batch, state: State) -> torch.Tensor:
            rows = torch.arange(len(batch.source))
            begun = (state.last >= 0).float()[:, None]
            last = state.last.clamp(min=0)
            previous = batch.vectors[rows, last] * begun
            chosen = state.chosen
            covered = (chosen[:, :, None] * batch.covers).amax(dim=1)
            dynamic = torch.stack(
                [
                    batch.alike[rows, last] * begun,
                    (batch.alike * chosen[:, :, None]).amax(dim=1),
                    batch.together[rows, last] * begun,
                    batch.follows[rows, last] * begun,
                    (batch.together * chosen[:, :, None]).amax(dim=1),
                    (batch.covers * (1 - covered[:, None, :])).sum(dim=2) / 4,
                    batch.static[:, :, 3] - state.step / MAX_SENTENCES,
                    batch.static[:, :, 4] * (1 - begun),
                    batch.static[:, :, 5] * begun * (state.step / MAX_SENTENCES),
                ],
                dim=2,
            )
            scores = self.features(torch.cat([batch.static, dynamic], dim=2)).squeeze(2)
            scores = scores + torch.einsum("bh,bnh->bn", self.ask(batch.source), self.answer(batch.vectors))
            scores = scores + torch.einsum("bh,bnh->bn", self.after(previous) * begun, self.next(batch.vectors))
            scores = scores.masked_fill(~batch.present | (chosen > 0), -torch.inf)
            step = torch.zeros(len(rows), MAX_SENTENCES)
            step[:, min(state.step, MAX_SENTENCES - 1)] = 1.0
            so_far = torch.stack(
                [
                    *((chosen * batch.static[:, :, 6]).sum(1), covered.sum(1) / 4, batch.covers.amax(1).sum(1) / 4),
                    *(batch.static[rows, last, 5] * begun[:, 0], batch.static[rows, last, 3] * begun[:, 0]),
                    batch.follows[rows, last].sum(1) * begun[:, 0],
                ],
                dim=1,
            )
            stop = self.stop(torch.cat([step, so_far, batch.source], dim=1))
            # A text has a sentence; where none can be said any more, it ends.
            can = batch.present & (chosen == 0)
            if state.step == 0:
                stop = stop.masked_fill(can.any(1, keepdim=True), -torch.inf)
            return torch.cat([scores, stop], dim=1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Selector()


def first_state(batch: Batch) -> State:
    """Return the state before anything is said."""
    import torch

    return State(torch.zeros(batch.present.shape), torch.full((len(batch.source),), -1), 0)


def advance(state: State, choice: torch.Tensor) -> State:
    """Return the state after each row said a sentence; rows whose choice is beyond the pool stay as they are."""
    import torch

    n = state.chosen.shape[1]
    speaks = choice < n
    said = torch.nn.functional.one_hot(choice.clamp(max=n - 1), n).float() * speaks[:, None]
    return State(state.chosen + said, torch.where(speaks, choice, state.last), state.step + 1)
