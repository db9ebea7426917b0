"""Search without a model at query time: an inverted index and a table of token vectors."""

from ml.search.bm25 import Postings, postings
from ml.search.tokens import TokenTable, query_tokens, token_table

__all__ = ["Postings", "TokenTable", "postings", "query_tokens", "token_table"]
