"""Search without a model at query time: sparse vectors for words, and a query encoder that is a table."""

from ml.search.index import LEXICAL_DIMENSION, SearchIndex, build_index
from ml.search.lexicon import Document
from ml.search.query import Judged

__all__ = ["LEXICAL_DIMENSION", "Document", "Judged", "SearchIndex", "build_index"]
