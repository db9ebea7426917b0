"""Words of Chinese and English text: segmentation, parts of speech, stop words, terms for lexical search.

The dictionaries are loaded at first use, once per process; every function may be called from several threads.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from ml.text.clean import HAN, detect_language, normalise

_LOADING = threading.RLock()
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_HAN = re.compile(f"[{HAN}]+")
_RUN = re.compile(f"[{HAN}]+|[^\\W_{HAN}]+")

# Listed as stop words but kept: negations, which turn a sentence round, and what names goods and their properties (the
# lists were made from web pages).
_KEPT = """
not no nor never none neither without cannot 不 没 没有 不是 无 非 别 未 不要 不会
bill bottom case cases clear computer down face faces fire four free front full half high home inner inside key keys
kind large length little long lower mill minus number numbers open outside page pages part parts plus point points ring
room rooms side sides small smaller smallest system test text thick thin top width work young 大 小
"""
# Penn Treebank and jieba tags by their first letters, the longest first.
_POS = {
    "en": [
        ("NNP", "PROPN"),
        ("NN", "NOUN"),
        ("JJ", "ADJ"),
        ("VB", "VERB"),
        ("MD", "VERB"),
        ("RB", "ADV"),
        ("CD", "NUM"),
    ],
    "zh": [
        *((flag, "PROPN") for flag in ("nr", "ns", "nt", "nz", "nrt", "eng")),
        *((flag, "NOUN") for flag in ("n", "vn", "l", "j")),
        *((flag, "ADJ") for flag in ("a", "b", "z")),
        ("v", "VERB"),
        ("d", "ADV"),
        ("m", "NUM"),
    ],
}


def segment(text: str, lang: str) -> list[str]:
    """Return the words of a text in order, as written, without punctuation: by jieba for `zh`, else by letter runs."""
    text = normalise(text)
    if lang != "zh":
        return _WORD.findall(text)
    return [word for word in _chinese()[0].lcut(text) if _WORD.search(word)]


def tag(text: str, lang: str) -> list[tuple[str, str]]:
    """Return the words with their part of speech: NOUN, PROPN, ADJ, VERB, ADV, NUM, or X for the rest and for `und`."""
    text = normalise(text)
    if lang == "zh":
        pairs = [(pair.word, pair.flag) for pair in _chinese()[1].lcut(text)]
    elif lang == "en":
        pairs = _english_tagger()(" ".join(_WORD.findall(text)), tokenize=False)
    else:
        return [(word, "X") for word in _WORD.findall(text)]
    return [(word, _universal(flag, lang)) for word, flag in pairs if _WORD.search(word)]


def words(text: str) -> list[str]:
    """Return the lower-case words in order, segmented where there is Chinese, without stop words (negations stay)."""
    lang = "zh" if _HAN.search(text) else "en"
    return [word for word in map(str.lower, segment(text, lang)) if word not in stop_words()]


def lexical_terms(text: str) -> list[str]:
    """Return the terms of lexical search in order, repeated as often as they occur.

    The rule is one that SQL can follow on a query without a dictionary: runs of letters and digits in lower case, and
    every 1-, 2- and 3-gram of a run of Chinese characters.
    """
    terms: list[str] = []
    for run in _RUN.findall(normalise(text).lower()):
        if _HAN.match(run):
            spans = ((at, at + n) for at in range(len(run)) for n in (1, 2, 3) if at + n <= len(run))
            terms.extend(run[start:end] for start, end in spans)
        else:
            terms.append(run)
    return terms


def key_terms(text: str, limit: int = 8) -> list[str]:
    """Return up to `limit` lower-case nouns, adjectives and proper nouns: the most frequent first, then the first."""
    tagged = tag(text, detect_language(text))
    counts = Counter(
        word.lower()
        for word, pos in tagged
        if pos in {"NOUN", "PROPN", "ADJ"} and len(word) > 1 and not word.isdigit() and word.lower() not in stop_words()
    )
    return [word for word, _ in counts.most_common(limit)]


@cache
def stop_words() -> frozenset[str]:
    """Return the Chinese and English stop words, without negations and without words that matter in a shop."""
    import stopwordsiso

    listed = stopwordsiso.stopwords(["zh", "en"])
    return frozenset(word for word in listed if not word.endswith("n't")).difference(_KEPT.split())


def _universal(flag: str, lang: str) -> str:
    return next((pos for prefix, pos in _POS[lang] if flag.startswith(prefix)), "X")


def _chinese() -> tuple[Any, Any]:
    """Return jieba's segmenter and tagger."""
    with _LOADING:
        return _load_chinese()


@cache
def _load_chinese() -> tuple[Any, Any]:
    import logging

    import jieba
    import jieba.posseg

    jieba.setLogLevel(logging.WARNING)

    class Segmenter(jieba.Tokenizer):  # type: ignore[misc]
        """jieba without its cache file, which any user of the shared temporary folder could replace."""

        def initialize(self, dictionary: str | None = None) -> None:
            self.FREQ, self.total = self.gen_pfdict(self.get_dict_file())
            self.initialized: bool = True

    segmenter = Segmenter()
    segmenter.initialize()
    return segmenter, jieba.posseg.POSTokenizer(segmenter)


def _english_tagger() -> Callable[..., list[tuple[str, str]]]:
    with _LOADING:
        return _load_english()


@cache
def _load_english() -> Callable[..., list[tuple[str, str]]]:
    from textblob.en import tag as pattern_tag

    # Its dictionaries are read by the first call.
    pattern_tag("word", tokenize=False)
    tagger: Callable[..., list[tuple[str, str]]] = pattern_tag
    return tagger
