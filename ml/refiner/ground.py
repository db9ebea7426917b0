"""What can be said truthfully of a product: sentences saved from its old text and reviews, and its facts as phrases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ml.refiner.facts import Fact, extract_facts, is_said
from ml.refiner.markup import shown
from ml.refiner.old_text import finish, is_shop_talk, language_of, plainly, saved, sentences, speaks
from ml.refiner.phrasebook import Phrasebook, phrase
from ml.refiner.product import Product, Span
from ml.refiner.reading import read
from ml.refiner.refusals import is_suspect, refusal
from ml.refiner.support import check, facts_to_say
from ml.refiner.verdict import LONGEST_TEXT
from ml.text import detect_language

_REVIEW_SENTENCES = 2
_OPINION = re.compile(
    r"\b(?:i|i'm|i've|my|me|we|our|us|you|he|she|husband|wife|recommend\w*|disappoint\w*|love[sd]?|hate[sd]?|happy|great|good"
    r"|excellent|terrible|worst|best|perfect|awesome|poor|nice|star|stars|price|money|worth|buy|bought|delivery|arrived|shipp\w+"
    r"|seller|return\w*|sent|average|trouble|surprised|fine)\b"
    r"|[我你您]|推荐|失望|喜欢|满意|好评|物流|快递|回购|价格|价位|退货|浪费|后悔|不错|很好|特别好|很差|糟糕|很棒|没得挑|超出预期|客服|一般|能用",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sentence:
    """Something true that can be said.

    Attributes:
        text: With its full stop.
        origin: `title`, `description`, `review` or `fact`.
        spans: Where each content word comes from; places are those of this sentence.
        facts: Keys of the facts that it says.
    """

    text: str
    origin: str
    spans: tuple[Span, ...]
    facts: frozenset[str]


@dataclass(frozen=True)
class Grounding:
    """What a text about a product may be made of.

    Attributes:
        product: The product.
        reason: "" or why nothing can be said: `no_facts`, `contradicting_facts`, `foreign_title`, `instruction_like`,
            `contact_like`, `too_long`, `bad_characters`.
        lang: Language of the text, `en` or `zh`.
        facts: What it has to say.
        slots: Sentences in the order of a text; each place holds phrasings of the same content, the plainest first.
    """

    product: Product
    reason: str
    lang: str = "en"
    facts: tuple[Fact, ...] = ()
    slots: tuple[tuple[Sentence, ...], ...] = ()


def ground(product: Product, phrasebook: Phrasebook | None = None) -> Grounding:
    """Collect what can be said of a product; never raises for odd text, but names the reason why nothing can be."""
    reason = refusal(product)
    if reason:
        return Grounding(product, reason)
    book = phrasebook or Phrasebook()
    lang, facts = language_of(product), facts_to_say(product)
    collected = _Collected(product, lang, facts)
    collected.add("title", _openings(product, lang))
    for sentence in saved(product, lang, book.boilerplate):
        collected.add("description", [sentence])
    for sentence in _from_reviews(product, lang):
        collected.add("review", [sentence])
    _say_facts(collected, book)
    if not facts or not collected.slots:
        return Grounding(product, "no_facts", lang, facts)
    return Grounding(product, "", lang, facts, tuple(collected.slots))


def compose(grounding: Grounding, choice: Sequence[int] = (), longest: int = LONGEST_TEXT) -> str:
    """Return a text of the phrasings chosen for each place, the first where none is chosen; "" for no place.

    Past `longest` characters, sentences of the old text and of reviews that say no fact go first, the last ones before
    the others.
    """
    picked = [slot[choice[place] if place < len(choice) else 0] for place, slot in enumerate(grounding.slots)]
    for least in (0, 1):
        place = len(picked) - 1
        while place > 0 and sum(len(sentence.text) + 1 for sentence in picked) > longest:
            sentence = picked[place]
            others = frozenset().union(*(other.facts for other in picked if other is not sentence))
            if sentence.origin in {"description", "review"} and len(sentence.facts - others) <= least * len(
                sentence.facts
            ):
                del picked[place]
            place -= 1
    return ("" if grounding.lang == "zh" else " ").join(sentence.text for sentence in picked)


class _Collected:
    """The places of a text so far, and the facts that they say."""

    def __init__(self, product: Product, lang: str, facts: tuple[Fact, ...]) -> None:
        self.product, self.lang, self.facts = product, lang, facts
        self.slots: list[tuple[Sentence, ...]] = []
        self.said: set[str] = set()
        self.plain: set[str] = set()

    def add(self, origin: str, phrasings: Sequence[str]) -> bool:
        """Add a place with those phrasings that the checker supports word by word; tell whether one was left."""
        found: list[Sentence] = []
        for text in dict.fromkeys(phrasings):
            support = check(text, self.product)
            if not text or plainly(text) in self.plain or support.unsupported or not support.words:
                continue
            reading = read(text)
            keys = frozenset(fact.key for fact in self.facts if is_said(fact, reading))
            found.append(Sentence(text, origin, support.spans, keys))
        # A phrasing that says less than the plainest one is none.
        found = [one for one in found if one.facts >= found[0].facts]
        if found:
            self.slots.append(tuple(found))
            self.said |= found[0].facts
            self.plain.update(plainly(one.text) for one in found)
        return bool(found)


def _openings(product: Product, lang: str) -> list[str]:
    """Return the title as a sentence, first with the brand if it lacks it."""
    title = shown(product.title).rstrip(". 。")
    brand = shown(product.brand)
    plain = finish(title, lang)
    if brand and title and brand.lower() not in title.lower() and speaks(brand, lang):
        return [finish(f"{brand} {title}", lang), plain]
    return [plain]


def _from_reviews(product: Product, lang: str) -> list[str]:
    """Return sentences of reviews that state something the shop's own data bear out or shoppers ask for."""
    own = replace(product, reviews=())
    wanted = {part.key for aspect in product.aspects for part in read(aspect).tokens}
    known = {token.key for fact in extract_facts(own) for token in read(fact.value).content()}
    known |= {token.key for token in read(product.title).content()}
    kept: list[str] = []
    for review in product.reviews:
        for sentence in sentences(review):
            reading = read(sentence)
            keys = {token.key for token in reading.content()}
            if detect_language(sentence) != lang or _OPINION.search(sentence) or is_shop_talk(sentence):
                continue
            if is_suspect(sentence) or "?" in sentence:
                continue
            doubted = [claim for claim in check(sentence, own).unsupported if claim.reason != "word"]
            if len(keys) >= 3 and keys & (wanted | known) and not doubted:
                kept.append(finish(sentence, lang))
            if len(kept) == _REVIEW_SENTENCES:
                return kept
    return kept


