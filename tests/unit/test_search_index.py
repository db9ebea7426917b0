"""The inverted index, by hand, and the token table, against an encoder whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from ml.search import TokenTable, postings, query_tokens, token_table
from ml.search.tokens import trigrams

DOCUMENTS = [["red", "shoe"], ["red", "red", "hat"], ["blue", "hat"]]


def as_dict(index) -> dict[tuple[str, int], float]:
    names = [index.vocabulary[term] for term in index.term]
    return dict(zip(zip(names, index.item.tolist(), strict=True), index.weight.tolist(), strict=True))


class TestPostings:
    def test_hand_computed(self):
        weights = as_dict(postings(DOCUMENTS))
        assert len(weights) == 6
        mean = 7 / 3
        once = 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / mean))
        twice = 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / mean))
        assert weights["shoe", 0] == pytest.approx(np.log(1 + 2.5 / 1.5) * once)
        assert weights["red", 0] == pytest.approx(np.log(1 + 1.5 / 2.5) * once)
        assert weights["red", 1] == pytest.approx(np.log(1 + 1.5 / 2.5) * twice)

    def test_heaviest_postings_are_kept(self):
        documents = [["a"] * (1 + number) + ["b"] * 5 for number in range(10)]
        index = postings(documents, per_term=3)
        whole = as_dict(postings(documents))
        kept = {key: weight for key, weight in as_dict(index).items() if key[0] == "a"}
        assert len(kept) == 3
        assert sorted(kept.values()) == sorted(weight for (term, _), weight in whole.items() if term == "a")[-3:]

    def test_common_terms_are_dropped_from_a_large_catalogue_only(self):
        documents = [["common", f"rare{number}"] for number in range(600)]
        assert "common" not in {term for term, _ in as_dict(postings(documents))}
        assert ("rare7", 7) in as_dict(postings(documents))
        assert "common" in {term for term, _ in as_dict(postings(documents[:400]))}

    @pytest.mark.parametrize("documents", [[], [[]], [[], []]])
    def test_nothing_to_index(self, documents):
        assert len(postings(documents).term) == 0


class TestTokens:
    def test_unknown_words_fall_back_to_trigrams(self):
        known = {"red": 0, "#<sh": 1, "#oe>": 2, "#xyz": 3, "连衣": 4}
        assert query_tokens(["red", "shoe", "连衣", "衣裙"], known) == ["red", "#<sh", "#oe>", "连衣"]

    def test_trigrams_of_short_words(self):
        assert trigrams("a") == ["#<a>"]
        assert trigrams("ab") == ["#<ab", "#ab>"]


WORDS = [
    "hammer", "wrench", "screwdriver", "drill", "pliers", "chisel", "lipstick", "mascara", "shampoo",
    "perfume", "lotion", "eyeliner", "notebook", "pencil", "stapler", "eraser", "marker", "folder",
]  # fmt: skip


class TestTokenTable:
    @pytest.fixture(scope="class")
    def world(self):
        """300 products of three words each; a product means the sum of its words, in 32 dimensions."""
        chance = np.random.default_rng(0)
        meaning = {word: chance.normal(size=32) for word in [*WORDS, "连", "衣", "裙", "连衣", "衣裙", "连衣裙"]}
        documents = [chance.choice(WORDS, 3, replace=False).tolist() for _ in range(300)]
        documents += [["连", "连衣", "连衣裙", "衣", "衣裙", "裙"]] * 3
        vectors = np.stack([sum(meaning[word] for word in words) for words in documents])
        vectors -= vectors.mean(axis=0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

        def encode(texts: list[str]) -> np.ndarray:
            return np.stack([meaning[text] for text in texts]).astype(np.float32)

        return documents, vectors, encode

    @pytest.fixture(scope="class")
    def table(self, world):
        return token_table(*world, seed=0)

    @staticmethod
    def recall(table: TokenTable, documents, vectors, queries) -> float:
        """Share of queries whose best product holds the same words."""
        best = (table.encode(queries) @ vectors.T).argmax(axis=1)
        return float(np.mean([set(documents[found]) == set(documents[item]) for item, found in enumerate(best)]))

    def test_queries_land_on_their_products(self, world, table):
        documents, vectors, _ = world
        assert self.recall(table, documents, vectors, documents) > 0.9

    def test_scrambled_vectors_do_not(self, world, table):
        documents, vectors, _ = world
        scrambled = TokenTable(table.tokens, np.random.default_rng(1).permutation(table.vectors))
        assert self.recall(scrambled, documents, vectors, documents) < 0.1

    def test_a_misspelt_word_stays_near_its_word(self, table):
        words, misspelt = table.encode([["screwdriver"], ["shampoo"]]), table.encode([["screwdrivr"], ["shamppo"]])
        nearness = words @ misspelt.T
        assert nearness[0, 0] > 0.6
        assert nearness[0, 0] > nearness[0, 1] + 0.3
        assert nearness[1, 1] > nearness[1, 0] + 0.3

    def test_chinese_is_covered_without_spaces(self, table):
        assert {"连", "连衣", "连衣裙"} <= set(table.tokens)
        assert not any(token.startswith("#") and "连" in token for token in table.tokens)

    def test_tokens_are_distinct_and_vectors_finite(self, table):
        assert len(table.tokens) == len(set(table.tokens)) == len(table.vectors) > 50
        assert np.isfinite(table.vectors).all()

    def test_unknown_queries_are_zero(self, table):
        assert not table.encode([["☃"], []]).any()

    def test_the_encoder_is_asked_for_each_term_once(self, world):
        documents, vectors, encode = world
        asked: list[str] = []

        def count(texts: list[str]) -> np.ndarray:
            asked.extend(texts)
            return encode(texts)

        token_table(documents, vectors, count, seed=0)
        assert sorted(asked) == sorted({term for terms in documents for term in terms})

    def test_a_catalogue_without_repeated_terms_has_an_empty_table(self):
        table = token_table(
            [["once"], []], np.zeros((2, 8), np.float32), lambda texts: np.ones((len(texts), 8)), seed=0
        )
        assert table.tokens == []
        assert table.encode([["once"]]).shape == (1, 8)

    def test_vectors_that_say_nothing_leave_the_encoder_as_it_is(self, world):
        documents, _, encode = world
        table = token_table(documents, np.zeros((len(documents), 32), np.float32), encode, seed=0)
        hammer, drill, hammers = table.encode([["hammer"], ["drill"], ["hammers"]])
        assert hammer @ hammers > 0.6 > hammer @ drill
