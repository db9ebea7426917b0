"""Measures of texts: against references, of variety, and against the facts of their products."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml.refiner.product import Product
from ml.refiner.reading import read
from ml.refiner.support import check


def bleu4(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return BLEU-4 in percent as it is reported for AdvertiseGen: by characters, text by text, the mean.

    Smoothing is the geometric sequence of Chen and Cherry (2014), method 3.

    Raises:
        ValueError: Not one reference for each text, or none at all.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if len(texts) != len(references) or not texts:
        raise ValueError(f"{len(texts)} texts and {len(references)} references")
    smoothing = SmoothingFunction().method3
    scores = [
        sentence_bleu([list(reference)], list(text), smoothing_function=smoothing) if text else 0.0
        for text, reference in zip(texts, references, strict=True)
    ]
    return 100 * float(np.mean(scores))


def distinct(texts: Sequence[str], n: int) -> float:
    """Return the share of different n-grams of words among all (Li et al. 2016); 0 when there is none."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str], *, most: int = 100, seed: int = 0) -> float:
    """Return the mean BLEU-4 of each text against all others (Zhu et al. 2018), 0 to 1, of at most `most` drawn ones.

    Raises:
        ValueError: Less than two texts.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if len(texts) < 2:
        raise ValueError("One text has no others")
    drawn = np.sort(np.random.default_rng(seed).permutation(len(texts))[:most])
    cut = [_keys(texts[place]) for place in drawn.tolist()]
    smoothing = SmoothingFunction().method1
    scores = [
        sentence_bleu(cut[:place] + cut[place + 1 :], one, smoothing_function=smoothing) if one else 0.0
        for place, one in enumerate(cut)
    ]
    return float(np.mean(scores))


ORDER = 5


class CharacterModel:
    """An interpolated model of characters, 5-grams with Witten and Bell's weights (Chen and Goodman 1999).

    Characters need no vocabulary, so that few texts will do, in both languages.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._follow: dict[str, Counter[str]] = defaultdict(Counter)
        for text in texts:
            said = _framed(text)
            for at in range(ORDER - 1, len(said)):
                for size in range(ORDER):
                    self._follow[said[at - size : at]][said[at]] += 1
        self._characters = len(self._follow[""]) + 1

    def perplexity(self, texts: Sequence[str]) -> float:
        """Return the perplexity per character with the end of each text.

        Raises:
            ValueError: There is no text.
        """
        if not texts:
            raise ValueError("There is no text")
        surprise, count = 0.0, 0
        for text in texts:
            said = _framed(text)
            for at in range(ORDER - 1, len(said)):
                surprise -= math.log(self._probability(said, at))
                count += 1
        return math.exp(surprise / count)

    def _probability(self, said: str, at: int) -> float:
        p = 1 / self._characters
        for size in range(ORDER):
            follow = self._follow.get(said[at - size : at])
            if follow is None:
                break
            p = (follow[said[at]] + len(follow) * p) / (follow.total() + len(follow))
        return p


def _framed(text: str) -> str:
    return "\x02" * (ORDER - 1) + text.lower() + "\x03"


@dataclass(frozen=True)
class Grounded:
    """How true texts are to their products.

    Attributes:
        coverage: Mean share of a product's facts that its text says.
        precision: Share of all content words that are supported.
        unsupported: Share of the texts with a claim that nothing supports.
    """

    coverage: float
    precision: float
    unsupported: float


def grounded(texts: Sequence[str], products: Sequence[Product]) -> Grounded:
    """Check each text against its product.

    Raises:
        ValueError: Not one text for each product, or none at all.
    """
    if len(texts) != len(products) or not texts:
        raise ValueError(f"{len(texts)} texts and {len(products)} products")
    found = [check(text, product) for text, product in zip(texts, products, strict=True)]
    words = sum(support.words for support in found)
    return Grounded(
        coverage=float(np.mean([support.coverage for support in found])),
        precision=1 - sum(len(support.unsupported) for support in found) / words if words else 1.0,
        unsupported=float(np.mean([bool(support.unsupported) for support in found])),
    )


def _keys(text: str) -> list[str]:
    return [token.key for token in read(text).tokens]


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    keys = _keys(text)
    return [tuple(keys[at : at + n]) for at in range(len(keys) - n + 1)]
