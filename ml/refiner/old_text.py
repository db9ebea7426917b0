"""What is worth keeping of an old description: its sentences without markup, boilerplate, stuffing and fragments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ml.refiner.facts import Fact, extract_facts, is_said
from ml.refiner.markup import shown, visible
from ml.refiner.product import Product
from ml.refiner.reading import CONTENT, Reading, read
from ml.refiner.torn import torn
from ml.text import detect_language, normalise
from ml.text.clean import HAN

_LEAST_WORDS = 2
_LEAST_FRAGMENT = 3
# What a shop says of itself.
_SHOP_TALK = re.compile(
    r"(?:negative|positive|leave|your|good|bad) feedback|customer (?:service|support)|contact us|e-?mail us|message us"
    r"|by message|(?:our|my|this) (?:store|shop|warehouse)\b|welcome to|free shipping"
    r"|shipping (?:takes|within|is|time|from|policy|cost)|day shipping|\bships? (?:fast|within|from|safely from)"
    r"|five stars|leave (?:a )?review|your satisfaction|satisfaction guarantee|money back|see (?:the )?title"
    r"|as pictured|as (?:the )?picture|picture may differ|click (?:here|on)|add to cart|buy (?:it )?now"
    r"|order (?:now|today)|our other (?:items|offers)|due to (?:the )?(?:light|monitor)|because of the light"
    r"|have not been evaluated|hot sale|thank you for"
    r"|客服|好评|差评|包邮|店铺|小店|本店|光临|发货|快递|退换|退货|七天|色差|优惠|下单|收藏|亲[，,]|爆款|正品|热销|特价"
    r"|厂家直销|限时|清仓|促销",
    re.IGNORECASE,
)
_END = re.compile(r"(?<=[!?。！？；;])\s*|(?<=[.])\s+(?=[^a-z])|(?<=[a-z)][.])(?=[A-Z][a-z])|\s*[\n\r|•●■★▪◆]+\s*")
_CUT_SHORT = re.compile(r"\s*(?:\.{2,}|…+)\s*$")
_HAN_GAP = re.compile(f"(?<=[{HAN}，。、]) (?=[{HAN}，。、；！？])")
# A text that ends in a tag which opens something was cut.
_ENDS_OPEN = re.compile(r"<(?!/)[^<>]{1,500}>?(?:\s|&\w{2,6};)*$")
# Chinese punctuation, which NFKC made narrow.
_HALF_WIDTH = re.compile(f"(?<=[{HAN}])[,:;!?](?! )|[,:;!?](?=[{HAN}])")
_FULL_WIDTH = str.maketrans(",:;!?", "，：；！？")


def plainly(sentence: str) -> str:
    """Return what two sentences are compared by: letters and digits in lower case."""
    return re.sub(r"[\W_]+", "", normalise(sentence).lower())


def sentences(text: str) -> list[str]:
    """Return the sentences of a text without markup, as they are written."""
    lines = [_HAN_GAP.sub("", normalise(line)) for line in visible(text).text.split("\n")]
    return [part for line in lines for part in (piece.strip() for piece in _END.split(line)) if part]


def is_shop_talk(sentence: str) -> bool:
    """Tell whether a sentence speaks of the shop instead of the product."""
    return bool(_SHOP_TALK.search(sentence))


def finish(text: str, lang: str) -> str:
    """Return a sentence with its capital and its full stop, Chinese ones with their wide punctuation; "" for none."""
    text = text.strip().rstrip(",，、:：-–;& ")
    if not text:
        return ""
    if lang == "zh":
        text = _HALF_WIDTH.sub(lambda found: found[0].translate(_FULL_WIDTH), text)
    if text[-1] not in ".!?。！？；;":
        text += "。" if lang == "zh" else "."
    return text[0].upper() + text[1:]


def language_of(product: Product) -> str:
    """Return the language of a new text: `zh` under a Chinese title, else `en`."""
    return "zh" if detect_language(product.title) == "zh" else "en"


def speaks(text: str, lang: str) -> bool:
    """Tell whether a value can stand in a text of a language: Latin names can stand in Chinese."""
    return detect_language(text) != "zh" or lang == "zh"


def saved(product: Product, lang: str, boilerplate: frozenset[str] = frozenset()) -> list[str]:
    """Return the informative sentences of the old text, cleaned, in order.

    A sentence of the boilerplate stays where it states a fact, so that the same facts are kept whatever the catalogue.
    """
    if detect_language(shown(product.description)) not in {lang, "und"}:
        return []
    found = sentences(product.description)
    kept: list[str] = []
    seen: set[str] = set()
    title = {token.key for token in read(product.title).content()}
    stated = [fact for fact in extract_facts(product) if fact.slot not in {"brand", "category"}]
    for place, sentence in enumerate(found):
        if place == len(found) - 1 and (_CUT_SHORT.search(sentence) or sentence[-1] not in ".!?。！？；;)）"):
            sentence = _without_fragment(sentence, lang, is_cut=bool(_ENDS_OPEN.search(product.description)))
        reading = read(sentence)
        sentence = _without_stuffing(sentence)
        if not sentence or any(torn(sentence.lower())):
            continue
        if not _is_informative(sentence, reading, title, boilerplate, stated) or plainly(sentence) in seen:
            continue
        seen.add(plainly(sentence))
        kept.append(finish(sentence, lang))
    return kept


def _is_informative(
    sentence: str, reading: Reading, title: set[str], boilerplate: frozenset[str], facts: Sequence[Fact]
) -> bool:
    keys = [token.key for token in reading.content()]
    if len(keys) < _LEAST_WORDS or is_shop_talk(sentence):
        return False
    if len(reading.tokens[-1].key) == 1 and reading.tokens[-1].key.isalpha() and not reading.tokens[-1].is_han:
        return False  # a word that markup cut in two
    if plainly(sentence) in boilerplate and not any(is_said(fact, reading) for fact in facts):
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
