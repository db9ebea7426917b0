"""Whether a review praises or complains."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from ml.text.clean import normalise

_LOADING = threading.RLock()


def sentiment(text: str, lang: str) -> float:
    """Return the mood of a text from -1 (complaint) to 1 (praise); 0 for empty text and for other languages than zh and en."""
    text = normalise(text)
    if not text or lang not in {"en", "zh"}:
        return 0.0
    with _LOADING:
        english, chinese = _vader(), _snow() if lang == "zh" else None
    if chinese is None:
        return float(english.polarity_scores(text)["compound"])
    return min(1.0, max(-1.0, 2.0 * float(chinese.classify(text)) - 1.0))


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@cache
def _snow() -> Any:
    from snownlp import sentiment as snow

    return snow
