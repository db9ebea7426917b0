"""SQL and the pipeline must cut a text into the same terms, or a query never meets its products."""

from __future__ import annotations

import psycopg
import pytest

from ml.search.tokens import trigrams
from ml.text import lexical_terms

TEXTS = [
    "Cordless Drill 18V, 2-speed",
    "龙井绿茶 礼盒 250g",
    "无线Mouse静音",
    "ＡＢＣ１２３",
    "café naïve",
    "snake_case",
    "  ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_terms_are_the_same(module_database, text):
    with psycopg.connect(module_database) as connection:
        row = connection.execute("select internal.query_terms(%s)", [text]).fetchone()
    assert row is not None
    assert sorted(row[0]) == sorted(lexical_terms(text))


@pytest.mark.parametrize("word", ["drill", "ab", "x"])
def test_trigrams_are_the_same(module_database, word):
    with psycopg.connect(module_database) as connection:
        row = connection.execute("select internal.grams(%s)", [word]).fetchone()
    assert row is not None
    assert row[0] == trigrams(word) != []
