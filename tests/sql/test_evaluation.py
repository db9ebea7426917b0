"""`souk evaluate` on a small planted data set: the figures, and SQL against the batch scorer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from souk import evaluation, through_sql
from souk.errors import SoukError
from souk.settings import Settings
from souk.sources.amazon import open_sequences

pytestmark = pytest.mark.slow
ITEMS = 40


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "planted"
    folder.mkdir()
    with (folder / "items.jsonl").open("w") as items:
        for item in range(ITEMS):
            row = {
                "item_id": item,
                "title": f"thing number {item}",
                "description": "",
                "brand": "b",
                "categories": ["c"],
            }
            items.write(json.dumps(row) + "\n")
    with (folder / "sequences.txt").open("w") as sequences:
        for user in range(60):
            sequences.write(" ".join(str(n) for n in [user, *((user + step) % ITEMS for step in range(6))]) + "\n")
    return folder


def test_figures_and_agreement(server, template, files, tmp_path, monkeypatch):
    home = tmp_path / "home"
    settings = replace(Settings.from_env({}), home=home, database_url=server.dsn("postgres"))
    target = home / "figures.json"
    dataset = open_sequences(files / "items.jsonl", files / "sequences.txt")
    table = evaluation.evaluate(settings, dataset, 20, evaluation.Outputs(target))
    report = json.loads(target.read_text())
    assert (report["data"], report["items"], report["users"]) == ("planted", ITEMS, 60)
    assert set(report["arms"]) == {"popularity", "item-knn", "transition", "souk"}
    assert report["arms"]["transition"]["test"]["recall@10"] > 0.9 > report["arms"]["popularity"]["test"]["recall@10"]
    assert report["through_sql"]["users"] == 20
    assert report["through_sql"]["largest_difference"] < through_sql.SAME_SCORE
    assert report["through_sql"]["same_lists"] == 20
    assert report["through_sql"]["ndcg@10_batch"] > 0.3
    assert report["through_sql"]["ndcg@10_sql"] == pytest.approx(report["through_sql"]["ndcg@10_batch"], abs=5e-4)
    assert "souk" in table

    real = through_sql.score
    monkeypatch.setattr(through_sql, "score", lambda model, history: real(model, history) * 1.01)
    with pytest.raises(SoukError, match="SQL and the batch scorer differ"):
        evaluation.evaluate(settings, dataset, 20)
