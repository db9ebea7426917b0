"""Vectors of products whose text could not be improved."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from ml.refiner.product import Product
from ml.refiner.vectors import VectorSettings
from souk import refinement_vectors
from souk.refinement_vectors import NOTHING, is_gain, move


class Bags:
    """An encoder that hashes words."""

    def encode_passages(self, texts):
        vectors = np.full((len(texts), 128), 0.01, np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, zlib.crc32(word.strip(".,").encode()) % 128] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_queries = encode_passages


KINDS = {
    "Tents": "A waterproof shelter with aluminium poles and a mesh window",
    "Pans": "Cast iron with an even base that keeps heat on the stove",
    "Lamps": "Warm light from a linen shade over an oak stand",
    "Teas": "Fresh leaves with a floral taste and a sweet finish",
    "Chairs": "A padded seat on a steel frame with soft armrests",
    "Drills": "A strong motor, two gears and a magnetic chuck",
    "Scarves": "Merino wool with fringes for cold winter walks",
    "Ropes": "Braided nylon with a dense core that resists friction",
    "Kettles": "A glass body, a bamboo lid and quick boiling water",
    "Pillows": "Goose feathers in a percale cover against snoring",
    "Bikes": "A carbon fork, hydraulic brakes and nine gears",
    "Candles": "Soy wax with a cotton wick and a scent of cedar",
}
QUICK = VectorSettings(hidden=32, regression_steps=10, adversarial_steps=2)


@pytest.fixture(scope="module")
def catalogue():
    products = [
        Product(f"{kind}-{n}", f"Model number {n} {kind[:-1]}", f"{text}. Series {n % 5}.", "Acme", (kind,), (), ())
        for n in range(9)
        for kind, text in KINDS.items()
    ]
    left = {product.item_id for product in products[:12]}
    spoilt = [replace(product, description="!") if product.item_id in left else product for product in products]
    asked = [(" ".join(product.description.split()[1:6]), product.item_id) for product in products[:12]]
    return spoilt, left, asked, refinement_vectors._encoded(Bags(), spoilt)


def test_vectors_move_where_searches_find_them_better(catalogue):
    products, left, asked, vectors = catalogue
    moved = move(products, left, sorted(left), asked, vectors, Bags(), 0, QUICK)
    assert moved.arm in {"ridge", "regression", "adversarial"}
    assert len(moved.vectors) >= 10
    for item, vector in moved.vectors.items():
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert moved.effects[item]["vector_after"] >= moved.effects[item]["vector_before"]
        assert moved.effects[item]["words_after"] == moved.effects[item]["words_before"]
    again = move(products, left, sorted(left), asked, vectors, Bags(), 0, QUICK)
    assert all(np.array_equal(again.vectors[item], vector) for item, vector in moved.vectors.items())


def test_nothing_moves_without_evidence(catalogue, monkeypatch):
    products, left, asked, vectors = catalogue
    assert move(products, left, [], asked, vectors, Bags(), 0, QUICK) == NOTHING
    assert move(products[:40], left, sorted(left), asked, vectors[:40], Bags(), 0, QUICK) == NOTHING, (
        "too few to learn from"
    )

    def diverge(*_, **__):
        raise ValueError("a vector is not finite")

    with monkeypatch.context() as context:
        context.setattr(refinement_vectors.VectorRefiner, "fit", diverge)
        assert move(products, left, sorted(left), asked, vectors, Bags(), 0, QUICK) == NOTHING
    monkeypatch.setattr(refinement_vectors, "is_gain", lambda *_: False)
    stays = move(products, left, sorted(left), asked, vectors, Bags(), 0, QUICK)
    assert (stays.arm, stays.vectors) == ("none", {})
    assert len(stays.effects) >= 10


def test_a_gain_is_one_beyond_chance_on_enough_products():
    def effects(gains):
        return {str(n): {"vector_before": 0.3, "vector_after": 0.3 + gain} for n, gain in enumerate(gains)}

    assert is_gain(effects([0.1] * 12))
    assert not is_gain(effects([0.1] * 9))
    assert not is_gain(effects([0.3, -0.3] * 10))
    assert not is_gain(effects([float("nan")] * 20))
