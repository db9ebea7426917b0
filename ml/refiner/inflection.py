"""English words without the endings of number and tense, in one spelling."""

from __future__ import annotations

import re

from ml.refiner import lexicon


def lemma(word: str) -> str:
    """Return a lower-case English word without the ending of its number or tense, in one spelling.

    Only endings of inflection go (-s, -ed, -ing), so that an adjective never becomes a noun.
    """
    word = lexicon.SPELLINGS.get(word, word)
    stem = _IRREGULAR.get(word) or _uninflected(word)
    return lexicon.SPELLINGS.get(stem, stem)


_IRREGULAR = {
    "made": "make", "making": "make", "men": "man", "women": "woman", "children": "child", "feet": "foot",
    "teeth": "tooth", "kept": "keep", "held": "hold", "built": "build", "found": "find", "leaves": "leave",
    "knives": "knife", "shelves": "shelf", "was": "be", "given": "give", "written": "write", "driven": "drive",
    "lens": "lens", "gas": "gas", "glass": "glass", "less": "less", "news": "news", "plus": "plus",
    "wireless": "wireless",
    "string": "string", "ring": "ring", "spring": "spring", "thing": "thing", "king": "king", "during": "during",
    "bed": "bed", "red": "red", "need": "need", "feed": "feed", "speed": "speed", "seed": "seed", "shed": "shed",
    "wing": "wing", "sling": "sling", "bearing": "bearing", "ceiling": "ceiling",
}  # fmt: skip


def _uninflected(word: str) -> str:
    for ending in ("ies", "ied"):
        if word.endswith(ending) and len(word) > 4:
            return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return _uninflected(word[:-2] if word.endswith(("xes", "shes", "ches", "sses", "zes")) else word[:-1])
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) > len(ending) + 2 and re.search("[aeiouy]", word[: -len(ending)]):
            stem = word[: -len(ending)]
            if stem[-1] == stem[-2] and stem[-1] not in "lsz":
                return stem[:-1]
            return stem[:-1] if stem.endswith("e") else stem
    # A silent e is lost before -ed and -ing: so it is lost everywhere.
    return word[:-1] if len(word) > 4 and word.endswith("e") and not word.endswith("ee") else word
