"""Facts of a product, each with the place where it is written: brand, category, attributes, numbers, materials."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ml.refiner import lexicon
from ml.refiner.product import Product, attribute_names, sources
from ml.refiner.reading import Reading, Token, read

SLOTS = (
    "brand",
    "category",
    "attribute",
    "material",
    "colour",
    "size",
    "quantity",
    "measure",
    "model",
    "style",
    "audience",
)
_LEXICONS = {"material": lexicon.MATERIALS, "colour": lexicon.COLOURS, "audience": lexicon.AUDIENCES}
# Units that count things.
_COUNTS = {
    "piece", "pack", "pair", "set", "sheet", "page", "roll", "box", "bag", "sachet", "bottle", "tube", "tablet",
    "capsule", "case", "count", "tray", "item",
}  # fmt: skip
_LABEL_REACH = 2


@dataclass(frozen=True)
class Fact:
    """Something true of a product: `sources(product)[source][at:at+len(value)]` is its value.

    Attributes:
        slot: One of `SLOTS`.
        value: As it is written.
        key: What it is compared by.
        source: Where it is written.
        at: First character there.
        name: Name of the attribute, or what a number measures ("diameter"); "" when it is not said.
    """

    slot: str
    value: str
    key: str
    source: str
    at: int
    name: str = ""

    @property
    def end(self) -> int:
        """Return the character behind the value."""
        return self.at + len(self.value)


def extract_facts(product: Product) -> tuple[Fact, ...]:
    """Return the facts of structured data, then of the title, then of the old description; no fact twice."""
    found: dict[str, Fact] = {}
    for fact in _all_facts(product):
        # What an attribute says is not said again by a word of the title.
        if fact.key and not any(fact.key == known.key for known in found.values()):
            found[f"{fact.slot} {fact.key}"] = fact
    return tuple(found.values())


def contradictions(facts: Iterable[Fact]) -> tuple[tuple[Fact, Fact], ...]:
    """Return pairs of facts that cannot both be true: one name, one unit, two numbers in two places.

    A name with several values in one place (three lengths of three parts) contradicts nothing.
    """
    named: dict[tuple[str, str], dict[str, list[Fact]]] = defaultdict(lambda: defaultdict(list))
    for fact in facts:
        group = _single(fact)
        if group:
            named[group][fact.source].append(fact)
    pairs = []
    for places in named.values():
        alone = [there[0] for there in places.values() if len(there) == 1]
        pairs += [(alone[0], other) for other in alone[1:] if other.key != alone[0].key and len(alone) == len(places)]
    return tuple(pairs)


def conflicts(product: Product) -> tuple[tuple[Fact, Fact], ...]:
    """Return the contradictions between the sources of a product, before equal facts are made one."""
    return contradictions(_all_facts(product))


def is_said(fact: Fact, reading: Reading) -> bool:
    """Tell whether a text says a fact: all words of its value, denied only where the value denies them."""
    said = {(token.key, token.is_negated) for token in reading.tokens}
    wanted = read(fact.value).content()
    return all((t.key, t.is_negated) in said or (t.is_han and t.key in reading.plain) for t in wanted)


def _single(fact: Fact) -> tuple[str, str] | None:
    """Return what a fact must be the only one of."""
    quantity = re.fullmatch(r"([\d.e+]+) (\S+)", fact.key)
    if quantity and fact.name:
        return _named(fact.name), quantity[2]
    if fact.slot == "colour" and fact.name:
        return "colour", ""
    return None


def _named(name: str) -> str:
    keys = [token.key for token in read(name).tokens]
    return lexicon.SLOT_OF_LABEL.get(keys[0], keys[0]) if len(keys) == 1 else " ".join(keys)


def _all_facts(product: Product) -> Iterator[Fact]:
    texts = sources(product)
    if product.brand.strip():
        yield _whole("brand", product.brand, "brand")
    names = attribute_names(product)
    for source, name in names.items():
        if source in texts and texts[source].strip():
            yield from _attribute(source, name, texts[source])
    for place in reversed(range(len(product.categories))):
        if product.categories[place].strip():
            yield _whole("category", product.categories[place], f"category:{place}")
    for source in ("title", "description"):
        if source in texts:
            yield from _written(read(texts[source]), source)


def _whole(slot: str, text: str, source: str, name: str = "") -> Fact:
    value = text.strip()
    return Fact(slot, value, " ".join(token.key for token in read(value).content()), source, text.index(value), name)


def _attribute(source: str, name: str, text: str) -> Iterator[Fact]:
    label = _named(name)
    tokens = read(text).content()
    slot = label if label in SLOTS else "attribute"
    if len(tokens) == 1 and tokens[0].kind == "quantity":
        slot = "quantity" if tokens[0].unit in _COUNTS else "measure"
    yield _whole(slot, text, source, name)


def _written(reading: Reading, source: str) -> Iterator[Fact]:
    """Yield what a text says in words and numbers that have a slot."""
    tokens = [token for token in reading.tokens if token.kind != "function"]
    for place, token in enumerate(tokens):
        slot = _slot(token, source)
        if slot:
            name = _measured_name(tokens, place) if token.kind == "quantity" else ""
            yield Fact(slot, reading.text[token.start : token.end], token.key, source, token.start, name)


def _slot(token: Token, source: str) -> str:
    if token.is_negated:
        return ""
    if token.kind == "quantity":
        if token.number[:1] in "<>~" or not token.unit:
            return ""
        return "quantity" if token.unit in _COUNTS else "measure"
    if token.kind == "code":
        return "model" if source == "title" else ""
    return next((slot for slot, words in _LEXICONS.items() if token.key in words and source == "title"), "")


def _measured_name(tokens: list[Token], place: int) -> str:
    """Return the name of what a number measures, written close before or behind it."""
    near = [*range(place - 1, place - 1 - _LABEL_REACH, -1), *range(place + 1, place + 1 + _LABEL_REACH)]
    for other in near:
        if 0 <= other < len(tokens) and tokens[other].sentence == tokens[place].sentence:
            if tokens[other].key in _MEASURED_KEYS:
                return tokens[other].key
            if tokens[other].kind == "quantity":
                continue
    return ""


_MEASURED_KEYS = frozenset(token.key for name in lexicon.MEASURED for token in read(name).tokens)
