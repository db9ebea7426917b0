"""Is a text real, and is it about these facts? A judge conditional on both, and an ensemble that never saw its fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml.refiner.corpus import BUCKETS, MAX_SENTENCES, grams

if TYPE_CHECKING:
    import torch

WIDTH = 48
DROPOUT = 0.3
FEATURES = 4
# Grams of a sentence, and of a source, that are read.
LONGEST = 160


@dataclass(frozen=True)
class Described:
    """A text beside its facts, as the discriminator reads them.

    Attributes:
        source: What is known of the product, see `corpus.source_text`.
        sentences: Of the text, at most MAX_SENTENCES.
    """

    source: str
    sentences: tuple[str, ...]


def make_discriminator(seed: int, buckets: int = BUCKETS) -> Any:  # noqa: ANN401
    """Return the network: `forward(texts)` gives (b, 2) logits: real against generated, right facts against wrong.

    Sentences are bags of hashed words and pairs; a GRU reads them in order. The gradient of a large table is sparse.
    """
    import torch
    from torch import nn

    class Discriminator(nn.Module):
        """Bags of grams for the facts and for each sentence, a GRU over sentences, two heads."""

        def __init__(self) -> None:
            super().__init__()
            self.grams = nn.EmbeddingBag(buckets, WIDTH, mode="mean", sparse=buckets == BUCKETS)
            self.facts = nn.EmbeddingBag(buckets, WIDTH, mode="mean", sparse=buckets == BUCKETS)
            self.order = nn.GRU(WIDTH + FEATURES, WIDTH, batch_first=True)
            self.real = nn.Sequential(
                nn.Dropout(DROPOUT), nn.Linear(5 * WIDTH + FEATURES, WIDTH), nn.GELU(), nn.Dropout(DROPOUT),
                nn.Linear(WIDTH, 1),
            )  # fmt: skip
            self.match = nn.Sequential(
                nn.Dropout(DROPOUT), nn.Linear(2 * WIDTH + 1, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1)
            )
            nn.init.normal_(self.grams.weight, std=0.1)
            nn.init.normal_(self.facts.weight, std=0.1)

        def forward(self, texts: Sequence[Described]) -> torch.Tensor:
            b = len(texts)
            bags = self.grams(*_bags([sentence for text in texts for sentence in _fixed(text)], buckets))
            said = bags.view(b, MAX_SENTENCES, WIDTH)
            source = self.facts(*_bags([text.source for text in texts], buckets))
            measured = torch.from_numpy(np.stack([_measured(text) for text in texts]))
            present = (measured[:, :, 0] > 0).float()[:, :, None]
            count = present.sum(1).clamp(min=1)
            states, _ = self.order(torch.cat([said, measured], dim=2))
            final = states[torch.arange(b), (count[:, 0].long() - 1)]
            mean = (said * present).sum(1) / count
            spread = ((said - mean[:, None]) ** 2 * present).sum(1) / count
            total = measured.sum(1) / 3
            shared = self.grams(*_bags([text.source for text in texts], buckets))
            read = torch.cat([final, mean, spread, source, source * mean, total], dim=1)
            cosine = torch.nn.functional.cosine_similarity(shared, mean)[:, None]
            fits = torch.cat([source * mean, (shared - mean).abs(), cosine], dim=1)
            return torch.cat([self.real(read), self.match(fits)], dim=1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Discriminator()


def _fixed(text: Described) -> list[str]:
    return [*text.sentences[:MAX_SENTENCES], *[""] * (MAX_SENTENCES - len(text.sentences))]


@lru_cache(maxsize=100_000)
def _measured(text: Described) -> NDArray[np.float32]:
    """Return what can be counted of each sentence: float32 (MAX_SENTENCES, FEATURES)."""
    rows = np.zeros((MAX_SENTENCES, FEATURES), np.float32)
    known = set(grams(text.source))
    for row, sentence in enumerate(text.sentences[:MAX_SENTENCES]):
        ids = grams(sentence)
        found = sum(gram in known for gram in ids)
        rows[row] = 1.0, len(sentence) / 100.0, found / max(1, len(ids)), found / 10.0
    return rows


def _bags(texts: Sequence[str], buckets: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the grams of texts and where each begins, as an EmbeddingBag takes them."""
    import torch

    ids = [_ids(text) for text in texts]
    starts = np.cumsum([0, *(len(each) for each in ids[:-1])])
    return torch.from_numpy(np.concatenate([*ids, np.zeros(0, np.int64)]) % buckets), torch.from_numpy(starts)


