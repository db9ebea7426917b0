"""Text as it should have been: without markup and invisible characters, and the language it is written in."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable

# Letters only, without the punctuation and the gaps of their blocks. sql/internal cuts queries by the same HAN.
HAN = "\u3400-\u4dbf\u4e00-\u9fff"
KANA_HANGUL = "\u1100-\u11ff\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff\uac00-\ud7a3"

_BLOCK = re.compile(r"<(script|style)\b[^<>]{0,500}>.{0,5000}?</\1\s*>|<!--.{0,5000}?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>")
# Controls, soft hyphen, zero-width and directional marks, lone surrogates, interlinear and replacement characters; and
# the trade marks, which NFKC would glue to the name before them ("LegoTM").
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffd\ud800-\udfff\U000e0000-\U000e0fff™®©℠]"
)
_HAN = re.compile(f"[{HAN}]")
_KANA_HANGUL = re.compile(f"[{KANA_HANGUL}]")
_LATIN = re.compile("[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]")
_LETTER = re.compile(r"[^\W\d_]")


def normalise(text: str) -> str:
    """Return the text in NFKC, without markup, invisible characters and lone surrogates, with single spaces.

    Markup that was escaped up to three times is found; a second call changes nothing.
    """
    for _ in range(4):
        before = text
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
        text = _TAG.sub(" ", _BLOCK.sub(" ", html.unescape(text)))
        text = " ".join(text.split())
        if text == before:
            break
    return text


def passage(title: str, brand: str | None, categories: Iterable[str], description: str | None) -> str:
    """Return what of a product is encoded, the most telling first, because the encoder cuts the end."""
    parts = (title, brand, " ".join(filter(None, categories)), description)
    return normalise(". ".join(part for part in parts if part))


def detect_language(text: str) -> str:
    """Return `zh`, `en` or `und`, by the scripts of the letters.

    A Chinese character weighs three Latin letters, so that a Chinese title with a Latin brand is Chinese. Any text in
    Latin letters counts as English; Japanese, Korean and other scripts are `und`, as is text without letters.
    """
    letters = len(_LETTER.findall(text))
    han, latin = len(_HAN.findall(text)), len(_LATIN.findall(text))
    if not letters or 10 * len(_KANA_HANGUL.findall(text)) > letters:
        return "und"
    others = letters - han - latin
    if 3 * han >= max(latin, 3 * others):
        return "zh"
    return "en" if latin >= others else "und"