def _say_facts(collected: _Collected, book: Phrasebook) -> None:
    """Say every attribute by its name, and what the sentences so far leave out."""
    product, lang = collected.product, collected.lang
    for name, value in product.attributes:
        is_named = any(plainly(name) in plain and plainly(value) in plain for plain in collected.plain)
        if value.strip() and not is_named and speaks(name, lang) and speaks(value, lang):
            collected.add("fact", phrase(shown(name), shown(value), lang, book))
    for fact in collected.facts:
        if fact.slot not in {"brand", "category"} and fact.name and fact.key not in collected.said:
            collected.add("fact", phrase(shown(fact.name), shown(fact.value), lang, book))
    brand = shown(product.brand)
    if brand and any(fact.slot == "brand" and fact.key not in collected.said for fact in collected.facts):
        collected.add("fact", [f"品牌：{brand}。"] if lang == "zh" else [f"Brand: {brand}.", f"From {brand}."])
    categories = [shown(name) for name in product.categories if name.strip() and speaks(name, lang)]
    if any(fact.slot == "category" and fact.key not in collected.said for fact in collected.facts):
        names = list(dict.fromkeys(categories))
        if lang == "zh":
            collected.add("fact", [f"类目：{'、'.join(names)}。", f"属于{'、'.join(names)}类目。"])
        else:
            collected.add("fact", [f"Category: {', '.join(names)}.", f"The category is {', '.join(names)}."])
