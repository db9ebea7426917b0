"""What a shopper sees of a text with markup, and where each character of it stands.

Markup inside of a word leaves the word whole, as a browser shows it; markup between words parts them.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ml.text import normalise
from ml.text.clean import HAN


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ESCAPED = 3
_ENTITY = re.compile(
    r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});|&nbsp|&(?:amp|lt|gt|quot|shy|copy|reg)(?![a-zA-Z;])"
    r"|&(?:n(?:bs?)?|am?|qu?o?)$"  # cut at the end
)
_MARK = re.compile(
    r"<!--.{0,5000}?-->|<(?P<code>script|style)\b[^<>]{0,500}>.{0,5000}?</(?P=code)\s*>"
    r"|<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*)[^<>]{0,500}>"
    r"|<[a-zA-Z/!][^<>]{0,500}$|\A[^<>]{0,80}=\s*[\"'][^<>]{0,500}>",  # cut at the end, or before its begin
    re.DOTALL | re.IGNORECASE,
)
# Tags that leave what is around them on one line; all others break it.
_INLINE = _listed(
    "a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd label mark nobr q s samp small span strike strong"
    " sub sup tt u var wbr"
)
# What ends here is a line of its own, whatever follows.
_ENDS_LINE = _listed("li td th tr dt dd h1 h2 h3 h4 h5 h6 ul ol dl table option")
# What stands for markup until its gap is judged; the last for a space that is written as an entity.
_INSIDE, _SOFT, _HARD, _SPACE = "\ue010", "\ue011", "\ue012", "\ue013"
_PRIVATE = re.compile(f"[{_INSIDE}-{_SPACE}]")
_GAP = re.compile(f"[\\s{_INSIDE}-{_SPACE}]+")
_JUDGED = re.compile(f"[\n\r{_INSIDE}-{_SPACE}]")
_ENDS = re.compile(r"[.!?:;。！？；：)）]$")
_BEGINS = re.compile(r"^[A-Z0-9•*-]")
_IS_HAN = re.compile(f"[{HAN}，。、；！？：]")
_MARKED = re.compile(r"[<>&\n\r\ue010-\ue013]|[^\x00-\x7f]")


@dataclass(frozen=True)
class Visible:
    """A text without markup.

    Attributes:
        text: What is seen; a line break stands where one thing ends and another begins.
        at: Where each character comes from, in the text as it was given.
    """

    text: str
    at: tuple[int, ...]


@lru_cache(maxsize=1024)
def visible(text: str) -> Visible:
    """Return a text without tags, entities (escaped up to three times), soft hyphens and invisible characters."""
    if not _MARKED.search(text):
        return Visible(text, tuple(range(len(text))))
    shown, at = _PRIVATE.sub(" ", text), list(range(len(text)))
    for _ in range(_ESCAPED):
        if not _ENTITY.search(shown):
            break
        shown, at = _replaced(_ENTITY, shown, at, _said)
    shown, at = _replaced(_MARK, shown, at, _kind)
    kept = [place for place, one in enumerate(shown) if unicodedata.category(one) != "Cf"]
    shown, at = "".join(shown[place] for place in kept), [at[place] for place in kept]
    shown, at = _replaced(_GAP, shown, at, _gap)
    return Visible(shown, tuple(at))


def shown(text: str) -> str:
    """Return what a shopper sees of a text, on one line, in NFKC."""
    return normalise(visible(text).text)


def is_marked(text: str) -> bool:
    """Tell whether a text that is to be shown as it stands holds markup, or characters that nobody sees."""
    return (
        bool(_MARK.search(text) or _PRIVATE.search(text))
        or html.unescape(text) != text
        or any(unicodedata.category(one) in {"Cc", "Cf", "Co", "Cs", "Cn"} for one in text)
    )


def _replaced(
    pattern: re.Pattern[str], text: str, at: list[int], into: Callable[[re.Match[str]], str]
) -> tuple[str, list[int]]:
    """Replace all matches; what comes in stands where the match began."""
    parts, places, last = [], [], 0
    for found in pattern.finditer(text):
        said = into(found)
        parts += [text[last : found.start()], said]
        places += at[last : found.start()] + [at[found.start()]] * len(said)
        last = found.end()
    return "".join([*parts, text[last:]]), places + at[last:]


def _said(found: re.Match[str]) -> str:
    said = html.unescape(found[0])
    if said == found[0]:
        return "" if found.end() == len(found.string) and not found[0].endswith(";") else said
    return said.replace("\xa0", _SPACE)


def _kind(found: re.Match[str]) -> str:
    name = (found["name"] or "").lower()
    if name in _INLINE or found[0].startswith("<!"):
        return _INSIDE
    return _HARD if found["end"] and name in _ENDS_LINE else _SOFT


def _gap(found: re.Match[str]) -> str:
    """Return what is seen of markup and space between two characters: nothing, a space or a line break."""
    gap, text = found[0], found.string
    if not _JUDGED.search(gap):
        return gap
    before, behind = text[max(0, found.start() - 1) : found.start()], text[found.end() : found.end() + 1]
    breaks = _SOFT in gap or "\n" in gap or "\r" in gap
    if not before or not behind:
        return ""
    if _HARD in gap or re.search(r"\n\s*\n", gap):
        return "\n"
    if breaks and (_ENDS.match(before) or _BEGINS.match(behind)):
        return "\n"
    if _IS_HAN.match(before) and _IS_HAN.match(behind):
        return ""
    if gap.strip(_INSIDE) == "" and _is_one_word(before, behind):
        return ""
    return " "


def _is_one_word(before: str, behind: str) -> bool:
    """Tell whether two characters with nothing but inline markup between them stand in one word, or beside a mark.

    `<b>sta</b>inless` is one; `<b>Features</b>Great` and `10<sup>2</sup>` are not.
    """
    if not (before.isalnum() and behind.isalnum()):
        return True
    return before.isalpha() and behind.isalpha() and not (before.islower() and behind.isupper())
