from dataclasses import replace

import numpy as np
import pytest

from ml.refiner.degrade import KINDS, degrade
from ml.refiner.product import Product
from ml.refiner.quality import FLAGS, Assessment, TextQuality, auc, select_poor
from tests import refiner

LEAST_AUC = {"truncated": 0.93, "title": 0.95, "boilerplate": 0.95, "stuffed": 0.95}


@pytest.fixture(scope="module")
def halves():
    products, _ = refiner.demo_shop()
    order = np.random.default_rng(0).permutation(len(products))
    return [[products[place] for place in part.tolist()] for part in np.array_split(order, 2)]


@pytest.fixture(scope="module")
def judge(halves):
    return TextQuality.fit(halves[0], seed=0)


def _flags(judge, description, title="Copperleaf frying pan, 28 cm", attributes=()):
    product = Product("1", title, description, "", (), attributes, ())
    return judge.assess([product])[0].flags


@pytest.mark.parametrize(
    ("description", "flags"),
    [
        ("", ("missing",)),
        ("   ", ("missing",)),
        ("Good pan.", ("too_short",)),
        ("Copperleaf frying pan - 28 cm!", ("too_short", "title_again")),
        ("<p>The thick base spreads the heat evenly.</p>", ("html",)),
        ("The thick base spreads&nbsp;the heat evenly over it.", ("html",)),
        ("frying cheap frying best frying sale frying deal frying gift", ("stuffed",)),
        ("加厚锅底，受热均匀，手柄隔热不烫手，煎蛋不粘。", ("wrong_language",)),
        ("The thick base spreads the heat evenly over the whole pan.", ()),
    ],
)
def test_flags_say_what_is_wrong(judge, description, flags):
    assert _flags(judge, description) == flags


def test_attributes_are_contradicted():
    judge = TextQuality.fit(refiner.demo_shop()[0][:400])
    said = "The thick base spreads the heat evenly. The diameter is 24 cm and no more."
    assert _flags(judge, said, "Frying pan", (("diameter", "28 cm"),)) == ("contradicts_attributes",)
    assert _flags(judge, said, "Frying pan", (("diameter", "24 cm"),)) == ()


@pytest.mark.slow
def test_sentences_of_unlike_products_are_boilerplate():
    products, kinds = refiner.demo_shop()
    judge = TextQuality.fit(products)
    shared = [product for product in products if kinds[product.item_id] == "boilerplate"]
    flagged = ["boilerplate" in one.flags for one in judge.assess(shared)]
    assert len(flagged) >= 15
    assert np.mean(flagged) > 0.5


@pytest.mark.slow
def test_the_score_tells_good_texts_from_spoilt_ones_of_unseen_products(judge, halves):
    good = [product for product, one in zip(halves[1], judge.assess(halves[1]), strict=True) if not one.flags]
    assert len(good) > 300
    score = [one.score for one in judge.assess(good)]
    for kind in KINDS:
        poor, _ = degrade(good, seed=9, kinds=[kind])
        assert auc(score, [one.score for one in judge.assess(poor)]) > LEAST_AUC.get(kind, 0.99), kind


def test_the_score_finds_what_the_demo_shop_spoilt(judge, halves):
    _, kinds = refiner.demo_shop()
    found = judge.assess(halves[1])
    good = [one.score for one in found if kinds[one.item_id] == "good"]
    poor = [one.score for one in found if kinds[one.item_id] != "good"]
    assert len(poor) > 80
    assert auc(good, poor) > 0.97


@pytest.mark.slow
def test_the_same_again_after_a_save(judge, halves, tmp_path):
    judge.save(tmp_path)
    assert TextQuality.load(tmp_path).assess(halves[1][:50]) == judge.assess(halves[1][:50])
    again = TextQuality.fit(halves[0], seed=0)
    assert np.array_equal(again.weights, judge.weights)


def test_odd_texts_have_a_score(judge):
    odd = ["\x00\ud800", "a" * 20_000, "。" * 100, "<" * 500, "１２３", "日本語のテキストです。"]
    products = [replace(refiner.demo_shop()[0][0], description=text) for text in odd]
    found = judge.assess(products)
    assert len(found) == len(odd)
    assert all(0 <= one.score <= 1 and set(one.flags) <= set(FLAGS) for one in found)


def test_too_few_good_texts_are_refused():
    with pytest.raises(ValueError, match="too few"):
        TextQuality.fit(refiner.demo_shop()[0][:10])


def test_select_by_share_or_by_score():
    found = [Assessment(str(place), score, ()) for place, score in enumerate([0.9, 0.1, 0.5, 0.1])]
    assert select_poor(found, share=0.5) == ["1", "3"]
    assert select_poor(found, below=0.6) == ["1", "3", "2"]
    assert select_poor([], share=1.0) == []
    with pytest.raises(ValueError, match="not both"):
        select_poor(found)
    with pytest.raises(ValueError, match="not between"):
        select_poor(found, share=1.5)
