"""The checker: is every word of a text that claims something said of the product somewhere, and are its facts said?

Support is more than a word that occurs: a number needs its unit and what it counts, a value its name, and what is
denied may not be claimed nor the other way round. Equal up to width, case, inflection and spelling of units.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ml.refiner.evidence import Evidence
from ml.refiner.facts import Fact, extract_facts, is_said
from ml.refiner.old_text import language_of, saved, speaks
from ml.refiner.product import Product, Span
from ml.refiner.reading import CONTENT, read


@dataclass(frozen=True)
class Claim:
    """A piece of a text that nothing supports.

    Attributes:
        start: First character in the text.
        end: Character behind the last one.
        text: The piece.
        reason: `word`, `number`, `negation`, `label` or `context`.
    """

    start: int
    end: int
    text: str
    reason: str


@dataclass(frozen=True)
class Support:
    """What a check found.

    Attributes:
        precision: Share of the content words that are supported, 0 to 1; 1 for a text without any.
        unsupported: The others.
        spans: Where the supported ones come from, in order.
        coverage: Share of `facts_to_say` that the text says; 0 when there are none.
        words: Number of content words.
    """

    precision: float
    unsupported: tuple[Claim, ...]
    spans: tuple[Span, ...]
    coverage: float
    words: int


def check(text: str, product: Product) -> Support:
    """Check a text against title, brand, categories, attributes, old text and reviews of its product."""
    evidence = _evidence(product)
    reading = read(text)
    spans: list[Span] = []
    turned = evidence.turned_round(reading)
    words = len(turned)
    wrong = [Claim(start, end, text[start:end], "negation") for start, end in turned]
    for place, token in enumerate(reading.tokens):
        if token.kind not in CONTENT:
            continue
        words += 1
        span, reason = evidence.judge(reading, place)
        if span is None:
            wrong.append(Claim(token.start, token.end, text[token.start : token.end], reason))
        else:
            spans.append(span)
    facts = facts_to_say(product)
    coverage = sum(is_said(fact, reading) for fact in facts) / len(facts) if facts else 0.0
    return Support(1 - len(wrong) / words if words else 1.0, tuple(wrong), tuple(spans), coverage, words)


@lru_cache(maxsize=256)
def facts_to_say(product: Product) -> tuple[Fact, ...]:
    """Return the facts that a text about a product has to say, which its coverage is measured by.

    Those of `extract_facts` that can stand in the language of the title; of the old text only what has a name or
    stands in a sentence worth keeping: a number that markup or a shop's talk leaves alone is no fact of the new text.
    """
    lang = language_of(product)
    kept = [read(sentence) for sentence in saved(product, lang)]
    return tuple(
        fact
        for fact in extract_facts(product)
        if speaks(fact.value, lang)
        and (fact.source != "description" or fact.name or any(is_said(fact, sentence) for sentence in kept))
    )


@lru_cache(maxsize=256)
def _evidence(product: Product) -> Evidence:
    return Evidence(product)
