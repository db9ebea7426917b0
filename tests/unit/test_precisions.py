"""What `souk precisions` allows, on encoders that are planted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ml.search import Document, Judged
from souk import precisions
from souk.errors import SoukError
from souk.search_collections import Collection
from souk.settings import Settings

TITLES = [f"product {number}" for number in range(60)]


class Planted:
    """A text's vector is that of its last number, moved by noise."""

    def __init__(self, noise: float) -> None:
        self.noise = noise
        self.vectors = np.random.default_rng(0).normal(size=(len(TITLES), 16))

    def encode_passages(self, texts, max_tokens):
        chance = np.random.default_rng(1)
        vectors = np.array([self.vectors[int(text.rstrip(".").split()[-1])] for text in texts])
        return (vectors + self.noise * chance.normal(size=vectors.shape)).astype(np.float32)

    def encode_queries(self, texts):
        return np.array([self.vectors[int(text.split()[-1])] for text in texts], np.float32)


def collection(queries: list[Judged]) -> Collection:
    documents = [Document(title, "", "", ()) for title in TITLES]
    return Collection("planted", "", TITLES, documents, queries, [], [])


def test_a_precision_that_loses_too_much_is_not_allowed(monkeypatch, tmp_path):
    noise = {"fp32": 0.0, "bf16": 1e-4, "int8": 2.0}
    monkeypatch.setattr(precisions, "load_encoder", lambda *given: Planted(noise[given[2]]))
    monkeypatch.setattr(precisions, "MOST_QUERIES", 40)
    queries = [Judged(f"find {number}", {number: 1.0, (number + 1) % 60: 0.0}) for number in range(60)]
    settings = replace(Settings.from_env({}), home=tmp_path)
    table = precisions.measure_precisions(settings, collection(queries), tmp_path / "out" / "figures.json")
    report = json.loads((tmp_path / "out" / "figures.json").read_text())
    rows = report["precisions"]
    assert {name: row["is_allowed"] for name, row in rows.items()} == {"fp32": True, "bf16": True, "int8": False}
    assert rows["fp32"]["ndcg@10"] == 1.0
    assert rows["fp32"]["loss"] == rows["bf16"]["loss"] == 0.0
    assert rows["int8"]["loss"] == pytest.approx(1 - rows["int8"]["ndcg@10"]) != 0
    assert rows["int8"]["loss_low"] < rows["int8"]["loss"] < rows["int8"]["loss_high"]
    assert (report["queries"], report["fastest_allowed"] != "int8") == (40, True)
    assert f"SOUK_ENCODER_PRECISION={report['fastest_allowed']}" in table
    assert len(table.splitlines()) == 6


def test_without_queries_there_is_nothing_to_measure(tmp_path):
    with pytest.raises(SoukError, match="planted has no query to measure with"):
        precisions.measure_precisions(replace(Settings.from_env({}), home=tmp_path), collection([]))
