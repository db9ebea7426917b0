"""Fresh judges: how well can texts of a generator be told from real ones by who has seen neither it nor its products?

A discriminator that was trained beside a generator tells nothing of the generator. These are trained from nothing, on
products that the generator and its discriminator never saw, and cross-fitted: each judges products that it did not see.
"""

from __future__ import annotations

import copy
import hashlib
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml.refiner.corpus import join
from ml.refiner.discriminator import Described, Ensemble, make_discriminator

MOST_STEPS, LOOK, PATIENCE = 200, 10, 2
BATCH = 32
# Of each training part, what decides when to stop.
STOP_SHARE = 0.25
FOLDS = 2
# A judge's own table is small: it tells texts apart as well as one of 2**15 rows, in a third of the time.
BUCKETS = 2**13
LEAST_PRODUCTS = 24
GRAM_BUCKETS = 2**15
RIDGES = (0.1, 1.0, 10.0)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """What a judge made of real and generated texts of n products.

    Attributes:
        pseudo: float64 (n,), jackknife-like values of the products: their mean is the AUC, and their spread its
            uncertainty (DeLong et al. 1988).
        steps: Mean number of steps after which a judge was best; of the n-gram judge, its mean ridge.
    """

    pseudo: Floats
    steps: float

    @property
    def auc(self) -> float:
        """Return the probability that a real text scores above a generated one; .5 for texts that nothing tells."""
        return float(self.pseudo.mean())


def judge(
    real: Sequence[Described],
    generated: Sequence[Described],
    item_ids: Sequence[str],
    seen: Collection[str],
    seed: int,
    kind: str = "network",
) -> Judgement:
    """Judge one generated text beside the real one of each product.

    Args:
        real: Real texts of n products.
        generated: Texts of the same products.
        item_ids: Of the same products.
        seen: Products that the generator or its discriminator learned from.
        seed: Of everything drawn, and of the folds.
        kind: `network` for the discriminator's architecture, `ngrams` for character n-grams.

    Raises:
        ValueError: A product was seen, the lists differ in length, or there are too few products.
    """
    if known := sorted(set(item_ids).intersection(seen)):
        raise ValueError(f"{len(known)} products were seen by what is judged, as {known[0]}")
    if not len(real) == len(generated) == len(item_ids) or len(real) < LEAST_PRODUCTS:
        raise ValueError(f"{len(real)} real and {len(generated)} generated texts of {len(item_ids)} products")
    fit: Callable[..., tuple[Any, float]] = {"network": _fit_network, "ngrams": _fit_grams}[kind]
    draws = np.array([draw(item, f"judge {seed}") for item in item_ids])
    n = len(draws)
    order = np.argsort(draws)
    fold = np.empty(n, int)
    fold[order] = np.arange(n) % FOLDS
    pseudo, steps = np.zeros(n), []
    for number in range(FOLDS):
        rest = order[fold[order] != number]
        stop = rest[:: round(1 / STOP_SHARE)]
        learn = np.setdiff1d(rest, stop)
        score, best = fit(*_pick(real, generated, learn), *_pick(real, generated, stop), seed + number)
        own = np.flatnonzero(fold == number)
        ours, theirs = _pick(real, generated, own)
        pseudo[own] = _pseudo(score(ours), score(theirs))
        steps.append(best)
    return Judgement(pseudo, float(np.mean(steps)))


def draw(item_id: str, salt: str) -> float:
    """Return a number from 0 to 1 that depends on a product's id and the salt alone, to cut catalogues by."""
    digest = hashlib.sha256(f"{salt} {item_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") / 2**64


def _pick(
    real: Sequence[Described], generated: Sequence[Described], places: NDArray[np.int64]
) -> tuple[list[Described], list[Described]]:
    return [real[place] for place in places.tolist()], [generated[place] for place in places.tolist()]


def _pseudo(real: Floats, generated: Floats) -> Floats:
    """Return for each product how often its real text beats generated ones, and its generated one is beaten."""
    above = np.subtract.outer(real, generated)
    wins = (above > 0) + 0.5 * (above == 0)
    return wins.mean(axis=1) + wins.mean(axis=0) - wins.mean()


def _fit_network(
    real: list[Described], generated: list[Described], stop_real: list[Described], stop_made: list[Described], seed: int
) -> tuple[Callable[[list[Described]], Floats], float]:
    """Train a discriminator until the loss on the stopping part has not fallen for a while; return the best one."""
    import torch

    model = make_discriminator(seed, BUCKETS)
    rng = np.random.default_rng([seed, 11])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    label = torch.cat([torch.ones(BATCH), torch.zeros(BATCH)])
    held = torch.cat([torch.ones(len(stop_real)), torch.zeros(len(stop_made))])
    best, best_step, kept = np.inf, 0, copy.deepcopy(model.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(1, MOST_STEPS + 1):
            model.train()
            rows = rng.integers(len(real), size=BATCH).tolist()
            others = rng.integers(len(real), size=BATCH).tolist()
            loss = loss_of(model([*(real[row] for row in rows), *(generated[row] for row in others)])[:, 0], label)
            model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if step % LOOK:
                continue
            model.eval()
            with torch.inference_mode():
                missed = float(loss_of(model([*stop_real, *stop_made])[:, 0], held))
            if missed < best:
                best, best_step, kept = missed, step, copy.deepcopy(model.state_dict())
            elif step - best_step >= PATIENCE * LOOK:
                break
    model.load_state_dict(kept)
    return Ensemble([model]).logits, float(best_step)


def _fit_grams(
    real: list[Described], generated: list[Described], stop_real: list[Described], stop_made: list[Described], seed: int
) -> tuple[Callable[[list[Described]], Floats], float]:
    """Fit regularised least squares on hashed character n-grams (Rifkin 2002); the stopping part chooses the ridge."""
    table, labels = _grams([*real, *generated]), np.repeat([1.0, -1.0], [len(real), len(generated)])
    kernel = (table @ table.T).toarray()
    found = []
    for ridge in RIDGES:
        weights = table.T @ np.linalg.solve(kernel + ridge * np.eye(len(labels)), labels)
        found.append((-float(_pseudo(_grams(stop_real) @ weights, _grams(stop_made) @ weights).mean()), ridge, weights))
    _, ridge, weights = min(found, key=lambda each: each[0])
    return lambda texts: np.asarray(_grams(texts) @ weights), ridge


def _grams(texts: Sequence[Described]) -> sparse.csr_array:
    """Return which hashed n-grams of 2 to 4 characters each text has: (n, GRAM_BUCKETS), rows of unit length."""
    hashed = [_hashed(join(text.sentences)) for text in texts]
    rows = np.repeat(np.arange(len(texts)), [len(ids) for ids in hashed])
    values = np.repeat([1 / max(1, len(ids)) ** 0.5 for ids in hashed], [len(ids) for ids in hashed])
    return sparse.csr_array((values, (rows, np.concatenate([*hashed, np.zeros(0, int)]))), (len(texts), GRAM_BUCKETS))


@lru_cache(maxsize=50_000)
def _hashed(text: str) -> NDArray[np.int64]:
    said = f"^{text.lower()[:2000]}$"
    grams = {said[at : at + size] for size in (2, 3, 4) for at in range(len(said) - size + 1)}
    return np.array(sorted({zlib.crc32(gram.encode("utf-8", "surrogatepass")) % GRAM_BUCKETS for gram in grams}), int)
