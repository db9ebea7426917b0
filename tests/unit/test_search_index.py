"""The search index: terms by hand, the score as an inner product, and the query encoder against a known encoder."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from ml.recommender.train import centre
from ml.search import Document, Judged, build_index, fusion
from ml.search import terms as cut
from ml.search.encoder import FRAGMENTS_OF_PRODUCT, draw_fragments
from ml.search.measure import Ranking, bm25, measures, rank, with_typo

WORDS = [
    "hammer", "wrench", "screwdriver", "drill", "pliers", "chisel", "lipstick", "mascara", "shampoo",
    "perfume", "lotion", "eyeliner", "notebook", "pencil", "stapler", "eraser", "marker", "folder",
]  # fmt: skip


def document(title: str, **fields) -> Document:
    return Document(title, fields.get("description", ""), fields.get("brand", ""), fields.get("categories", ()))


@cache
def meaning(word: str) -> np.ndarray:
    return np.random.default_rng(sum(map(ord, word))).normal(size=32)


def encode(texts: list[str]) -> np.ndarray:
    """A text means the sum of its words."""
    return np.stack([sum((meaning(w) for w in cut.words(cut.tokens(text))), np.zeros(32)) for text in texts]).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def world():
    """300 products of three words each, and one in Chinese."""
    chance = np.random.default_rng(0)
    titles = [" ".join(chance.choice(WORDS, 3, replace=False)) for _ in range(300)] + ["红色连衣裙"]
    return titles, encode(titles)


@pytest.fixture(scope="module")
def index(world):
    titles, vectors = world
    return build_index([document(title) for title in titles], vectors, encode)


class TestTerms:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Cordless Drills, 18V", ["cordless", "drill", "18", "v"]),
            ("3/4 in. x 1.5 ft", ["3/4", "in", "x", "1.5", "ft"]),
            ("Men's boxes &amp; batteries", ["men", "box", "battery"]),
            ("½ 无线Mouse", ["1/2", "无线", "mouse"]),
            ("🏷️ _-_", []),
            ("Tent for Two, two-person", ["tent", "for", "2", "2", "person"]),
            ("露营双人帐篷 两人", ["露营", "2", "人帐篷", "2", "人"]),
        ],
    )
    def test_tokens(self, text, expected):
        assert cut.tokens(text) == expected

    def test_words_pairs_and_grams(self):
        assert cut.words(["连衣", "red"]) == ["连", "连衣", "衣", "red"]
        assert cut.pairs(["deck", "over", "18", "v", "连衣", "x"]) == ["deckover", "over 18", "18 v"]
        assert cut.character_grams("tea") == ["#<te", "#tea", "#ea>", "#<tea", "#tea>"]
        assert cut.character_grams("18") == cut.character_grams("连衣") == []

    @pytest.mark.parametrize("typo", ["dril", "drilll", "drell", "dirll"])
    def test_one_typo(self, typo):
        assert cut.is_one_typo("drill", typo)
        assert cut.is_one_typo(typo, "drill")
        assert set(cut.shortened("drill")) & set(cut.shortened(typo))

    @pytest.mark.parametrize("other", ["drill", "rilld", "dril1s", "drl"])
    def test_not_one_typo(self, other):
        assert not cut.is_one_typo("drill", other)


class TestIndex:
    def test_the_shape_is_the_contract(self, index):
        n_terms = len(index.terms)
        assert len(set(index.terms)) == n_terms == len(index.documents) == len(index.idf) == len(index.vectors)
        assert index.start[-1] == len(index.item) == len(index.weight)
        assert len(index.start) == n_terms + 1
        assert index.lexical.shape == (301, n_terms)
        assert (index.idf > 0).all()
        assert (index.weight > 0).all()
        assert (index.lexical.data > 0).all()
        assert np.isfinite(index.vectors).all()

    def test_postings_hold_the_products_of_a_word(self, index, world):
        place = index.terms.index("hammer")
        items = index.item[index.start[place] : index.start[place + 1]]
        assert set(items) == {i for i, title in enumerate(world[0]) if "hammer" in title}
        weights = index.weight[index.start[place] : index.start[place + 1]]
        assert (np.diff(weights) <= 0).all()

    def test_grams_have_no_postings(self, index):
        place = index.terms.index("#ham")
        assert index.start[place] == index.start[place + 1]

    def test_a_title_says_more_than_a_description(self):
        documents = [document("red", description="blue"), document("blue", description="red", brand="x")]
        built = build_index(documents, encode(["red", "blue"]), encode)
        column = built.terms.index("red")
        assert built.lexical[0, column] > built.lexical[1, column] > 0

    def test_most_nonzeros(self):
        long = " ".join(f"word{chr(97 + a)}{chr(97 + b)}" for a in range(26) for b in range(26))
        built = build_index([document("tea", description=long)], encode(["tea"]), encode)
        assert np.diff(built.lexical.indptr).max() <= 400

    def test_queries_land_on_their_products(self, index, world):
        titles, vectors = world
        centred = vectors - vectors.mean(axis=0)
        best = (index.encode(titles[:300]) @ centred.T).argmax(axis=1)
        assert np.mean([set(titles[a].split()) == set(titles[b].split()) for a, b in enumerate(best)]) > 0.8

    def test_what_is_unknown_has_no_vector(self, index):
        assert not index.encode(["☃", "", "9999"]).any()

    def test_typos_are_corrected(self, index):
        reader = index.reader()
        assert reader.read("hamer").corrections == {"hamer": "hammer"}
        assert reader.read("hammer zzz").corrections == {}
        assert reader.read("hamer").features == reader.read("hammer").features

    @pytest.mark.parametrize(
        ("query", "read"),
        [
            ("红色连裙", "红色连衣裙"),
            ("红连色衣裙", "红色连衣裙"),
            ("红色连农裙", "红色连衣裙"),
            ("连衣裙红色", None),
            ("蓝色绿色", None),
        ],
    )
    def test_typos_in_chinese(self, index, query, read):
        assert index.reader().read(query).corrections == ({query: read} if read else {})

    @pytest.mark.parametrize("titles", [[], [""], ["tea"], ["", "龙井绿茶"]])
    def test_hardly_anything_to_index(self, titles):
        built = build_index(
            [document(title) for title in titles], encode(titles) if titles else np.zeros((0, 32)), encode
        )
        assert built.lexical.shape[0] == len(titles)
        assert built.weights["search_words"] > 0
        assert np.isfinite(built.encode(["tea", "绿茶", ""])).all()

    def test_as_many_vectors_as_documents(self):
        with pytest.raises(ValueError, match="as many vectors"):
            build_index([document("tea")], np.zeros((2, 32), np.float32), encode)

    @pytest.mark.slow
    def test_judged_queries_teach(self, world):
        """What the shop calls a gizmo is a hammer: only the judgements say so."""
        titles, vectors = world
        hammers = {i: 1.0 for i, title in enumerate(titles) if "hammer" in title}
        documents = [document(title) for title in [*titles, "gizmo"]]
        with_one = np.concatenate([vectors, encode(["gizmo"])])
        lotions = {i: 1.0 for i, title in enumerate(titles) if "lotion" in title and i not in hammers}
        judged = [Judged("gizmo", hammers), Judged("lotion", lotions)] * 20 + [Judged("", {})]
        plain, taught = (build_index(documents, with_one, encode, given) for given in ((), judged))
        centred = centre(with_one)
        found = [float((one.encode(["gizmo"]) @ centred[list(hammers)].T).mean()) for one in (plain, taught)]
        assert found[1] > found[0] + 0.02

    @pytest.mark.slow
    def test_a_text_without_a_vector_teaches_nothing(self, index, world):
        titles, vectors = world

        def partly(texts: list[str]) -> np.ndarray:
            return encode(texts) * np.array([[text != "cursed"] for text in texts], np.float32)

        judged = [Judged("cursed", {0: 1.0})]
        built = build_index([document(title) for title in titles], vectors, partly, judged)
        assert np.array_equal(built.vectors, index.vectors)

    def test_a_changed_catalogue_draws_few_other_fragments(self, world):
        documents = [document(title) for title in world[0]]
        before = draw_fragments(documents, 0)
        assert len(before) == FRAGMENTS_OF_PRODUCT * len(documents)
        assert all(cut.words(cut.tokens(one.query)) for one in before)
        assert len({one.query for one in before}) > len(documents)
        changed = [document("gizmo of brass"), *documents[:200], document("red tea"), *documents[201:]]
        after = draw_fragments(changed, 0)
        assert len({one.query for one in after} - {one.query for one in before}) <= 2 * FRAGMENTS_OF_PRODUCT
        assert {place for one in after for place in one.grades} == set(range(len(changed)))
        assert [one.query for one in draw_fragments(documents, 1)] != [one.query for one in before]

    @pytest.mark.slow
    def test_a_chinese_query_finds_what_is_called_so_in_english(self):
        """The encoder tells the languages apart more than it tells the meanings apart, as real ones do."""
        chinese = dict(zip("锤扳螺钻钳凿唇睫洗香乳眼本铅订擦记夹", WORDS, strict=True))
        apart = np.random.default_rng(9).normal(size=32).astype(np.float32) * 4

        def bilingual(texts: list[str]) -> np.ndarray:
            own = encode(
                ["".join(chinese.get(sign, sign) + " " * (sign in chinese) for sign in text) for text in texts]
            )
            return (
                own + np.array([[1.0] if any(sign in chinese for sign in text) else [-1.0] for text in texts]) * apart
            )

        chance = np.random.default_rng(1)
        titles = [" ".join(chance.choice(WORDS, 3, replace=False)) for _ in range(150)]
        titles += [" ".join(chance.choice(list(chinese), 3, replace=False)) for _ in range(150)]
        vectors = bilingual(titles).astype(np.float32)
        built = build_index([document(title) for title in titles], vectors, bilingual)
        found = built.encode(list(chinese)) @ centre(vectors)[:150].T
        hits = [WORDS[row] in titles[place] for row, place in enumerate(found.argmax(axis=1))]
        assert np.mean(hits) > 0.8
        nearest = (built.encode(list(chinese)) @ centre(vectors).T).argsort(axis=1)[:, -20:]
        assert 0.2 < np.mean(nearest < 150) < 0.8


class TestFusion:
    @staticmethod
    def pool(chance: np.random.Generator, telling: int) -> fusion.Pool:
        features = chance.random((20, 6)).astype(np.float32)
        target = np.zeros(20, np.float32)
        target[features[:, telling].argmax()] = 1
        return fusion.Pool(features, target)

    def test_the_telling_part_weighs_most(self):
        chance = np.random.default_rng(0)
        weights = fusion.fit_weights([self.pool(chance, 2) for _ in range(200)])
        assert max(weights, key=lambda name: weights[name]) == "numbers"
        assert min(weights.values()) >= 0

    def test_little_data_keeps_the_defaults(self):
        assert fusion.fit_weights([]) == fusion.DEFAULT_WEIGHTS

    def test_temperature(self):
        chance = np.random.default_rng(0)
        sharp = fusion.fit_temperature([self.pool(chance, 5) for _ in range(50)])
        blunt = fusion.fit_temperature([self.pool(chance, 0) for _ in range(50)])
        assert sharp < blunt


class TestMeasures:
    def test_by_hand(self):
        query = Judged("q", {0: 1.0, 1: 0.7, 2: 0.0})
        figures = measures(query, Ranking([2, 0], {0: 3.0, 1: 1.0, 2: 1.0}))
        ndcg = (1 / np.log2(3)) / (1 + 0.7 / np.log2(3))
        assert figures == pytest.approx([0.5, 0.5, ndcg, 2.5 / 3])

    def test_ranks_by_score_then_place(self):
        assert rank(np.array([0.0, 2.0, 2.0, 1.0]), Judged("q", {3: 1.0})) == Ranking([1, 2, 3, 0], {3: 1.0})

    def test_bm25_prefers_the_rare_word_and_the_short_text(self):
        scores = bm25([document("red tea pot"), document("red"), document("red cup")])("red pots")
        assert scores.argmax() == 0
        assert scores[1] > scores[2] > 0

    @pytest.mark.parametrize("query", ["cordless drill", "红色连衣裙 大", "tea 18 v"])
    def test_a_typo_is_one_and_always_the_same(self, query):
        misspelt = with_typo(query)
        assert misspelt == with_typo(query)
        assert (misspelt == query) == (query == "tea 18 v")
