"""SQL and ml/search must read a text alike, or a query never meets its products."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.search import terms as cut
from ml.search.query import Reading
from tests.sql.conftest import TITLES, search_index

TEXTS = [
    "Cordless Drills 18V, 2-speed",
    "龙井绿茶 礼盒 250g",
    "无线Mouse静音",
    "ＡＢＣ１２３ ½ in.",
    "café naïve Men’s boxes",
    "snake_case 3/4 1.5.2",
    "Toro &amp; Briggs &#39;x&#39; <b>bold</b> &lt;",
    "ラーメン 한국어 text",
    "zero\u200bwidth soft\u00adhyphen 🏷️",
    "Two twelve-piece sets for one",
    "双人两人二人 十二人 单双人",
    "  ",
    "",
]
QUERIES = [
    "alpine tents", "cordles drll 18 v", "绿茶", "无线 stove", "gas", "18 pieces drill", "sleepingbag", "tent tent tent",
    "龙绿茶", "陶茶瓷杯 龙井绿茶", "陶器茶杯", "井龙绿茶礼", "zzz", "", "🏷️", "'; drop table serving.item; --", "drill " * 300,
]  # fmt: skip
# Letters whose lower case or normal form depends on the version of Unicode are not what a shop is asked for.
ALPHABET = "aAsSxXzZieEhHß1204./' -_,’⁄½éÉöＡ１茶龙礼盒タト한双二人🏷️™&;<>\u200b\u00ad\t\n"


def sparse(text: str | None) -> dict[int, float]:
    pairs = (pair.split(":") for pair in (text or "{}/1")[1:].split("}")[0].split(",") if pair)
    return {int(number): float(value) for number, value in pairs}


def of_release(values: dict[int, float]) -> dict[int, float]:
    """Leave out the words that have no number in the lexicon: Python knows none."""
    return {number: value for number, value in values.items() if number < 500_000_000}


@pytest.fixture(scope="module")
def index():
    rows = [
        (t, "Alpine" if "Alpine" in t else "", ("outdoor",) if i < 4 else ("other",))
        for i, t in enumerate(TITLES.values())
    ]
    return search_index(tuple(rows))


class TestTerms:
    @pytest.mark.parametrize("text", TEXTS)
    def test_the_same_tokens(self, module_database, text):
        with psycopg.connect(module_database) as connection:
            row = connection.execute("select internal.written(%s)", [text]).fetchone()
        assert row == (cut.written(text),)

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.text(ALPHABET, max_size=40))
    def test_the_same_terms(self, read_shop, text):
        if any(mark in text for mark in "&<"):
            text = text.replace("&", " ").replace("<", " ")
        row = read_shop.execute(
            "select w.w, internal.word_terms(s.s), internal.pair_terms(s.s), internal.gram_terms(s.s)"
            " from internal.written(%s) as w (w),"
            " lateral (select array(select internal.stem(u) from unnest(w.w) with ordinality as u (u, n) order by n)) as s (s)",
            [text],
        ).fetchone()
        tokens = cut.tokens(text)
        grams = {gram for token in tokens for gram in cut.character_grams(token)}
        assert row[0] == cut.written(text)
        assert [set(found) for found in row[1:]] == [set(cut.words(tokens)), set(cut.pairs(tokens)), grams]

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(one=st.text("abc", min_size=1, max_size=5), other=st.text("abc", min_size=1, max_size=5))
    def test_the_same_typos(self, read_shop, one, other):
        assert read_shop.execute("select internal.is_one_typo(%s, %s)", [one, other]).fetchone() == (
            cut.is_one_typo(one, other),
        )

    @pytest.mark.slow
    def test_every_title_and_query_of_home_depot(self, module_database, data):
        """On 36,000 real texts, markup and misspellings included."""
        with gzip.open(data / "homedepot-search" / "judgements.csv.gz", "rt", encoding="utf-8") as file:
            texts = list(
                dict.fromkeys(
                    text for row in csv.DictReader(file) for text in (row["product_title"], row["search_term"])
                )
            )
        with psycopg.connect(module_database) as connection:
            rows = connection.execute(
                "select t.text, array(select internal.stem(w.word) from unnest(internal.written(t.text))"
                " with ordinality as w (word, place) order by w.place) from unnest(%s::text[]) as t (text)",
                [texts],
            ).fetchall()
        assert len(rows) == len(texts) > 30_000
        assert [text for text, tokens in rows if tokens != cut.tokens(text)] == []


class TestQueries:
    @pytest.mark.parametrize("query", QUERIES)
    def test_read_alike(self, read_shop, index, query):
        row = read_shop.execute(
            "select vector::text, lexical::text, families, family_features::text[], item_nos, corrections, matched"
            " from internal.read_query('shop-1', %s)",
            [query],
        ).fetchone()
        read: Reading = index.reader().read(query)
        expected: dict[int, float] = {}
        for family, features in read.features.items():
            for place, share in features.items():
                expected[place + 1] = expected.get(place + 1, 0) + share * index.weights[f"search_{family}"]
        assert of_release(sparse(row[1])) == pytest.approx(expected, abs=1e-5)
        assert row[5] == read.corrections
        assert set(row[6]) == set(read.matched)
        vector = index.encode([query])[0]
        assert (row[0] is None) == (not vector.any())
        if row[0]:
            np.testing.assert_allclose(json.loads(row[0]), vector, atol=2e-3)
            alone = read_shop.execute("select internal.encode('shop-1', %s)::text", [query]).fetchone()
            np.testing.assert_allclose(json.loads(alone[0]), vector, atol=2e-3)

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(query=st.text("龙井绿茶礼盒陶瓷杯 x", min_size=2, max_size=9))
    def test_the_same_corrections_of_chinese(self, read_shop, index, query):
        row = read_shop.execute("select corrections from internal.query_tokens('shop-1', %s)", [query]).fetchone()
        assert row == (index.reader().read(query).corrections,)

    def test_the_families_sum_to_the_query(self, read_shop):
        whole, parts = read_shop.execute(
            "select lexical::text, family_features::text[] from internal.read_query('shop-1', 'alpine tents 18 v')"
        ).fetchone()
        summed: dict[int, float] = {}
        for part in parts:
            for number, value in sparse(part).items():
                summed[number] = summed.get(number, 0) + value
        assert sparse(whole) == pytest.approx(summed, abs=1e-5)

    def test_candidates_are_the_best_first(self, read_shop):
        row = read_shop.execute(
            "select array(select i.item_id from unnest(r.item_nos) with ordinality as n (item_no, place)"
            " inner join serving.item as i on i.release_id = 'shop-1' and i.item_no = n.item_no order by n.place)"
            " from internal.read_query('shop-1', 'alpine tent for four') as r"
        ).fetchone()
        assert row[0][:2] == ["tent-4", "tent-2"]

    @pytest.mark.parametrize(
        "query",
        [
            *(None, "", " ", "🏷️" * 50, "\\ %s {} $1 '' \" --", "&#x26;<"),
            *(pytest.param(letter * 10_000, marks=pytest.mark.slow) for letter in "a茶"),
        ],
    )
    def test_any_text_is_read(self, read_shop, query):
        row = read_shop.execute("select (internal.read_query('shop-1', %s)).*", [query]).fetchone()
        assert row is not None
        assert row[4] is not None
        read_shop.execute("select internal.encode('shop-1', %s), internal.encode(null, %s)", [query, query])
        read_shop.execute("select internal.item_features('shop-1', %s, %s, %s, array[%s])", [query] * 4)


class TestProducts:
    def test_a_product_has_the_features_of_the_release(self, read_shop, index):
        rows = read_shop.execute(
            "select i.item_id, f.lexical::text, f.text_vector::text, f.key_terms from serving.item as i"
            " cross join internal.item_features('shop-1', i.title, '', i.brand, i.categories) as f"
            " where i.release_id = 'shop-1'"
        ).fetchall()
        assert len(rows) == len(TITLES)
        for item, lexical, vector, key_terms in rows:
            place = list(TITLES).index(item)
            own = index.lexical[[place]].tocsr()
            expected = {int(column) + 1: float(value) for column, value in zip(own.indices, own.data, strict=True)}
            assert of_release(sparse(lexical)) == pytest.approx(expected, abs=1e-4)
            assert np.linalg.norm(json.loads(vector)) == pytest.approx(1, abs=1e-2)
            assert 0 < len(key_terms) <= 8

    def test_an_unknown_brand_is_met_by_its_query(self, read_shop):
        row = read_shop.execute(
            "select -(f.lexical <#> r.lexical) from internal.item_features('shop-1', 'Zorblax kettle', '', 'Zorblax', '{}') as f"
            " cross join internal.read_query('shop-1', 'zorblax') as r"
        ).fetchone()
        assert row[0] > 0
