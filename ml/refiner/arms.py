"""The composed arms of the refiner's trial: whose generator draws, who chooses, and what judges make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.refiner.choose import calibrate, choose
from ml.refiner.corpus import join, sentences, slot_values, source_text
from ml.refiner.decoding import sample
from ml.refiner.discriminator import Described
from ml.refiner.fitting import Composer, composed
from ml.refiner.generator import Pool, make_pool
from ml.refiner.judge import Judgement, draw, judge
from ml.refiner.measure import distinct, self_bleu
from ml.refiner.product import Product

TEMPERATURES = (0.4, 0.7, 1.0, 1.3)
# Of these validation chooses one, together with the arm.
CANDIDATES = (0.7, 1.0)
# Generator and choice of each composed arm; the first is the baseline of all others.
COMPOSED = {
    "MLE": ("mle", "random"),
    "MLE, likelihood": ("mle", "likelihood"),
    "MLE, coverage": ("mle", "coverage"),
    "MLE, D": ("mle", "discriminator"),
    "MLE, D + coverage": ("mle", "discriminator+coverage"),
    "MLE, rejection": ("mle", "rejection"),
    "adversarial": ("adversarial", "random"),
    "adversarial, D + coverage": ("adversarial", "discriminator+coverage"),
    "adversarial, rejection": ("adversarial", "rejection"),
}
# What a discriminator had a part in.
GAN = tuple(name for name in COMPOSED if name.startswith("adversarial") or ", D" in name or "rejection" in name)
# Drawn over all temperatures, as is what validation chooses; the others at its temperature alone.
CURVES = ("MLE", "MLE, likelihood", "MLE, D + coverage", "adversarial")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """Texts of one product: k of them with what is known of each, float64 (k,)."""

    texts: list[Described]
    likelihoods: Floats
    logits: Floats
    coverage: Floats


@dataclass
class Arms:
    """Draws texts of a composer for products that it has not seen.

    Attributes:
        composer: Generators and discriminators.
        samples: Texts of each product.
        compared: Texts that self-BLEU compares.
        seed: Of everything drawn.
        slope: Of the discriminators' logits, as `validate` sets it.
    """

    composer: Composer
    samples: int
    compared: int
    seed: int
    slope: float = 1.0

    def validate(self, products: Sequence[Product]) -> dict[str, dict[float, float]]:
        """Return the AUC of each arm and temperature, and set the slope of the discriminator's logits."""
        pools, real, ids = self.pools(products), real_texts(products), [product.item_id for product in products]
        found: dict[str, dict[float, float]] = {}
        for temperature in CANDIDATES:
            drawn = {name: self.draw_texts(pools, products, name, temperature) for name in self.composer.generators}
            if temperature == CANDIDATES[-1]:
                logits = [one.logits[0] for one in drawn["mle"]]
                self.slope = calibrate(self.composer.ensemble.logits(real).tolist(), logits)
            for name in GAN:
                generator, arm = COMPOSED[name]
                if generator in drawn:
                    texts = self.choose_texts(drawn[generator], products, arm)
                    auc = judge(real, texts, ids, self.composer.seen, self.seed).auc
                    found.setdefault(name, {})[temperature] = auc
        return found

    def draw_test(
        self, products: Sequence[Product], gan: str, chosen_temperature: float
    ) -> tuple[dict[str, list[str]], dict[str, dict[float, tuple[Judgement, float, float]]]]:
        """Return each arm's texts at the temperature that was chosen, and the curves over all temperatures."""
        pools, real, ids = self.pools(products), real_texts(products), [product.item_id for product in products]
        texts: dict[str, list[str]] = {}
        curves: dict[str, dict[float, tuple[Judgement, float, float]]] = {}
        for temperature in TEMPERATURES:
            drawn = {name: self.draw_texts(pools, products, name, temperature) for name in self.composer.generators}
            for name, (generator, arm) in COMPOSED.items():
                is_curve, is_row = name in {*CURVES, gan}, temperature == chosen_temperature
                if generator not in drawn or not (is_curve or is_row):
                    continue
                chosen = self.choose_texts(drawn[generator], products, arm)
                said = [join(text.sentences) for text in chosen]
                if is_row:
                    texts[name] = said
                if is_curve:
                    judged = judge(real, chosen, ids, self.composer.seen, self.seed)
                    variety = distinct(said, 2), self_bleu(said, most=self.compared)
                    curves.setdefault(name, {})[temperature] = (judged, *variety)
        return texts, curves

    def pools(self, products: Sequence[Product]) -> list[Pool]:
        """Return what a text of each product may be composed of."""
        return [make_pool(self.composer.bank, product) for product in products]

    def draw_texts(
        self, pools: Sequence[Pool], products: Sequence[Product], generator: str, temperature: float
    ) -> list[Drawn]:
        """Return the texts that a generator of the composer draws of each product, judged by its discriminators."""
        selector, k = self.composer.generators[generator], self.samples
        samples = [
            sample(selector, pool, product.item_id, k, temperature, self.seed)
            for pool, product in zip(pools, products, strict=True)
        ]
        texts = [
            composed(product, pool, drawn) or [Described(source_text(product), ())]
            for product, pool, drawn in zip(products, pools, samples, strict=True)
        ]
        logits = np.split(
            self.composer.ensemble.logits([text for each in texts for text in each]),
            np.cumsum([len(each) for each in texts])[:-1],
        )
        return [
            Drawn(
                each,
                np.array([one.log_probability for one in drawn] or [0.0]),
                logit,
                np.array([said_share(product, join(text.sentences)) for text in each]),
            )
            for product, drawn, each, logit in zip(products, samples, texts, logits, strict=True)
        ]

    def choose_texts(self, drawn: Sequence[Drawn], products: Sequence[Product], arm: str) -> list[Described]:
        """Return the text that an arm takes of each product."""
        chosen = []
        for one, product in zip(drawn, products, strict=True):
            rng = np.random.default_rng([self.seed, int(draw(product.item_id, arm) * 2**32)])
            chosen.append(one.texts[choose(arm, one.logits, one.likelihoods, one.coverage, rng, self.slope)])
        return chosen


def real_texts(products: Sequence[Product]) -> list[Described]:
    """Return the products' descriptions as a judge reads them."""
    return described(products, [product.description for product in products])


def described(products: Sequence[Product], texts: Sequence[str]) -> list[Described]:
    """Return texts as a judge reads them."""
    return [
        Described(source_text(product), tuple(sentences(text))) for product, text in zip(products, texts, strict=True)
    ]


def said_share(product: Product, text: str) -> float:
    """Return the share of a product's brand, attributes and measures that a text says; 0 without any."""
    values = {value.lower() for found in slot_values(product).values() for value in found}
    low = text.lower()
    return sum(value in low for value in values) / len(values) if values else 0.0
