"""Is it the material, or does it look like it? Faux leather is no leather, and a gold plated ring no gold."""

from __future__ import annotations

from ml.refiner import lexicon
from ml.refiner.inflection import lemma
from ml.refiner.reading import Reading

_IMITATIONS, _COATINGS = (frozenset(map(lemma, words)) for words in (lexicon.IMITATIONS_EN, lexicon.COATINGS_EN))


def is_imitation(reading: Reading, place: int) -> bool:
    """Tell whether an English word is what something looks like, or has on its outside: faux leather, gold plated."""
    token, tokens = reading.tokens[place], reading.tokens
    before = {one.key for one in tokens[max(0, place - 2) : place] if one.clause == token.clause}
    behind = {one.key for one in tokens[place + 1 : place + 2] if one.clause == token.clause}
    return bool(before & _IMITATIONS or behind & _COATINGS)


def is_imitated(plain: str, at: int) -> bool:
    """Tell whether the Chinese word at a place is imitated: 仿真皮 is no 真皮."""
    return plain[max(0, at - 2) : at].endswith(lexicon.IMITATIONS_ZH)
