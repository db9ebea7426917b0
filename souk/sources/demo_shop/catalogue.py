"""The products of the demo shop: what they are, how good they are, and what the shop says about them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from souk.sources.contract import Row
from souk.sources.demo_shop.vocabulary import CHINESE, LANGUAGES, Picker, Vocabulary, load_vocabulary

DAYS = 180
END = datetime(2026, 7, 1, tzinfo=UTC)  # exclusive: the last day is 2026-06-30
START = END - timedelta(days=DAYS)
DAY = 86_400
CNY_PER_USD = 7.1
POOR_SHARE = 0.2
POOR_KINDS = ("empty", "short", "title", "boilerplate", "html", "stuffing", "wrong-language", "truncated")
DRAWS = 32
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Catalogue:
    """n products as arrays of shape (n,), sorted by type; what shoppers respond to is never shown in a product row.

    Attributes:
        words: The vocabulary.
        kind: Index of the product type.
        language: 0 English, 1 Chinese.
        brand: Index into the category's brands.
        trait: Index into the type's traits.
        value: Index into the type's values.
        colour: Index into the colours.
        price_level: Where the price lies in its type's range, 0 to 1.
        quality: Latent quality, standard normal.
        appeal: Latent attraction to everyone, driven by quality.
        listed: When it was listed, Unix seconds.
        companions: Products that its buyers go on to, (n, 2), -1 for none.
        members: Products of each type, (types, most), padded with -1.
        poor: Index into `POOR_KINDS` of a deliberately poor description, -1 for a good one.
        number: Public number of the product, unrelated to its type.
        draws: Uniform numbers that choose the wording, (n, DRAWS).
    """

    words: Vocabulary
    kind: Ints
    language: Ints
    brand: Ints
    trait: Ints
    value: Ints
    colour: Ints
    price_level: Floats
    quality: Floats
    appeal: Floats
    listed: Ints
    companions: Ints
    members: Ints
    poor: Ints
    number: Ints
    draws: Floats

    def item_id(self, index: int) -> str:
        """Return the public id of a product."""
        return f"item-{self.number[index]:05d}"

    def names(self, index: int, language: int) -> dict[str, str]:
        """Return the words that fill the templates for a product in a language."""
        kind = self.words.types[self.kind[index]]
        category = self.words.categories[kind.category]
        return {
            "type": kind.name[language],
            "brand": category.brands[self.brand[index]][language],
            "trait": kind.traits[self.trait[index]][language],
            "spec_name": kind.spec[language],
            "spec": kind.values[self.value[index]][language],
            "colour": self.words.colours[self.colour[index]][language],
            "code": f"{'ABCDEFGHKLMNPRSTVWXZ'[self.number[index] % 20]}{100 + self.number[index]}",
        }


def build_catalogue(seed: int, size: int) -> Catalogue:
    """Make a catalogue.

    Args:
        seed: Seed of everything random.
        size: Number of products; at least two of each type are made, one in each language.
    """
    words = load_vocabulary()
    n = max(size, 2 * len(words.types))
    rng = np.random.default_rng([seed, 0])
    kind = np.arange(n) * len(words.types) // n
    language = np.arange(n) % 2
    brand_popularity = np.array([0.34, 0.26, 0.18, 0.13, 0.09]).cumsum()
    quality = rng.standard_normal(n)
    appeal = 0.6 * quality + 0.8 * rng.standard_normal(n)
    # Most products are older than the log; the others arrive while it runs.
    age = np.where(rng.random(n) < 0.85, -rng.integers(1, 400, n), rng.integers(1, DAYS - 10, n))
    poor = np.where(rng.random(n) < POOR_SHARE, rng.integers(0, len(POOR_KINDS), n), -1)
    members = _members(kind, len(words.types))
    return Catalogue(
        words=words,
        kind=kind,
        language=language,
        brand=np.searchsorted(brand_popularity, rng.random(n) * brand_popularity[-1]),
        trait=rng.integers(0, 4, n),
        value=rng.integers(0, 3, n),
        colour=rng.integers(0, len(words.colours), n),
        price_level=rng.random(n),
        quality=quality,
        appeal=appeal,
        listed=int(START.timestamp()) + age * DAY + rng.integers(0, DAY, n),
        companions=_companions(words, kind, language, members, rng),
        members=members,
        poor=poor,
        number=rng.permutation(n) + 1,
        draws=rng.random((n, DRAWS)),
    )


def _members(kind: Ints, types: int) -> Ints:
    counts = np.bincount(kind, minlength=types)
    members = np.full((types, counts.max()), -1)
    members[kind, np.arange(len(kind)) - (counts.cumsum() - counts)[kind]] = np.arange(len(kind))
    return members


def _companions(words: Vocabulary, kind: Ints, language: Ints, members: Ints, rng: np.random.Generator) -> Ints:
    """Choose for each product one product of each type that follows its own, in its own language."""
    companions = np.full((len(kind), 2), -1)
    for item, kind_index in enumerate(kind):
        for place, follower in enumerate(words.types[kind_index].followed_by[:2]):
            options = members[follower]
            options = options[options >= 0]
            options = options[language[options] == language[item]]
            companions[item, place] = options[int(rng.random() * len(options))]
    return companions


def product_row(catalogue: Catalogue, index: int) -> Row:
    """Return a product as the shop publishes it."""
    words = catalogue.words
    language = int(catalogue.language[index])
    kind = words.types[catalogue.kind[index]]
    category = words.categories[kind.category]
    picker = Picker(catalogue.draws[index].tolist())
    names = catalogue.names(index, language)
    form = "book_titles" if kind.is_titled else "titles" if category.is_coloured else "plain_titles"
    title = _title(words, picker, names, language, form)
    attributes = {names["spec_name"]: names["spec"]}
    if category.is_coloured:
        attributes[("colour", "颜色")[language]] = names["colour"]
    if not picker.chance(0.1):
        attributes[("style", "款式")[language]] = names["trait"]
    has_brand, has_price = not picker.chance(0.03), not picker.chance(0.04)
    return {
        "item_id": catalogue.item_id(index),
        "title": title,
        "description": _description(catalogue, index, picker, title),
        "brand": names["brand"] if has_brand else None,
        "categories": [category.name[language], kind.leaf[language]],
        "price": _price(kind.price, float(catalogue.price_level[index]), language) if has_price else None,
        "currency": ("USD", "CNY")[language] if has_price else None,
        "attributes": attributes,
        "listed_at": datetime.fromtimestamp(int(catalogue.listed[index]), UTC),
    }


def _title(words: Vocabulary, picker: Picker, names: dict[str, str], language: int, form: str) -> str:
    first, second = (picker.pick(words.phrases["book_words"][part])[language] for part in ("first", "second"))
    template: str = picker.pick(words.phrases[form][LANGUAGES[language]])
    title = template.format(**names, first=first, second=second)
    return title[0].upper() + title[1:]


def _price(typical: float, level: float, language: int) -> float:
    dollars: float = typical * 3.2 ** (level - 0.5)
    if language == CHINESE:
        return max(1.0, 10 * round(dollars * CNY_PER_USD / 10) - 1.0)
    return max(1, round(dollars)) - 0.01


def _good(catalogue: Catalogue, index: int, picker: Picker, language: int) -> str:
    """Return a description of three to seven sentences."""
    words, names = catalogue.words, catalogue.names(index, language)
    kind = words.types[catalogue.kind[index]]
    category = words.categories[kind.category]
    names |= {"use": picker.pick(category.uses)[language], "aspect": picker.pick(category.aspects)[language]}
    full_stop = (".", "。")[language]
    features = [feature[language] + full_stop for feature in kind.features]
    features.insert(0, features.pop(int(picker.chance(0.5)) + int(picker.chance(0.5))))

    def say(form: str) -> str:
        template: str = picker.pick(words.phrases[form][LANGUAGES[language]])
        return template.format(**names)

    sentences = [say("openings"), *features[: 2 + int(picker.chance(0.6))], say("specs")]
    if category.is_coloured and picker.chance(0.6):
        sentences.append(say("colour_notes"))
    if picker.chance(0.7):
        sentences.append(say("closings"))
    return ("" if language == CHINESE else " ").join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _description(catalogue: Catalogue, index: int, picker: Picker, title: str) -> str:
    language = int(catalogue.language[index])
    poor = POOR_KINDS[catalogue.poor[index]] if catalogue.poor[index] >= 0 else None
    if poor == "empty":
        return ""
    if poor == "title":
        return f"{title} {title}" if picker.chance(0.3) else title
    if poor in {"short", "boilerplate"}:
        phrases = catalogue.words.phrases[{"short": "too_short"}.get(poor, poor)]
        return str(picker.pick(phrases[LANGUAGES[language]]))
    if poor == "stuffing":
        names, words = catalogue.names(index, language), catalogue.words.phrases["stuffing"][LANGUAGES[language]]
        return " ".join(f"{names['type']} {picker.pick(words)}" for _ in range(9))
    text = _good(catalogue, index, picker, 1 - language if poor == "wrong-language" else language)
    if poor == "html":
        return f'<div class="desc"><p style="font-size:12px">{text[:40]}&nbsp;<br/>{text[40:60]}</span><table>&amp;'
    return text[: len(text) // 5].rstrip(" 。.") + "..." if poor == "truncated" else text
