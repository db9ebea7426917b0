"""What can be said truthfully of a product: sentences saved from its old text and reviews, and its facts as phrases."""

from __future__ import annotations

import html
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ml.refiner import lexicon
from ml.refiner.facts import Fact, conflicts, extract_facts
from ml.refiner.product import Product, Span
from ml.refiner.reading import CONTENT, Reading, read
from ml.refiner.support import Support, check, is_said
from ml.text import detect_language, normalise
from ml.text.clean import HAN

LONGEST_ORIGINAL = 8_000
LONGEST_TEXT = 2_200
LEAST_COVERAGE = 0.95
LEAST_PRECISION = 1.0
_REVIEW_SENTENCES = 2
_LEAST_WORDS = 2
_LEAST_FRAGMENT = 3
_LEARNED_FROM = 3
_MOST_PHRASINGS = 4
_BOILERPLATE_GROUPS = 4

# What speaks to a machine, not to a shopper.
_INSTRUCTION = re.compile(
    r"(?:ignore|disregard|forget|override)\W+(?:\w+\W+){0,4}(?:instruction|prompt|rule|direction|message)s?"
    r"|(?:system|developer)\s*(?:prompt|message)|you are (?:now )?(?:an? )?(?:ai|assistant|language model|chatbot|chatgpt)"
    r"|as an? (?:ai|language model)|jailbreak|<\|[a-z_]+\|>|\[/?inst\]|###\s*(?:system|instruction|user|assistant)"
    r"|(?:^|\n)\s*(?:system|assistant|user)\s*:|(?:reply|respond|answer|output|print|say)\s+(?:only|exactly|with)\b"
    r"|(?:忽略|无视|忘记|忘掉)[^。！？\n]{0,12}(?:指令|指示|提示|规则|要求|命令)|系统提示词?|你(?:现在)?是(?:一个)?(?:人工智能|AI|语言模型|助手)",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"<script|javascript:|\bfunction\s*\w*\(|\bdef\s+\w+\(|\bimport\s+(?:os|sys)\b|\bselect\s+[\w*, ]+\s+from\s+\w+|\bdrop\s+table"
    r"|\{\{.*?\}\}|\$\(|=>\s*\{|\beval\(|\bcurl\s+-|\brm\s+-rf|```",
    re.IGNORECASE,
)
_CONTACT = re.compile(
    r"https?://|\bwww\.|\b[\w-]+\.(?:com|net|org|cn|shop|io)\b|[\w.+-]+@[\w-]+\.\w|(?:微信|QQ|加v|WeChat|whatsapp)\s*[:：号]?\s*\w{4}"
    r"|(?<![\w-])(?:\+\d{1,3}[\s-]?)?(?:\(\d{3}\)\s?|\d{3}[\s.-])\d{3}[\s.-]\d{4}(?!\d)|(?<!\d)1[3-9]\d{9}(?!\d)|(?<!\d)400[- ]?\d{3}[- ]?\d{4}",
    re.IGNORECASE,
)
# What a shop says of itself.
_SHOP_TALK = re.compile(
    r"(?:negative|positive|leave|your|good|bad) feedback|customer (?:service|support)|contact us|e-?mail us|message us|by message"
    r"|(?:our|my|this) (?:store|shop|warehouse)\b|welcome to|free shipping|shipping (?:takes|within|is|time|from|policy|cost)"
    r"|day shipping|\bships? (?:fast|within|from|safely from)|five stars|leave (?:a )?review|your satisfaction|satisfaction guarantee"
    r"|money back|see (?:the )?title|as pictured|as (?:the )?picture|picture may differ|click (?:here|on)|add to cart"
    r"|buy (?:it )?now|order (?:now|today)|our other (?:items|offers)|due to (?:the )?(?:light|monitor)|because of the light"
    r"|have not been evaluated|hot sale|thank you for"
    r"|客服|好评|差评|包邮|店铺|小店|本店|光临|发货|快递|退换|退货|七天|色差|优惠|下单|收藏|亲[，,]|爆款|正品|热销|特价|厂家直销|限时|清仓|促销",
    re.IGNORECASE,
)
_OPINION = re.compile(
    r"\b(?:i|i'm|i've|my|me|we|our|us|you|he|she|husband|wife|recommend\w*|disappoint\w*|love[sd]?|hate[sd]?|happy|great|good"
    r"|excellent|terrible|worst|best|perfect|awesome|poor|nice|star|stars|price|money|worth|buy|bought|delivery|arrived|shipp\w+"
    r"|seller|return\w*|sent|average|trouble|surprised|fine)\b"
    r"|[我你您]|推荐|失望|喜欢|满意|好评|物流|快递|回购|价格|价位|退货|浪费|后悔|不错|很好|特别好|很差|糟糕|很棒|没得挑|超出预期|客服|一般|能用",
    re.IGNORECASE,
)
_END = re.compile(r"(?<=[!?。！？；;])\s*|(?<=[.])\s+(?=[^a-z])|(?<=[a-z)][.])(?=[A-Z][a-z])|\s*[\n\r|•●■★▪◆]+\s*")
_CUT_SHORT = re.compile(r"\s*(?:\.{2,}|…+)\s*$")
_BLOCKS = re.compile(r"(?:\s*<\s*(?:br|/p|/li|/tr|/div|/h\d|li|p|td|/td|table|ul)\b[^<>]{0,500}>\s*)+", re.IGNORECASE)
# A line that goes on in the next one, as markup in the middle of a sentence leaves it, is no sentence.
_NEW_LINE = re.compile(r"(?<=[.!?:;。！？；：)])\s*\n\s*|\s*\n\s*(?=[A-Z0-9•*-])|\n\s*\n")
_HAN_GAP = re.compile(f"(?<=[{HAN}，。、]) (?=[{HAN}])")
_BROKEN_TAG = re.compile(r"<[a-zA-Z/!][^<>]*$|^[^<>]{0,80}=\s*[\"'][^<>]*>")
_TORN = re.compile(r"(?:^|(?<=[a-z] ))[b-hj-wyz](?= [a-z]|[.]?$)")  # a letter of a word that markup cut in two
# Chinese punctuation, which NFKC made narrow.
_HALF_WIDTH = re.compile(f"(?<=[{HAN}])[,:;!?](?! )|[,:;!?](?=[{HAN}])")
_FULL_WIDTH = str.maketrans(",:;!?", "，：；！？")
_BAD_CHARACTERS = re.compile("[\x00\ud800-\udfff]")


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


