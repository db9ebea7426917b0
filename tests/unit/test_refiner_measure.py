from dataclasses import replace

import numpy as np
import pytest

from ml.refiner.degrade import KINDS, degrade
from ml.refiner.measure import bleu4, distinct, grounded, self_bleu
from ml.refiner.product import Product
from ml.refiner.retrieval import by_vectors, by_words, compare, pseudo_queries
from ml.search.lexicon import Document
from tests import refiner


def test_bleu_is_full_for_the_reference_and_falls_with_every_change():
    reference = "这款半身裙采用高腰设计，拉长腿部比例。"
    assert bleu4([reference], [reference]) == pytest.approx(100)
    near = bleu4(["这款半身裙采用高腰剪裁，拉长腿部比例。"], [reference])
    far = bleu4(["纯棉面料，亲肤透气。"], [reference])
    assert 100 > near > 40 > far >= 0
    assert bleu4(["", reference], [reference, reference]) == pytest.approx(50)
    with pytest.raises(ValueError, match="1 texts and 0 references"):
        bleu4(["a"], [])


def test_variety_falls_with_repetition():
    various = ["A black pan of steel.", "Two cups for green tea.", "The lamp lights a whole tent."]
    same = [various[0]] * 3
    assert distinct(various, 2) > 0.9 > 0.4 > distinct(same, 2)
    assert self_bleu(same) == pytest.approx(1)
    assert self_bleu(various) < 0.5
    assert distinct([], 1) == 0
    with pytest.raises(ValueError, match="no others"):
        self_bleu(["a"])


def test_grounded_tells_a_lie():
    product = Product("1", "Steel box A12", "", "Acme", ("Boxes",), (("length", "20 cm"),), ())
    true = grounded(["Acme steel box A12. Length: 20 cm. Category: Boxes."], [product])
    assert (true.coverage, true.precision, true.unsupported) == (1.0, 1.0, 0.0)
    lie = grounded(["Acme steel box A12. Length: 30 cm. Category: Boxes."], [product])
    assert lie.coverage < 1 > lie.precision
    assert lie.unsupported == 1


def test_degrading_depends_on_the_product_alone_and_makes_every_kind():
    good = [p for p in refiner.demo_shop()[0] if len(p.description) > 80][:300]
    poor, kinds = degrade(good, seed=3)
    again, _ = degrade(good[::-1], seed=3, kinds=KINDS)
    assert set(kinds) == set(KINDS)
    same = [one == other for one, other, kind in zip(poor, again[::-1], kinds, strict=True) if kind != "language"]
    assert len(same) > 200
    assert all(same)
    for one, product, kind in zip(poor, good, kinds, strict=True):
        assert one == replace(product, description=one.description)
        assert one.description != product.description
        assert (one.description == "") == (kind == "dropped")


def _catalogue():
    texts = [
        "A brass valve for garden hoses with a lever.",
        "A steel valve for steam pipes with a wheel.",
        "A rubber hose for garden taps with a nozzle.",
        "A steel wheel for trolleys with a brake.",
    ]
    return texts, [Document("", text, "", ()) for text in texts]


def test_queries_come_from_the_reference_and_are_the_same_again():
    texts, _ = _catalogue()
    queries = pseudo_queries(dict(enumerate(texts)), texts, seed=1)
    assert queries == pseudo_queries(dict(enumerate(texts)), texts, seed=1)
    assert {query.product for query in queries} >= {0, 1}
    for query in queries:
        words = query.text.split()
        assert 2 <= len(words) <= 3
        assert all(word in texts[query.product] for word in words)


def test_a_lost_text_is_not_found_and_a_better_one_is():
    texts, documents = _catalogue()
    queries = pseudo_queries({1: texts[1]}, texts, seed=0)
    assert len(queries) == 1
    lost = [*documents]
    lost[1] = Document("", "", "", ())
    true, gone = by_words(queries, documents), by_words(queries, lost)
    assert gone.tolist() == [[0.0, 0.0]]
    assert true[0, 0] > 0.6
    result = compare(np.repeat(true, 30, axis=0), np.repeat(gone, 30, axis=0))
    assert result.difference[1] > 0
    assert result.relative == float("inf")


def test_vectors_rank_like_words():
    items = np.eye(12, 4, dtype=np.float32)
    items[4:11, 0] = 0.5
    items[4:11, 2] = 0.1
    items[11] = -1
    gains = by_vectors(items[:2], [0, 1], items)
    assert gains.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert by_vectors(items[:1], [11], items)[0, 0] == 0
    assert by_vectors(items[:0], [], items).shape == (0, 2)
