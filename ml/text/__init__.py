"""Chinese and English text, as pure functions: cleaning, language, words, parts of speech, sentiment."""

from ml.text.clean import detect_language, normalise, passage
from ml.text.mood import sentiment
from ml.text.words import key_terms, lexical_terms, segment, tag, words

# Part of the key of a stored vector: raise it when `normalise`, `lexical_terms` or `key_terms` return something else.
PREPROCESSING_VERSION = 1

__all__ = [
    "PREPROCESSING_VERSION",
    "detect_language",
    "key_terms",
    "lexical_terms",
    "normalise",
    "passage",
    "segment",
    "sentiment",
    "tag",
    "words",
]
