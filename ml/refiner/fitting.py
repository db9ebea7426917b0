"""The composer's whole training: imitation, discriminators, the adversarial phase, and whether that has won."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.refiner.corpus import Bank, sentences, source_text
from ml.refiner.decoding import Sample, sample
from ml.refiner.discriminator import Described, Ensemble, train_discriminator
from ml.refiner.generator import Pool, make_pool
from ml.refiner.judge import LEAST_PRODUCTS, draw, judge
from ml.refiner.old_text import plainly
from ml.refiner.product import Product
from ml.refiner.training import adversarial, fit_mle, targets

LEAST_TEXTS = 40
# Of the good descriptions, what decides between the generators, and neither learns from.
HELD_OUT = 0.25
# By how much the adversarially trained generator has to be nearer to an AUC of .5 to be kept.
LEAST_GAIN = 0.01


@dataclass(frozen=True)
class RefinerSettings:
    """How much is trained and drawn; in steps, never in seconds.

    Attributes:
        texts: The most good descriptions that are learned from.
        mle_steps: Of the composer's imitation.
        adversarial_steps: Of its policy gradient; 0 leaves the phase out.
        discriminator_steps: Of each discriminator.
        folds: Discriminators, each without its own part of the products.
        samples: Candidates of one product.
        temperature: Of the choices.
        threads: Of tensor operations.
    """

    texts: int = 2000
    mle_steps: int = 300
    adversarial_steps: int = 60
    discriminator_steps: int = 200
    folds: int = 2
    samples: int = 6
    temperature: float = 0.8
    threads: int = 1


@dataclass(frozen=True)
class Composer:
    """What was trained.

    Attributes:
        bank: Sentences that texts are composed of.
        generators: `mle`, and `adversarial` unless a guard ended that phase.
        ensemble: Discriminators.
        seen: Ids of the products that any of it learned from.
        report: Losses, rewards, guards that fired.
    """

    bank: Bank
    generators: dict[str, Any]
    ensemble: Ensemble
    seen: frozenset[str]
    report: dict[str, Any]


def good_texts(products: Sequence[Product]) -> list[Product]:
    """Return products whose descriptions can be learned from, each text once."""
    found: dict[str, Product] = {}
    for product in products:
        said = sentences(product.description)
        if len(said) >= 2 and sum(map(len, said)) >= 60 and product.title.lower() not in said[0].lower():
            found.setdefault(plainly(" ".join(said)), product)
    return list(found.values())


def hold_out(products: Sequence[Product], share: float = HELD_OUT) -> tuple[list[Product], list[Product]]:
    """Cut products, by the hash of their ids, into those to learn from and those to decide by."""
    is_held = [draw(product.item_id, "held out") < share for product in products]
    return (
        [product for product, held in zip(products, is_held, strict=True) if not held],
        [product for product, held in zip(products, is_held, strict=True) if held],
    )


def fit_composer(
    products: Sequence[Product], settings: RefinerSettings, seed: int, rewards: Mapping[str, float] | None = None
) -> Composer:
    """Train generators and discriminators on good descriptions.

    Args:
        products: As of `good_texts`.
        settings: How much is trained.
        seed: Of everything drawn.
        rewards: By item, click-through of its refined text relative to the original, above 0 where it was better.

    Raises:
        ValueError: There are too few descriptions.
    """
    import torch

    torch.set_num_threads(settings.threads)
    corpus = list(products)[: settings.texts]
    if len(corpus) < LEAST_TEXTS:
        raise ValueError(f"{len(corpus)} good descriptions are too few to learn from, {LEAST_TEXTS} are needed")
    bank = Bank.build(corpus, seed)
    pools = [make_pool(bank, product, place) for place, product in enumerate(corpus)]
    true = [sentences(product.description) for product in corpus]
    aims = [targets(bank.vectoriser, pool, said) for pool, said in zip(pools, true, strict=True)]
    real = [Described(source_text(product), tuple(said)) for product, said in zip(corpus, true, strict=True)]
    selector, losses = fit_mle(pools, aims, settings.mle_steps, seed)
    generators = {"mle": selector}
    fakes = [
        composed(product, pool, sample(selector, pool, product.item_id, 2, settings.temperature, seed))
        for product, pool in zip(corpus, pools, strict=True)
    ]
    members = []
    for fold in range(settings.folds):
        rows = [place for place in range(len(corpus)) if place % settings.folds != fold or settings.folds == 1]
        chosen = [real[row] for row in rows], [fakes[row] for row in rows]
        members.append(train_discriminator(*chosen, settings.discriminator_steps, seed + fold))
    ensemble = Ensemble(members)
    report: dict[str, Any] = {
        "texts": len(corpus),
        "sentences": len(bank.sentences),
        "mle_loss_first": float(np.mean(losses[:10])),
        "mle_loss_last": float(np.mean(losses[-10:])),
    }
    if settings.adversarial_steps:
        won = _rewards(corpus, rewards or {})

        def reward(rows: list[int], said: list[list[str]]) -> NDArray[np.float64]:
            texts = [Described(real[row].source, tuple(each)) for row, each in zip(rows, said, strict=True)]
            logits = ensemble.logits(texts, [row % len(members) for row in rows])
            return np.array([won[row] for row in rows]) / (1 + np.exp(-logits))

        steps = settings.adversarial_steps
        challenger, rewarded, guard = adversarial(selector, pools, aims, reward, steps, seed)
        # The generators differ by the reward alone: both take the same steps.
        generators["mle"], _, _ = adversarial(selector, pools, aims, None, steps, seed)
        report["adversarial_guard"] = guard
        if not guard:
            generators["adversarial"] = challenger
            report["adversarial_reward_first"] = float(np.mean(rewarded[:5]))
            report["adversarial_reward_last"] = float(np.mean(rewarded[-5:]))
    return Composer(bank, generators, ensemble, frozenset(product.item_id for product in corpus), report)


def composed(product: Product, pool: Pool, samples: Sequence[Sample]) -> list[Described]:
    """Return samples as the discriminator reads them."""
    return [Described(source_text(product), tuple(pool.texts(one.chosen))) for one in samples]


def champion(composer: Composer, held_out: Sequence[Product], settings: RefinerSettings, seed: int) -> str:
    """Return the generator whose texts a fresh judge tells less well from real ones; `mle` where that is not proven.

    The AUC of each is added to the report as `held_out_auc`.

    Args:
        composer: Of `fit_composer`.
        held_out: Products that it has not seen.
        settings: The temperature.
        seed: Of everything drawn.
    """
    if "adversarial" not in composer.generators or len(held_out) < LEAST_PRODUCTS:
        return "mle"
    pools = [make_pool(composer.bank, product) for product in held_out]
    usable = [place for place, pool in enumerate(pools) if len(pool)]
    if len(usable) < LEAST_PRODUCTS:
        return "mle"
    products = [held_out[place] for place in usable]
    real = [Described(source_text(product), tuple(sentences(product.description))) for product in products]
    item_ids = [product.item_id for product in products]
    found = {}
    for name, selector in composer.generators.items():
        made = []
        for place, product in zip(usable, products, strict=True):
            drawn = sample(selector, pools[place], product.item_id, 1, settings.temperature, seed)
            made += composed(product, pools[place], drawn)
        found[name] = judge(real, made, item_ids, composer.seen, seed).auc
    composer.report["held_out_auc"] = found
    # Towards .5 is better; a draw goes to the model that needed no adversary.
    is_won = abs(found["adversarial"] - 0.5) < abs(found["mle"] - 0.5) - LEAST_GAIN
    return "adversarial" if is_won else "mle"


def _rewards(corpus: Sequence[Product], rewards: Mapping[str, float]) -> list[float]:
    """Return a weight of each product's reward: what shoppers clicked more often than the original counts for more."""
    return [float(np.clip(1.0 + rewards.get(product.item_id, 0.0), 0.5, 2.0)) for product in corpus]
