"""False claims planted into true texts, so that it can be counted how many the checker catches."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ml.refiner import lexicon
from ml.refiner.product import Product, sources
from ml.refiner.reading import read
from ml.text import detect_language

# Brands, materials, colours, benefits, certificates and promises; one is planted only where no source has its words.
INVENTED = {
    "en": {
        "brand": ["It is made by Philips.", "From Bosch.", "A genuine Makita part.", "Compatible with Dyson."],
        "material": ["Made of titanium.", "The case is walnut.", "Genuine cashmere.", "With a platinum rim."],
        "colour": ["The colour is turquoise.", "It comes in magenta.", "Also in lavender."],
        "benefit": ["Hypoallergenic and odour-killing.", "It soothes arthritis.", "Unbreakable.",
                    "The cheapest on the market."],
        "certificate": ["FDA approved.", "It is UL listed.", "ISO 13485 certified.", "OEKO-TEX tested."],
        "number": ["Lasts 97 years.", "Weighs 913 grams.", "Holds up to 77 people.",
                   "With a ninety-day guarantee.", "Ｗｉｔｈ ８７ ｍｍ．"],
    },
    "zh": {
        "brand": ["飞利浦出品。", "由博世制造。", "品牌为戴森。"],
        "material": ["采用钛金属。", "材质为羊绒。", "胡桃木外壳。"],
        "colour": ["颜色为青绿色。", "另有玫瑰红。", "橘黄色外观。"],
        "benefit": ["抗过敏又祛味。", "缓解关节炎。", "永不损坏。", "全网最便宜。"],
        "certificate": ["通过欧盟认证。", "获得国家专利。", "军工级检测。"],
        "number": ["质保九十七年。", "重913克。", "可容纳七十七人。", "厚度为８７毫米。"],
    },
}  # fmt: skip
_CARRIERS = {token.key for word in lexicon.CARRIERS_EN for token in read(word).tokens}
_OTHER_UNITS = {
    "cm": "mm",
    "mm": "cm",
    "inch": "ft",
    "kg": "g",
    "g": "kg",
    "ml": "L",
    "l": "ml",
    "hour": "days",
    "gb": "TB",
}
_OTHER_UNITS_ZH = {
    "cm": "毫米",
    "mm": "厘米",
    "kg": "克",
    "g": "千克",
    "ml": "升",
    "l": "毫升",
    "hour": "天",
    "year": "个月",
}


def planted(product: Product, truth: str, chance: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Yield kinds of false claims, and a product's text with each of them in it.

    Args:
        product: Its sources decide what is false.
        truth: A true text of it.
        chance: Draws the claims.
    """
    lang = "zh" if detect_language(truth) == "zh" else "en"
    known = " ".join(sources(product).values()).lower()
    for kind, claims in INVENTED[lang].items():
        claim = claims[int(chance.integers(len(claims)))]
        news = [
            token
            for token in read(claim).content()
            if claim[token.start : token.end].lower() not in known
            and token.key not in _CARRIERS
            and token.key not in lexicon.SLOT_OF_LABEL
        ]
        if news:
            yield kind, f"{truth} {claim}" if lang == "en" else truth + claim
    yield from _wrong_numbers(product, truth, lang)
    yield from _turned_round(truth, lang)


def _wrong_numbers(product: Product, truth: str, lang: str) -> Iterator[tuple[str, str]]:
    keys = {token.key for text in sources(product).values() for token in read(text).content()}
    for token in read(truth).content():
        if token.kind != "quantity" or token.number[:1] in "<>~" or not token.unit:
            continue
        written = truth[token.start : token.end]
        digits = re.search(r"\d+(?:\.\d+)?$|\d+(?:\.\d+)?(?=\D)", written)
        if digits and digits.start() == 0:
            wrong = f"{float(digits[0]) + 13:g}"
            wide = wrong.translate(str.maketrans("0123456789", "０１２３４５６７８９"))
            if f"{wrong} {token.unit}" not in keys:
                rest = written[digits.end() :]
                yield "wrong number", truth[: token.start] + wrong + rest + truth[token.end :]
                yield "wrong wide number", truth[: token.start] + wide + rest + truth[token.end :]
            unit = (_OTHER_UNITS if lang == "en" else _OTHER_UNITS_ZH).get(token.unit)
            if unit and rf"{token.number} {lexicon.UNITS[unit.lower()]}" not in keys:
                yield "wrong unit", f"{truth[: token.start]}{digits[0]} {unit}{truth[token.end :]}"
        for right, wrong in (("two-", "three-"), ("两年", "三年"), ("五年", "六年"), ("five ", "six ")):
            if written.startswith(right) and f"{read(wrong + written[len(right) :]).tokens[0].key}" not in keys:
                yield "wrong number in words", truth[: token.start] + wrong + written[len(right) :] + truth[token.end :]


def _turned_round(truth: str, lang: str) -> Iterator[tuple[str, str]]:
    turns = (
        [
            (r"\b(is|are|can|does|will) (?!not|no\b)(?=[a-z]{4})", r"\1 not "),
            (r"\b(not|never|without) (?=[a-z]{4})", ""),
            (r"\bwith (?=[a-z]{4})", "without "),
        ]
        if lang == "en"
        else [
            (r"(?<=[\u4e00-\u9fff])不(?=[\u4e00-\u9fff]{2})", ""),
            (r"(?<=也)(?=[\u4e00-\u9fff]{2})", "不"),
            (r"采用(?=[\u4e00-\u9fff]{2})", "不采用"),
        ]
    )
    for pattern, instead in turns:
        turned = re.sub(pattern, instead, truth, count=1)
        if turned != truth:
            yield "negation", turned
