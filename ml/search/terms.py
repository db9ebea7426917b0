"""How search cuts a text into terms: the one rule for products and for queries, here and in sql/internal.

Every character class is a list of ranges, so that the regular expressions of Python and of Postgres agree on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ml.text.clean import HAN, KANA_HANGUL, normalise

# Queries are cut here: what a person types is shorter, and a machine must not cost more.
QUERY_CHARACTERS = 512
QUERY_TOKENS = 64
GRAM_LENGTHS = (3, 4)

_CJK = HAN + KANA_HANGUL
# What stands between words: ASCII but letters and digits, Latin-1 signs, punctuation, currencies, symbols, private
# characters, presentation forms, emoji.
_SEPARATORS = (
    "\u0001-/:-@[-`{-\u00bf\u00d7\u00f7\u2000-\u206f\u20a0-\u20cf\u2100-\u2bff\u2e00-\u2e7f\u3000-\u3040\u30fb"
    "\ue000-\uf8ff\ufe00-\ufe6f\uff00-\uffff\U0001f000-\U0001faff\U000e0000-\U000effff"
)
_TOKEN = re.compile(f"[{_CJK}]+|[0-9]+(?:[./][0-9]+)*|[^0-9{_SEPARATORS}{_CJK}]+")
_IS_CJK = re.compile(f"[{_CJK}]")
# A fraction slash is a slash; an apostrophe joins what it stands between.
_SIGNS = str.maketrans({"\u2044": "/", "'": None, "\u2019": None})
# A tent for two is one for 2 people, and so is one for 双人 (a pair) and 两人 or 二人 (two).
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS, 1)}
_PERSONS = dict(zip("单双两二三四五六八", "122234568", strict=True))
_SOME_PERSONS = re.compile(f"[{''.join(_PERSONS)}](?=人)")


def written(text: str) -> list[str]:
    """Return runs of Chinese, Japanese or Korean characters, numbers (`3/4`, `1.5`) and lower-case words, in order.

    English numbers up to twelve and Chinese numbers of persons are digits.
    """
    plain = normalise(text).lower().translate(_SIGNS)
    counted = _SOME_PERSONS.sub(lambda found: _PERSONS[found[0]], plain)
    return [_DIGITS.get(token, token) for token in _TOKEN.findall(counted)]


def tokens(text: str) -> list[str]:
    """Return what is written, the words as stems."""
    return [stem(token) for token in written(text)]


def query_tokens(query: str) -> list[str]:
    """Return the first tokens of a query as they are written: at most 64, from at most 512 characters."""
    return written(query[:QUERY_CHARACTERS])[:QUERY_TOKENS]


def is_cjk(token: str) -> bool:
    """Tell whether a token is written without spaces, so that its n-grams stand for its words."""
    return bool(_IS_CJK.match(token))


def is_number(token: str) -> bool:
    """Tell whether a token is a number."""
    return "0" <= token[0] <= "9"


def stem(word: str) -> str:
    """Return a word without the ending of its plural, after the S-stemmer (Harman 1991, How effective is suffixing?).

    -ies becomes -y; -es goes after x, sh, ch and ss; -s goes but from -us and -ss. Words of three letters stay.
    """
    if len(word) < 4 or not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("xes", "shes", "ches", "sses")):
        return word[:-2]
    return word if word.endswith(("us", "ss")) else word[:-1]


def words(text_tokens: list[str]) -> list[str]:
    """Return the terms that stand for words, in order: stems, numbers, and the 1- to 3-grams of CJK runs."""
    return [word for token in text_tokens for word in (cjk_grams(token) if is_cjk(token) else (token,))]


def cjk_grams(run: str) -> Iterator[str]:
    """Yield the 1-, 2- and 3-grams of a run of CJK characters."""
    return (run[at : at + n] for at in range(len(run)) for n in (1, 2, 3) if at + n <= len(run))


def pairs(text_tokens: list[str]) -> list[str]:
    """Return what neighbours make together, in order.

    Two words are written as one (`deck over` is `deckover`), so that a compound is found however it is spelt; with a
    number there is a space between (`18 v`).
    """
    return [
        f"{left} {right}" if is_number(left) or is_number(right) else left + right
        for left, right in zip(text_tokens, text_tokens[1:], strict=False)
        if not is_cjk(left) and not is_cjk(right)
    ]


def character_grams(token: str) -> list[str]:
    """Return the distinct character n-grams of `<word>`, marked `#`; none for numbers and CJK."""
    if is_number(token) or is_cjk(token):
        return []
    framed = f"<{token}>"
    grams = (f"#{framed[at : at + n]}" for n in GRAM_LENGTHS for at in range(len(framed) - n + 1))
    return list(dict.fromkeys(grams))


def shortened(word: str) -> list[str]:
    """Return the word and what is left of it when one letter is gone; words that are one typo apart share one."""
    return list(dict.fromkeys([word, *(word[:at] + word[at + 1 :] for at in range(len(word)))]))


def without_one(piece: str) -> list[str]:
    """Return a piece of two characters, or what is left of one of three when one is gone."""
    return [piece] if len(piece) == 2 else [piece[1:], piece[0] + piece[2], piece[:2]]


def is_one_typo(one: str, other: str) -> bool:
    """Tell whether one letter was left out, put in or replaced, or two neighbours were swapped."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    if len(one) != len(other):
        short, long = sorted((one, other), key=len)
        return any(long[:at] + long[at + 1 :] == short for at in range(len(long)))
    at = next(place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    is_swapped = one[at : at + 2] == other[at : at + 2][::-1] and one[at + 2 :] == other[at + 2 :]
    return is_swapped or one[at + 1 :] == other[at + 1 :]
