"""Markup inside of words, and words that it cut: neither may become a claim, or half of one."""

from dataclasses import replace

import numpy as np
import pytest

from ml.refiner.ground import compose, ground
from ml.refiner.markup import is_marked, shown, visible
from ml.refiner.product import Product
from ml.refiner.reading import read
from ml.refiner.support import check
from ml.refiner.torn import is_word, torn
from ml.refiner.verdict import verify
from tests import refiner
from tests.conftest import sampled

# How a word is cut: what a browser shows whole, and what falls apart.
WHOLE = ("&shy;", "\u00ad", "<b></b>", "</span>", "\u200b", "&#8203;", "&amp;shy;", "<wbr/>", "<!---->")
APART = ("&nbsp;", "<br/>", " ", "&amp;nbsp;", "</p><p>", "\u00a0")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("<b>sta</b>inless steel", "stainless steel"),
        ("stain&shy;less stain\u00adless stain&amp;shy;less", "stainless stainless stainless"),
        ("wa\u200bter wa&#8203;ter wa&zwnj;ter", "water water water"),
        ("<b>Colour:</b>Red<i>and</i> blue", "Colour:Redand blue"),
        ("<b>Features</b><span>Great grip", "Features Great grip"),
        ("10<sup>2</sup> pieces", "10 2 pieces"),
        ("keeps&nbsp;cool &amp;amp; dry", "keeps cool & dry"),
        ("Red<br>blue<br/>Green. One.<p>two", "Red blue\nGreen. One.\ntwo"),
        ("<ul><li>red</li><li>blue</li></ul>", "red\nblue"),
        ("不粘&nbsp;<br/>平底锅</li><li>黑色", "不粘平底锅\n黑色"),
        ("平底锅 黑色", "平底锅 黑色"),
        ('style="a">Steel cup<table w="7', "Steel cup"),
        ("Steel cup&nbs", "Steel cup"),
        ("&lt;p&gt;Steel&lt;/p&gt; cup", "Steel cup"),
        ("a < b, R&D; AT&T", "a < b, R&D; AT&T"),
        ("<script>alert(1)</script>Steel<!-- <b>no</b> --> cup", "Steel cup"),
    ],
)
def test_what_is_seen_of_markup(text, seen):
    assert visible(text).text.strip() == seen
    assert all(0 <= place < len(text) for place in visible(text).at)
    assert list(visible(text).at) == sorted(visible(text).at)


def test_places_lead_to_the_text_as_it_was_given():
    text = "A <b>sta</b>in&shy;less pan<br/>of 20&nbsp;cm"
    words = {token.key: text[token.start : token.end] for token in read(text).tokens}
    assert words["stainless"] == "sta</b>in&shy;less"
    assert words["20 cm"] == "20&nbsp;cm"


@pytest.mark.parametrize(
    ("text", "halves"),
    [
        ("made fr om stain less steel", ["fr om", "stain less"]),
        ("it is wat erproof and re inforced", ["wat erproof", "re inforced"]),
        ("on the ir place in the b edroom", ["the ir", "b edroom"]),
        ("a pan on to which it fits, in side out, size s pan, non stick", []),
        ("the kind of pan that keeps its heat", []),
    ],
)
def test_halves_of_words_are_seen(text, halves):
    assert [text[start:end] for start, end in torn(text)] == halves


def test_halves_support_nothing():
    product = Product("1", "Steel pan", "It is made fr om stain less steel.", "", ("Pans",), (), ())
    found = [claim.text for claim in check("Steel pan. It is made fr om stain less steel.", product).unsupported]
    assert found == ["fr", "om", "stain", "less"]
    assert check("Stainless steel pan.", product).unsupported[0].text == "Stainless"
    whole = replace(product, description="It is made from <b>stain</b>less steel.")
    assert check("It is made from stainless steel.", whole).unsupported == ()


@pytest.mark.parametrize(
    "text", ["<b>Steel</b> pan.", "Steel&nbsp;pan.", "Steel\u200b pan.", "Steel pan.\x07", "Pans<br"]
)
def test_a_new_text_holds_no_markup(text):
    product = Product("1", "Steel pan", "Pans of steel.", "", ("Pans",), (), ())
    assert is_marked(text)
    assert verify(text, product)[0] == "bad_characters"
    assert not is_marked("Steel pan. 20 cm < 30 cm, AT&T. 不粘，平底锅。")


@pytest.mark.parametrize("cut", sampled(WHOLE, 6))
def test_words_that_a_browser_shows_whole_stay_whole(cut):
    spoilt = 0
    for product, place in _cut_places():
        broken = product.description[:place] + cut + product.description[place:]
        text = compose(ground(replace(product, description=broken)))
        assert text == compose(ground(product)), broken
        spoilt += 1
    assert spoilt >= 30


@pytest.mark.parametrize("cut", sampled(APART, 6))
def test_words_that_fall_apart_are_not_said(cut):
    spoilt = 0
    for product, place in _cut_places():
        text = product.description
        start = max(text.rfind(mark, 0, place) for mark in " (-'\"") + 1
        halves = [text[start:place].lower(), text[place:].split()[0].strip(".,;!?").lower()]
        if is_word(halves[0]) and is_word(halves[1]):
            continue  # nothing shows that `under stood` was one word
        known = {token.key for token in read(" ".join([product.title, *product.categories])).tokens}
        new = compose(ground(replace(product, description=text[:place] + cut + text[place:])))
        said = {new[token.start : token.end].lower() for token in read(new).tokens} - known
        assert not any(not is_word(half) and half in said for half in halves), (halves, new)
        spoilt += 1
    assert spoilt >= 20


def _cut_places():
    """Yield good English products of the demo shop, each with a place inside of a long word of its description."""
    chance = np.random.default_rng(5)
    products, kinds = refiner.demo_shop()
    for product in products[:300]:
        words = [
            token
            for token in read(product.description).tokens
            if token.kind == "word" and not token.is_han and token.end - token.start >= 6
        ]
        words = [token for token in words if is_word(product.description[token.start : token.end].lower())]
        if kinds[product.item_id] == "good" and words:
            word = words[int(chance.integers(len(words)))]
            yield product, int(chance.integers(word.start + 2, word.end - 1))


def test_titles_and_values_are_shown_without_markup():
    product = Product(
        "1", "<b>Stain</b>less &amp; steel pan", "", "Ac&shy;me", ("Pans&nbsp;etc",), (("colour", "<i>black</i>"),), ()
    )
    text = compose(ground(product))
    assert text.startswith("Acme Stainless & steel pan.")
    assert "Colour: black." in text
    assert verify(text, product)[0] == ""
    assert shown("a<br>b") == "a b"
