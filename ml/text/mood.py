"""Whether a review praises or complains."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache

from ml.text.clean import normalise

_LOADING = threading.RLock()


def sentiment(text: str, lang: str) -> float:
    """Return the mood of a text from -1 (complaint) to 1 (praise); 0 for empty text and for languages but zh and en."""
    text = normalise(text)
    if not text or lang not in {"en", "zh"}:
        return 0.0
    with _LOADING:
        score = _english_scorer() if lang == "en" else _chinese_scorer()
    return min(1.0, max(-1.0, score(text)))


@cache
def _english_scorer() -> Callable[[str], float]:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyser = SentimentIntensityAnalyzer()
    return lambda text: float(analyser.polarity_scores(text)["compound"])


@cache
def _chinese_scorer() -> Callable[[str], float]:
    # Trained on shop reviews; its answer is the probability of praise.
    from snownlp.sentiment import classify

    return lambda text: 2 * float(classify(text)) - 1
