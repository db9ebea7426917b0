"""Poor texts made of good ones, so that what a better text brings can be measured against the true one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ml.refiner.product import Product
from ml.text import detect_language

KINDS = ("dropped", "truncated", "title", "html", "stuffed", "language", "boilerplate")
_BOILERPLATE = {
    "en": (
        "Welcome to our shop.",
        "Please contact us before you leave feedback.",
        "Orders leave our warehouse within two working days.",
        "The picture may differ from the item because of the light.",
        "Your satisfaction is our first aim.",
        "See our other offers for more.",
        "Five stars help us a lot.",
        "Ask us by message if anything is unclear.",
    ),
    "zh": (
        "欢迎来到小店。",
        "有问题先联系客服，请不要直接给差评。",
        "付款后四十八小时内发货。",
        "拍摄光线不同，实物与图片可能有色差。",
        "亲，喜欢的话收藏一下店铺哦。",
        "满意请给五星好评。",
        "支持七天无理由退货。",
        "更多优惠请看店铺首页。",
    ),
}
_STUFFING = {
    "en": ("best", "cheap", "hot sale", "free shipping", "top quality", "new", "gift", "deal", "wholesale", "discount"),
    "zh": ("爆款", "包邮", "特价", "新款", "热卖", "正品", "厂家直销", "促销", "网红", "清仓"),
}
_FOREIGN = {
    "en": ("这款商品做工细致，日常使用方便，适合家庭和办公场所。", "材料结实，容易清洁，存放不占地方。"),
    "zh": ("A well-made piece for every day, at home and in the office.", "Sturdy, easy to clean and quick to store."),
}


def degrade(products: Sequence[Product], *, seed: int = 0, kinds: Sequence[str] = KINDS) -> tuple[list[Product], list[str]]:
    """Spoil the description of each product and return them with the kind of each.

    The kind and everything else drawn depend on the seed and the product's id alone. A text in the wrong language is
    that of another product of the list in that language, where there is one.
    """
    foreign = {
        lang: [product.description for product in products if detect_language(product.description) not in {lang, "und"}]
        for lang in ("en", "zh")
    }
    spoilt, drawn = [], []
    for product in products:
        chance = _chance(product.item_id, seed)
        kind = kinds[int(chance.integers(len(kinds)))]
        spoilt.append(replace(product, description=_spoil(product, kind, chance, foreign)))
        drawn.append(kind)
    return spoilt, drawn


def _chance(item_id: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(item_id.encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def _spoil(product: Product, kind: str, chance: np.random.Generator, foreign: dict[str, list[str]]) -> str:
    lang = "zh" if detect_language(product.title + product.description) == "zh" else "en"
    makers: dict[str, Callable[[], str]] = {
        "dropped": lambda: "",
        "truncated": lambda: _truncated(product.description, chance),
        "title": lambda: " ".join([product.title] * int(chance.integers(1, 3))),
        "html": lambda: _with_debris(product.description, chance),
        "stuffed": lambda: _stuffed(product, lang, chance),
        "language": lambda: _foreign(foreign[lang] or list(_FOREIGN[lang]), chance),
        "boilerplate": lambda: _boilerplate(product.description, lang, chance),
    }
    return makers[kind]()


def _truncated(text: str, chance: np.random.Generator) -> str:
    return text[: int(len(text) * chance.uniform(0.15, 0.4))].rstrip(" .。，,") + "..."


def _with_debris(text: str, chance: np.random.Generator) -> str:
    """Return the text with tags and entities between its words, cut in the middle of the last tag."""
    pieces = ("<br/>", "</p><p>", "&nbsp;", "<b>", "</span>", "&amp;nbsp;", '<font size="2">', "<li>")
    step = max(12, len(text) // 12)
    parts = []
    for start in range(0, len(text), step):
        part = text[start : start + step]
        cut = part.find(" ") + 1 or len(part)
        parts += [part[:cut], pieces[int(chance.integers(len(pieces)))], part[cut:]]
    return '<div class="desc"><p style="font-size:12px">' + "".join(parts) + '<table width="7'


def _stuffed(product: Product, lang: str, chance: np.random.Generator) -> str:
    """Return a third of the text and the first words of the title among words that sell."""
    head = product.title.split()[:2] if lang == "en" else [product.title[:4]]
    words = _STUFFING[lang]
    stuffing = [" ".join([*head, words[int(chance.integers(len(words)))]]) for _ in range(9)]
    return f"{product.description[: len(product.description) // 3]} {' '.join(stuffing)}".strip()


def _foreign(texts: list[str], chance: np.random.Generator) -> str:
    return texts[int(chance.integers(len(texts)))]


def _boilerplate(text: str, lang: str, chance: np.random.Generator) -> str:
    """Return a quarter of the text behind four of the shop's sentences, or those alone."""
    said = [_BOILERPLATE[lang][place] for place in chance.permutation(len(_BOILERPLATE[lang]))[:4]]
    kept = text[: len(text) // 4] if chance.random() < 0.5 else ""
    return " ".join([*said, kept]).strip() if lang == "en" else "".join([*said, kept])
