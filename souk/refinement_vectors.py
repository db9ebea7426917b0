"""Vectors of products whose text could not be improved: moved to where good descriptions live, where that is proven."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.encoder import Encoder
from ml.evaluation.compare import paired
from ml.refiner.degrade import degrade
from ml.refiner.product import Product
from ml.refiner.retrieval import pseudo_queries
from ml.refiner.vectors import LEAST_PAIRS, VectorRefiner, VectorSettings
from ml.text import passage
from souk.refinement_effect import helps_vector, measure

log = logging.getLogger(__name__)
# Pairs to learn from: more cost encoding, and gained nothing.
MOST_PAIRS = 600
# With fewer products that are asked for, a gain is no evidence.
LEAST_MEASURED = 10

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Moved:
    """What became of vectors.

    Attributes:
        arm: `ridge`, `regression`, `adversarial`, or `none`.
        vectors: float32 (d,) of each product that has another vector now.
        effects: What was measured of each product, see `measure`.
    """

    arm: str
    vectors: dict[str, Floats]
    effects: dict[str, dict[str, float]]


NOTHING = Moved("none", {}, {})


def move(
    products: Sequence[Product],
    poor: set[str],
    left: Sequence[str],
    asked: Sequence[tuple[str, str]],
    vectors: Floats,
    encoder: Encoder,
    seed: int = 0,
    training: VectorSettings | None = None,
) -> Moved:
    """Give products another vector, made of their title, brand and categories.

    It is learned from good descriptions: what their vectors are without them, and with them. Two guards, both beyond
    chance: the best arm has to find good products, held out and spoilt, by queries from their true texts; and the
    products themselves have to be found better by held-out searches. One that is found worse keeps its vector.

    Args:
        products: The catalogue.
        poor: Products of which nothing is learned.
        left: Those of them that are to have another vector.
        asked: Held-out searches: words, and the product that was chosen.
        vectors: float32 (n, d), the catalogue's; a row of zeros where there is none.
        encoder: Made them.
        seed: Of everything drawn.
        training: How much is trained.
    """
    place = {product.item_id: number for number, product in enumerate(products)}
    learned = [
        p for p in products if p.item_id not in poor and p.description.strip() and vectors[place[p.item_id]].any()
    ]
    learned = sorted(learned, key=lambda product: hashlib.sha256(product.item_id.encode()).digest())[:MOST_PAIRS]
    wanted = [products[place[item]] for item in left if item in place and products[place[item]].title.strip()]
    if not wanted or len(learned) < LEAST_PAIRS:
        return NOTHING
    texts = [product.description for product in products]
    queries = pseudo_queries({n: product.description for n, product in enumerate(learned)}, texts, seed=seed)
    try:
        refiner = VectorRefiner.fit(
            _encoded(encoder, [replace(product, description="") for product in learned]),
            vectors[[place[product.item_id] for product in learned]],
            original=_encoded(encoder, degrade(learned, seed=seed)[0]),
            queries=encoder.encode_queries([query.text for query in queries]),
            owners=np.array([query.product for query in queries], np.int64),
            seed=seed,
            settings=training,
        )
    except (ValueError, RuntimeError, ArithmeticError) as error:
        log.warning("no vector is moved: %s", error)
        return NOTHING
    log.info("vectors: arm %s, gain of MRR on held-out products %s", refiner.arm, refiner.report.get("gain"))
    if refiner.arm == "none":
        return NOTHING
    made = refiner.refine(_encoded(encoder, [replace(product, description="") for product in wanted]))
    moved = {product.item_id: vector for product, vector in zip(wanted, made, strict=True)}
    same = {product.item_id: product.description for product in wanted}
    effects = measure(products, same, asked, vectors, moved, lambda words: encoder.encode_queries(list(words)))
    if not is_gain(effects, seed):
        log.info("vectors: nothing gained on the products themselves; all stay as they are")
        return Moved("none", {}, effects)
    kept = {item: vector for item, vector in moved.items() if helps_vector(effects.get(item))}
    return Moved(refiner.arm, kept, effects)


def is_gain(effects: Mapping[str, Mapping[str, float]], seed: int = 0) -> bool:
    """Tell whether enough products were measured, and their mean reciprocal rank by vector rose beyond chance."""
    if len(effects) < LEAST_MEASURED:
        return False
    before, after = (np.array([[one[f"vector_{when}"]] for one in effects.values()]) for when in ("before", "after"))
    return bool(np.isfinite(after).all() and paired(after, before, seed)[1, 0] > 0)


def _encoded(encoder: Any, products: Sequence[Product]) -> Floats:  # noqa: ANN401
    vectors: Floats = encoder.encode_passages(
        [passage(p.title, p.brand, p.categories, p.description) for p in products]
    )
    return vectors
