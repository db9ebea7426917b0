"""Products that no text is written about, and why: what is odd is left to people."""

from __future__ import annotations

import re
from functools import lru_cache

from ml.refiner.facts import conflicts
from ml.refiner.markup import shown
from ml.refiner.product import Product
from ml.refiner.reading import CONTENT, read
from ml.text import detect_language, normalise

# The longest description that a shop of ours has is 2,000 characters long; far beyond, a text is no description.
LONGEST_ORIGINAL = 8_000
# What speaks to a machine, not to a shopper.
_INSTRUCTION = re.compile(
    r"(?:ignore|disregard|forget|override)\W+(?:\w+\W+){0,4}(?:instruction|prompt|rule|direction|message)s?"
    r"|(?:system|developer)\s*(?:prompt|message)|jailbreak|<\|[a-z_]+\|>|\[/?inst\]"
    r"|you are (?:now )?(?:an? )?(?:ai|assistant|language model|chatbot|chatgpt)|as an? (?:ai|language model)"
    r"|###\s*(?:system|instruction|user|assistant)|(?:^|\n)\s*(?:system|assistant|user)\s*:"
    r"|(?:reply|respond|answer|output|print|say)\s+(?:only|exactly|with)\b"
    r"|(?:忽略|无视|忘记|忘掉)[^。！？\n]{0,12}(?:指令|指示|提示|规则|要求|命令)|系统提示词?"
    r"|你(?:现在)?是(?:一个)?(?:人工智能|AI|语言模型|助手)",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"<script|javascript:|\bfunction\s*\w*\(|\bdef\s+\w+\(|\bimport\s+(?:os|sys)\b|\bselect\s+[\w*, ]+\s+from\s+\w+"
    r"|\bdrop\s+table|\{\{.*?\}\}|\$\(|=>\s*\{|\beval\(|\bcurl\s+-|\brm\s+-rf|```",
    re.IGNORECASE,
)
_CONTACT = re.compile(
    r"https?://|\bwww\.|\b[\w-]+\.(?:com|net|org|cn|shop|io)\b|[\w.+-]+@[\w-]+\.\w"
    r"|(?:微信|QQ|加v|We\s?Chat|Whats\s?App)\s*[:：号]?\s*\w{4}"
    r"|(?<![\w-])(?:\+\d{1,3}[\s-]?)?(?:\(\d{3}\)\s?|\d{3}[\s.-])\d{3}[\s.-]\d{4}(?!\d)"
    r"|(?<!\d)1[3-9]\d{9}(?!\d)|(?<!\d)400[- ]?\d{3}[- ]?\d{4}",
    re.IGNORECASE,
)
_MOBILE = re.compile(r"(?<!\d)1[3-9]\d{9}(?!\d)")
_DIGIT_GAP = re.compile(r"(?<=\d)[ -](?=\d)")
_BAD_CHARACTERS = re.compile("[\x00\ud800-\udfff]")


@lru_cache(maxsize=1024)
def refusal(product: Product) -> str:
    """Return why a product's data are not to be worked with, or "".

    Reasons: `bad_characters`, `too_long`, `no_facts`, `instruction_like`, `contact_like`, `foreign_title`,
    `contradicting_facts`.
    """
    named = [part for pair in product.attributes for part in pair]
    everything = "\n".join([product.title, product.brand, *product.categories, *named])
    if _BAD_CHARACTERS.search(everything + product.description):
        return "bad_characters"
    if max(len(product.description), len(everything)) > LONGEST_ORIGINAL:
        return "too_long"
    given = [everything, product.description]
    # As it is written, and as a shopper would see it: markup may part what is one word.
    seen = "\n".join([*given, *map(normalise, given), *map(shown, given)])
    if not any(token.kind in CONTENT for token in read(normalise(everything)).tokens):
        return "no_facts"
    if is_instruction(seen):
        return "instruction_like"
    if is_contact(seen):
        return "contact_like"
    if _is_foreign(product):
        return "foreign_title"
    if conflicts(product):
        return "contradicting_facts"
    return ""


def is_instruction(text: str) -> bool:
    """Tell whether a text speaks to a machine: orders to a language model, or code."""
    return bool(_INSTRUCTION.search(text) or _CODE.search(text))


def is_suspect(sentence: str) -> bool:
    """Tell whether a sentence must not be said: it speaks to a machine, or leads shoppers elsewhere."""
    return is_instruction(sentence) or is_contact(sentence)


def is_contact(text: str) -> bool:
    """Tell whether a text leads elsewhere: an address, an account, a telephone number, gaps between digits or not."""
    return bool(_CONTACT.search(text) or _MOBILE.search(_DIGIT_GAP.sub("", text)))


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