@lru_cache(maxsize=100_000)
def _ids(text: str) -> NDArray[np.int64]:
    return np.asarray(grams(text)[:LONGEST], np.int64)


@dataclass(frozen=True)
class Ensemble:
    """Discriminators of as many folds: product i belongs to fold i mod n, and its own fold's has not seen it.

    Attributes:
        members: The networks.
    """

    members: list[Any]

    def logits(self, texts: Sequence[Described], folds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Return the logit of real: float64 (m,), of the member that has not seen it; the mean for new products."""
        return self._logits(texts, folds, 0)

    def match_logits(self, texts: Sequence[Described], folds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Return the logit of right facts: float64 (m,), as `logits`."""
        return self._logits(texts, folds, 1)

    def _logits(self, texts: Sequence[Described], folds: Sequence[int] | None, head: int) -> NDArray[np.float64]:
        import torch

        if not texts:
            return np.zeros(0)
        found = np.zeros((len(self.members), len(texts)))
        with torch.inference_mode():
            for row, member in enumerate(self.members):
                member.eval()
                for start in range(0, len(texts), 512):
                    part = texts[start : start + 512]
                    found[row, start : start + len(part)] = member(part)[:, head].numpy()
        return found.mean(axis=0) if folds is None else found[np.asarray(folds), np.arange(len(texts))]


def train_discriminator(
    real: Sequence[Described], fakes: Sequence[Sequence[Described]], steps: int, seed: int, batch: int = 32
) -> Any:  # noqa: ANN401
    """Train one discriminator: real texts against generated ones, and against real texts of other products.

    Args:
        real: n real texts with their facts.
        fakes: Generated texts of the same products; one of each is drawn at a time. An empty list is passed over.
        steps: Of AdamW.
        seed: Of everything drawn.
        batch: Products in a step.
    """
    import torch

    model = make_discriminator(seed)
    rng = np.random.default_rng([seed, 1])
    bags = [model.grams.weight, model.facts.weight]
    rest = [weight for weight in model.parameters() if all(weight is not bag for bag in bags)]
    # Dense moments of two large tables would take half of the time.
    optimisers = [torch.optim.SparseAdam(bags, lr=3e-3), torch.optim.AdamW(rest, lr=3e-3, weight_decay=0.05)]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda at: 1.0 - 0.9 * at / max(1, steps)) for o in optimisers]
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    have = [place for place, texts in enumerate(fakes) if texts]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.train()
        for _ in range(steps):
            rows = [have[at] for at in rng.integers(len(have), size=batch)]
            true = [real[row] for row in rows]
            false = [fakes[row][int(rng.integers(len(fakes[row])))] for row in rows]
            others = rng.integers(len(real), size=batch)
            wrong = [Described(t.source, real[other].sentences) for t, other in zip(true, others, strict=True)]
            logits = model([*true, *false, *wrong])
            label = torch.cat([torch.ones(batch), torch.zeros(batch)])
            loss = loss_of(logits[: 2 * batch, 0], label)
            right = torch.cat([torch.ones(batch), torch.zeros(batch)])
            loss = loss + 0.5 * loss_of(torch.cat([logits[:batch, 1], logits[2 * batch :, 1]]), right)
            model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(rest, 1.0)
            for optimiser in optimisers:
                optimiser.step()
            for schedule in schedules:
                schedule.step()
    return model.eval()
