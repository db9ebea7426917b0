"""`souk evaluate --search` on planted judgements: the splits, the figures, and that broken search shows in them."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from ml.search.fusion import RELEVANT
from souk import cli, search_collections, search_evaluation
from souk.errors import SoukError
from souk.settings import Settings
from souk.sources.demo_shop import open_demo_shop
from tests.sql.conftest import units

COLOURS = ["crimson", "emerald", "sapphire", "golden", "purple", "scarlet", "ivory", "silver"]
THINGS = ["hammer", "kettle", "lantern", "bucket", "blanket", "mirror", "pillow", "ladder"]


class PlantedEncoder:
    """Texts with the same letters are alike."""

    model_id = "planted"

    def encode_queries(self, texts):
        return units(list(texts))

    def encode_passages(self, texts, max_tokens):
        return units(list(texts))


def write(path, queries) -> None:
    """Write judgements in which a query is about the product of that name, and not about its neighbour."""
    names = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    with gzip.open(path, "wt", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "product_uid", "product_title", "search_term", "relevance"])
        for number in queries:
            for other, relevance in ((number, 3), ((number + 1) % len(names), 1.33)):
                rows.writerow([number, other, names[other].title(), names[number], relevance])


@pytest.fixture
def judgements(tmp_path):
    path = tmp_path / "judgements.csv.gz"
    write(path, range(64))
    return path


class TestReading:
    def test_a_query_is_in_one_split_only(self, judgements):
        collection = search_collections.read_judgements(judgements)
        taught, validation, test = (
            {query.query for query in queries}
            for queries in (collection.taught, collection.validation, collection.test)
        )
        assert len(taught) + len(test) == 64
        assert not taught & test
        assert validation < taught
        assert len(collection.documents) == 64
        assert sorted(collection.test[0].grades.values()) == pytest.approx([0.165, 1.0])

    def test_a_test_file_of_its_own_tests_alone(self, judgements, tmp_path):
        other = tmp_path / "other.csv.gz"
        write(other, range(10))
        collection = search_collections.read_judgements(judgements, other)
        assert len(collection.test) == 10
        assert not {query.query for query in collection.taught} & {query.query for query in collection.test}
        assert len(collection.taught) == 54

    def test_a_table_of_a_spreadsheet_is_read(self, tmp_path):
        path = tmp_path / "judgements.csv"
        lines = ["product_uid,product_title,search_term,relevance", *(f"{n},Tea {n},tea {n},3" for n in range(40))]
        path.write_text("\n".join(lines), encoding="utf-8-sig")
        assert len(search_collections.read_judgements(path).documents) == 40

    @pytest.mark.parametrize(
        "row", ["1,Tea,tea,0", "1,Tea,tea,nan", "1,Tea,tea,4", "1,Tea,tea", f"1,{'x' * 140_000},tea,3"]
    )
    def test_a_judgement_that_is_none_is_told(self, tmp_path, row):
        path = tmp_path / "judgements.csv"
        path.write_text(f"product_uid,product_title,search_term,relevance\n{row}\n")
        with pytest.raises(SoukError, match="cannot be read"):
            search_collections.read_judgements(path)

    @pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"product_uid,product_title,search_term,relevance\n"])
    def test_a_file_without_judgements_is_told(self, tmp_path, content):
        path = tmp_path / "bad.csv"
        path.write_bytes(content)
        with pytest.raises(SoukError, match=r"bad\.csv"):
            search_collections.read_judgements(path)

    def test_the_demo_shop_is_measured_by_what_was_meant(self):
        collection = search_collections.read_demo_shop(open_demo_shop(0.05, 0))
        assert "generated" in collection.name
        assert collection.taught
        assert collection.test
        for query in collection.test:
            assert len(query.grades) == len(collection.documents)
            assert max(query.grades.values()) >= RELEVANT

    def test_a_shop_is_measured_by_what_was_chosen(self):
        shop = open_demo_shop(0.05, 0)
        collection = search_collections.read_clicks(shop)
        assert "generated" in collection.name
        splits = [
            {query.query for query in part} for part in (collection.taught, collection.validation, collection.test)
        ]
        assert min(map(len, splits)) > 3
        assert len(set.union(*splits)) == sum(map(len, splits))
        assert {grade for query in collection.test for grade in query.grades.values()} == {0.0, 1.0}
        # What teaches keeps the difference between a look and a purchase; the best of each query is its measure.
        assert {0.0, 0.5, 1.0} <= {grade for query in collection.taught for grade in query.grades.values()}
        assert {max(query.grades.values()) for query in collection.taught} == {1.0}
        texts = {str(row["query_id"]): str(row["query_text"]).lower() for chunk in shop.queries() for row in chunk}
        query = collection.test[0]
        chosen = {
            str(event["item_id"])
            for chunk in shop.events()
            for event in chunk
            if texts.get(str(event.get("query_id"))) == query.query
        }
        assert {collection.ids[item] for item, grade in query.grades.items() if grade} == chosen

    def test_a_shop_without_searches_has_no_clicks(self, monkeypatch):
        shop = open_demo_shop(0.05, 0)
        monkeypatch.setattr(type(shop), "queries", lambda _: iter(()))
        with pytest.raises(SoukError, match="Nothing was chosen in the searches"):
            search_collections.read_clicks(shop)


@pytest.mark.slow
def test_figures_through_sql(server, template, judgements, tmp_path, monkeypatch):
    monkeypatch.setattr(search_evaluation, "load_encoder", lambda *_: PlantedEncoder())
    settings = replace(Settings.from_env({}), home=tmp_path / "home", database_url=server.dsn("postgres"))
    collection = search_collections.read_judgements(judgements)
    target = tmp_path / "figures.json"
    table = search_evaluation.evaluate_search(settings, collection, target)
    report = json.loads(target.read_text())
    assert report["queries"]["test"] == len(collection.test) > 0
    for key in ("as_typed", "one_typo"):
        assert set(search_evaluation.ARMS) < set(report[key])
        for figures in report[key].values():
            for figure in figures.values():
                assert figure["low"] <= figure["mean"] <= figure["high"]
    assert report["as_typed"]["souk"]["recall@10"]["mean"] == 1.0
    assert report["as_typed"]["souk"]["pairwise"]["mean"] == 1.0
    assert report["one_typo"]["souk"]["recall@10"]["mean"] > report["one_typo"]["BM25"]["recall@10"]["mean"] - 0.01
    assert report["met"] == all(report["targets"].values())
    assert "BM25 + transformer" in table

    # What the figures say must come from SQL.
    real = search_evaluation._publish

    def publish_reversed(settings, collection, vectors, index):
        return real(settings, collection, vectors[::-1], replace(index, lexical=index.lexical[::-1]))

    monkeypatch.setattr(search_evaluation, "_publish", publish_reversed)
    search_evaluation.evaluate_search(settings, collection, target)
    assert json.loads(target.read_text())["as_typed"]["souk"]["pairwise"]["mean"] < 0.9


def test_a_metric_that_no_query_has_is_left_out():
    values = np.array([[0.5, 0.5, 0.25, np.nan], [1.0, 0.5, 0.25, np.nan]])
    figures = search_evaluation._figures(values)
    assert set(figures) == set(search_evaluation.METRICS[:3])
    assert figures[search_evaluation.METRICS[0]]["mean"] == 0.75
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["evaluate"], "nothing to measure"),
        (["evaluate", "--search"], "nothing to measure search with"),
        (["evaluate", "--search", "--judgements", "/nowhere/j.csv"], "/nowhere/j.csv"),
    ],
)
def test_what_is_missing_is_told(capsys, arguments, told):
    assert cli.main(arguments) == 1
    assert told in capsys.readouterr().err