@dataclass(frozen=True)
class Phrasebook:
    """What a catalogue teaches about saying things.

    Attributes:
        templates: By language and attribute name ("" for any), sentences with `{name}` and `{value}`, the commonest first.
        boilerplate: Sentences that products of unlike kinds share.
    """

    templates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    boilerplate: frozenset[str] = frozenset()

    @classmethod
    def learn(cls, products: Sequence[Product]) -> Phrasebook:
        """Read the descriptions of a catalogue.

        A template is a sentence that says an attribute and claims nothing beside it, seen of three products.
        """
        groups: dict[str, set[tuple[str, str]]] = defaultdict(set)
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for product in products:
            for sentence in sentences(product.description):
                groups[plainly(sentence)].add((product.brand, "".join(product.categories[-1:])))
                for name, value in product.attributes:
                    _count_templates(counts, sentence, name, value)
        templates = {
            key: tuple(said for said, seen in found.most_common(_MOST_PHRASINGS) if seen >= _LEARNED_FROM)
            for key, found in counts.items()
        }
        shared = frozenset(
            said
            for said, kinds in groups.items()
            if said and min(len({brand for brand, _ in kinds}), len({leaf for _, leaf in kinds})) >= _BOILERPLATE_GROUPS
        )
        return cls({key: found for key, found in templates.items() if found}, shared)

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` takes."""
        return {"templates": {key: list(found) for key, found in sorted(self.templates.items())}, "boilerplate": sorted(self.boilerplate)}

    @classmethod
    def from_json(cls, saved: dict[str, object]) -> Phrasebook:
        """Return what was saved."""
        templates, boilerplate = saved["templates"], saved["boilerplate"]
        if not isinstance(templates, dict) or not isinstance(boilerplate, list):
            raise ValueError("Not a phrasebook")
        return cls({key: tuple(found) for key, found in templates.items()}, frozenset(boilerplate))


def _count_templates(counts: dict[str, Counter[str]], sentence: str, name: str, value: str) -> None:
    """Count a sentence that says an attribute, if it claims nothing else."""
    if not value or value not in sentence or len(sentence) > 80:
        return
    said = sentence.replace(value, "{value}", 1)
    if name and name in said.replace("{value}", ""):
        said = said.replace(name, "{name}", 1)
    elif name and name.capitalize() in said:
        said = said.replace(name.capitalize(), "{Name}", 1)
    rest = read(said.replace("{value}", " ").replace("{name}", " ").replace("{Name}", " "))
    slot = lexicon.SLOT_OF_LABEL.get(name.lower(), "-")
    if "{" not in said or any(not _frames(token.key, slot) for token in rest.content()):
        return
    lang = "zh" if detect_language(sentence) == "zh" else "en"
    counts[f"{lang} {name}"][said] += 1
    if "ame}" in said:
        counts[f"{lang} "][said] += 1


def _frames(key: str, slot: str) -> bool:
    return key in _FRAME_KEYS or (slot != "-" and lexicon.SLOT_OF_LABEL.get(key) == slot)


_FRAME_KEYS = frozenset(token.key for word in sorted(lexicon.CARRIERS_EN) for token in read(word).tokens)


def plainly(sentence: str) -> str:
    """Return what two sentences are compared by: letters and digits in lower case."""
    return re.sub(r"[\W_]+", "", normalise(sentence).lower())


def sentences(text: str) -> list[str]:
    """Return the sentences of a text without markup, as they are written."""
    lines = html.unescape(_BLOCKS.sub("\n", _BROKEN_TAG.sub(" ", text)))
    clean = _HAN_GAP.sub("", normalise(_NEW_LINE.sub("•", lines)))
    return [part for part in (piece.strip() for piece in _END.split(clean)) if part]


def ground(product: Product, phrasebook: Phrasebook | None = None) -> Grounding:
    """Collect what can be said of a product; never raises for odd text, but names the reason why nothing can be."""
    reason = _refuse(product)
    if reason:
        return Grounding(product, reason)
    book = phrasebook or Phrasebook()
    lang = "zh" if detect_language(product.title) == "zh" else "en"
    facts = tuple(fact for fact in extract_facts(product) if _speaks(fact.value, lang))
    collected = _Collected(product, lang, facts)
    collected.add("title", _openings(product, lang))
    kept = _saved(product, lang, book)
    for sentence in kept:
        collected.add("description", [sentence])
    for sentence in _from_reviews(product, lang):
        collected.add("review", [sentence])
    _say_facts(collected, book)
    if not collected.slots:
        return Grounding(product, "no_facts", lang, facts)
    # A fact that stood in a sentence which is not worth keeping cannot be said alone: it is no fact of the new text.
    sayable = tuple(fact for fact in facts if fact.source != "description" or fact.key in collected.said or fact.name)
    return Grounding(product, "", lang, sayable, tuple(collected.slots))


def compose(grounding: Grounding, choice: Sequence[int] = (), longest: int = LONGEST_TEXT) -> str:
    """Return a text of the phrasings chosen for each place, the first where none is chosen; "" where nothing can be said.

    Past `longest` characters, sentences of the old text and of reviews that say no fact go first, the last ones before
    the others.
    """
    picked = [slot[choice[place] if place < len(choice) else 0] for place, slot in enumerate(grounding.slots)]
    for least in (0, 1):
        place = len(picked) - 1
        while place > 0 and sum(len(sentence.text) + 1 for sentence in picked) > longest:
            sentence = picked[place]
            others = frozenset().union(*(other.facts for other in picked if other is not sentence))
            if sentence.origin in {"description", "review"} and len(sentence.facts - others) <= least * len(sentence.facts):
                del picked[place]
            place -= 1
    return ("" if grounding.lang == "zh" else " ").join(sentence.text for sentence in picked)


def verify(text: str, grounding: Grounding) -> tuple[str, Support]:
    """Return "" for a text that may be published or the reason why not, and what the check found.

    Reasons: that of the grounding, `unsupported`, `low_coverage`, `not_better` for a text that says what the old one said.
    """
    support = check(text, grounding.product, grounding.facts)
    if grounding.reason:
        return grounding.reason, support
    if support.unsupported or not support.words:
        return "unsupported", support
    if support.coverage < LEAST_COVERAGE:
        return "low_coverage", support
    if plainly(text) in {plainly(grounding.product.description), plainly(grounding.product.title)}:
        return "not_better", support
    return "", support


def _refuse(product: Product) -> str:
    """Return why a product's data are not to be worked with, or ""."""
    everything = "\n".join([product.title, product.brand, *product.categories, *(v for _, v in product.attributes)])
    if _BAD_CHARACTERS.search(everything + product.description):
        return "bad_characters"
    if len(product.description) > LONGEST_ORIGINAL:
        return "too_long"
    plain = normalise(everything + "\n" + product.description)
    if not any(token.kind in CONTENT for token in read(normalise(everything)).tokens):
        return "no_facts"
    if _INSTRUCTION.search(everything + "\n" + product.description) or _CODE.search(plain) or "<script" in product.description.lower():
        return "instruction_like"
    if _CONTACT.search(plain):
        return "contact_like"
    if _is_foreign(product):
        return "foreign_title"
    if conflicts(product):
        return "contradicting_facts"
    return ""


def _is_foreign(product: Product) -> bool:
    """Tell whether a title is in another language than the text and nothing else is in the title's."""
    title = detect_language(product.title)
    text = detect_language(product.description)
    if title not in {"en", "zh"}:
        return any(character.isalpha() for character in product.title)
    if text in {"und", title}:
        return False
    others = [*product.categories, *(part for pair in product.attributes for part in pair)]
    return not any(detect_language(other) == title for other in others)


def _speaks(text: str, lang: str) -> bool:
    """Tell whether a value can stand in a text of a language: Latin names can stand in Chinese."""
    return detect_language(text) != "zh" or lang == "zh"


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
            support = check(text, self.product, ())
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


def _finish(text: str, lang: str) -> str:
    text = text.strip().rstrip(",，、:：-–;& ")
    if not text:
        return ""
    if lang == "zh":
        text = _HALF_WIDTH.sub(lambda found: found[0].translate(_FULL_WIDTH), text)
    if text[-1] not in ".!?。！？；;":
        text += "。" if lang == "zh" else "."
    return text[0].upper() + text[1:]


def _openings(product: Product, lang: str) -> list[str]:
    """Return the title as a sentence, first with the brand if it lacks it."""
    title = normalise(product.title).rstrip(". 。")
    brand = normalise(product.brand)
    plain = _finish(title, lang)
    if brand and title and brand.lower() not in title.lower() and _speaks(brand, lang):
        return [_finish(f"{brand} {title}", lang), plain]
    return [plain]


def _saved(product: Product, lang: str, book: Phrasebook) -> list[str]:
    """Return the informative sentences of the old text, cleaned, in order."""
    text = normalise(_BROKEN_TAG.sub(" ", product.description))
    if detect_language(text) not in {lang, "und"}:
        return []
    found = sentences(product.description)
    kept: list[str] = []
    seen: set[str] = set()
    title = {token.key for token in read(product.title).content()}
    stated = [fact for fact in extract_facts(product) if fact.slot not in {"brand", "category"}]
    for place, sentence in enumerate(found):
        if place == len(found) - 1 and (_CUT_SHORT.search(sentence) or sentence[-1] not in ".!?。！？；;)）"):
            sentence = _without_fragment(sentence, lang, is_cut=bool(_BLOCKS.search(product.description)))
        reading = read(sentence)
        sentence = _without_stuffing(sentence)
        if not sentence or (_TORN.search(sentence) and _BLOCKS.search(product.description)):
            continue
        if not _is_informative(sentence, reading, title, book, stated) or plainly(sentence) in seen:
            continue
        seen.add(plainly(sentence))
        kept.append(_finish(sentence, lang))
    return kept


def _is_informative(
    sentence: str, reading: Reading, title: set[str], book: Phrasebook, facts: Sequence[Fact]
) -> bool:
    keys = [token.key for token in reading.content()]
    if len(keys) < _LEAST_WORDS or _SHOP_TALK.search(sentence):
        return False
    if len(reading.tokens[-1].key) == 1 and reading.tokens[-1].key.isalpha() and not reading.tokens[-1].is_han:
        return False  # a word that markup cut in two
    if plainly(sentence) in book.boilerplate and not any(is_said(fact, reading) for fact in facts):
        return False
    return bool(set(keys) - title)


def _without_fragment(sentence: str, lang: str, *, is_cut: bool) -> str:
    """Return a sentence that was cut short up to its last whole clause, or its last whole word."""
    if not is_cut and not _CUT_SHORT.search(sentence):
        return sentence
    sentence = _CUT_SHORT.sub("", sentence)
    if lang == "zh":
        return re.split(r"[,，;；](?!.*[,，;；])", sentence)[0] if re.search("[,，;；]", sentence) else ""
    tokens = list(read(sentence).tokens)[:-1]
    while tokens and tokens[-1].kind not in CONTENT:
        tokens.pop()
    return sentence[: tokens[-1].end] if sum(token.kind in CONTENT for token in tokens) >= _LEAST_FRAGMENT else ""


def _without_stuffing(sentence: str) -> str:
    """Return what stands before the first pair of words that comes back three times, "" for what is none else."""
    tokens = [token for token in read(sentence).tokens if token.kind in CONTENT]
    pairs = Counter(zip((t.key for t in tokens), (t.key for t in tokens[1:]), strict=False))
    singles = Counter(token.key for token in tokens)
    stuffed = {pair for pair, seen in pairs.items() if seen >= 3}
    often = {key for key, seen in singles.items() if seen >= 4 and seen >= 0.2 * len(tokens)}
    for place, (token, following) in enumerate(zip(tokens, [*tokens[1:], None], strict=False)):
        if token.key in often or (following is not None and (token.key, following.key) in stuffed):
            if re.search(r"[,;.()，；。（）]", sentence[token.start : tokens[-1].start]):
                return sentence  # a list
            return sentence[: token.start].rstrip(" ,，、") if place >= _LEAST_FRAGMENT else ""
    return sentence


def _from_reviews(product: Product, lang: str) -> list[str]:
    """Return sentences of reviews that state something the shop's own data bear out or shoppers ask for."""
    own = replace(product, reviews=())
    wanted = {part.key for aspect in product.aspects for part in read(aspect).tokens}
    known = {token.key for fact in extract_facts(own) for token in read(fact.value).content()}
    kept: list[str] = []
    for review in product.reviews:
        for sentence in sentences(review):
            reading = read(sentence)
            keys = {token.key for token in reading.content()}
            if detect_language(sentence) != lang or _OPINION.search(sentence) or _SHOP_TALK.search(sentence):
                continue
            if _CONTACT.search(sentence) or _INSTRUCTION.search(sentence) or _CODE.search(sentence) or "?" in sentence:
                continue
            doubted = [claim for claim in check(sentence, own, ()).unsupported if claim.reason != "word"]
            if len(keys) >= 3 and keys & (wanted | known) and not doubted:
                kept.append(_finish(sentence, lang))
            if len(kept) == _REVIEW_SENTENCES:
                return kept
    return kept


def _say_facts(collected: _Collected, book: Phrasebook) -> None:
    """Say every attribute by its name, and what the sentences so far leave out."""
    product, lang = collected.product, collected.lang
    for name, value in product.attributes:
        is_named = any(plainly(name) in plain and plainly(value) in plain for plain in collected.plain)
        if value.strip() and not is_named and _speaks(name, lang) and _speaks(value, lang):
            collected.add("fact", _phrase(name.strip(), normalise(value), lang, book))
    for fact in collected.facts:
        if fact.slot not in {"brand", "category"} and fact.name and fact.key not in collected.said:
            collected.add("fact", _phrase(fact.name, fact.value, lang, book))
    brand = normalise(product.brand)
    if brand and any(fact.slot == "brand" and fact.key not in collected.said for fact in collected.facts):
        collected.add("fact", [f"品牌：{brand}。"] if lang == "zh" else [f"Brand: {brand}.", f"From {brand}."])
    categories = [normalise(name) for name in product.categories if name.strip() and _speaks(name, lang)]
    if any(fact.slot == "category" and fact.key not in collected.said for fact in collected.facts):
        names = list(dict.fromkeys(categories))
        if lang == "zh":
            collected.add("fact", [f"类目：{'、'.join(names)}。", f"属于{'、'.join(names)}类目。"])
        else:
            collected.add("fact", [f"Category: {', '.join(names)}.", f"The category is {', '.join(names)}."])


def _phrase(name: str, value: str, lang: str, book: Phrasebook) -> list[str]:
    """Return phrasings of an attribute, those learned from the catalogue behind the plain one."""
    plain = (
        [f"{name}：{value}。", f"{name}为{value}。"]
        if lang == "zh"
        else [f"{name}: {value}.", f"The {name.lower()} is {value}."]
    )
    learned = [
        template.replace("{name}", name).replace("{Name}", name.capitalize()).replace("{value}", value)
        for key in (f"{lang} {name}", f"{lang} ")
        for template in book.templates.get(key, ())
    ]
    return [_finish(text, lang) for text in [*plain, *learned]]
