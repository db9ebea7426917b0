"""Words that markup or a broken export cut in two: `fr om`, `stain less`. Their halves are no words of a product."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from ml.refiner import lexicon

_PAIR = re.compile(r"(?<![^\W_])([a-z]{1,20})[ ](?=([a-z]{1,20})(?![^\W_]|'))")


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Not in a list of words, and yet a word before another one.
_PREFIXES = _listed(
    "anti auto bi co counter de dis eco ex extra fore hydro hyper in inter mega micro mid mini mono multi neo non out"
    " over per photo poly post pre pro pseudo re semi sub super thermo tri ultra un under uni x"
)
_SHORTEST = 4


def torn(plain: str) -> Iterator[tuple[int, int]]:
    """Yield where the two halves of a word stand in a text in lower case: the first character, and that behind.

    Two pieces beside each other are halves where together they are a word and not both are one; or a material, a
    colour or a word like `from`, whatever they are alone. A single letter is one only beside what is no word.
    """
    for found in _PAIR.finditer(plain):
        one, other = found[1], found[2]
        if len(one + other) < _SHORTEST or not is_word(one + other) or (one in _PREFIXES and is_word(other)):
            continue
        if min(len(one), len(other)) == 1:
            is_torn = not is_word(other if len(one) == 1 else one)
        else:
            is_torn = one + other in _WHOLE or not (is_word(one) and is_word(other))
            is_torn = is_torn and not lexicon.FUNCTION_EN.issuperset((one, other))
        if is_torn:
            yield found.start(), found.end() + len(other)


def is_word(piece: str) -> bool:
    """Tell whether a piece in lower case is an English word: one of the part-of-speech lexicon (Brill 1995)."""
    return piece in _english()


@cache
def _english() -> frozenset[str]:
    from textblob.en import lexicon as tagged

    return frozenset(word for word in tagged if word.isalpha() and word.islower())


_WHOLE = frozenset(
    word
    for words in (lexicon.COLOURS, lexicon.MATERIALS, lexicon.FUNCTION_EN)
    for word in words
    if word.isascii() and len(word) >= _SHORTEST
)
