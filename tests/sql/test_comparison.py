"""A candidate against the release that is shown: the ledger, the page, and what is let through."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from ml.champion import Trial
from souk.comparison import PAGE, compare_with_champion, read_trial, trial_key, write_trial
from souk.errors import SoukError
from tests.sql.conftest import publish_shop

CANDIDATE = {"shop": "shop", "release_id": "shop-2", "is_generated": True}


def trial(gain: float) -> Trial:
    chance = np.random.default_rng(0)
    gains = gain * chance.random(400)
    return Trial(np.array([trial_key(f"u{n}", "i1") for n in range(400)]), gains, (gains > 0).astype(float), 0.5, 0.25)


@pytest.fixture
def releases(database, tmp_path):
    """The folder of two loaded releases; shop-1 is shown."""
    for name in ("shop-2", "shop-1"):
        assert publish_shop(database, tmp_path, name) == "published"
    write_trial(tmp_path / "shop-1", trial(0.5))
    return tmp_path


def ledger(database):
    with psycopg.connect(database) as connection:
        return connection.execute(
            "select champion_id, is_passed, verdict, figures from ops.comparison where release_id = 'shop-2'"
        ).fetchall()


def test_a_trial_is_read_as_it_was_written(tmp_path):
    write_trial(tmp_path, trial(0.5))
    found = read_trial(tmp_path)
    assert found.keys.tolist() == trial(0.5).keys.tolist()
    assert np.array_equal(found.ndcg, trial(0.5).ndcg)
    assert (found.coverage, found.popularity) == (0.5, 0.25)


def test_a_better_release_passes_and_is_recorded_with_a_page(database, releases):
    write_trial(releases / "shop-2", trial(0.6))
    verdict = compare_with_champion(database, releases, CANDIDATE)
    assert verdict.startswith("Passed: NDCG@10 0.3")
    [(champion, is_passed, kept, figures)] = ledger(database)
    assert (champion, is_passed, kept) == ("shop-1", True, verdict)
    assert figures["champion"]["ndcg@10"] < figures["challenger"]["ndcg@10"]
    assert figures["difference"]["shoppers"] == 400
    assert figures["challenger"]["median_ms"] > 0
    assert 0 < figures["difference"]["low"] <= figures["difference"]["high"]
    assert (releases / "shop-2" / PAGE).read_bytes().startswith(b"\x89PNG")
    with psycopg.connect(database) as connection:
        [(own,)] = connection.execute("select trial from serving.release where release_id = 'shop-2'").fetchall()
    assert own["shoppers"] == 400


def test_a_worse_release_goes_no_further_unless_it_is_accepted(database, releases):
    write_trial(releases / "shop-2", trial(0.3))
    for _ in range(2):
        with pytest.raises(SoukError, match="Blocked: it ranks worse") as blocked:
            compare_with_champion(database, releases, CANDIDATE)
        assert "shop-1 keeps serving" in str(blocked.value.next_step)
    assert [row[1] for row in ledger(database)] == [False]
    assert compare_with_champion(database, releases, CANDIDATE, accept_worse=True).startswith(
        "Accepted although it ranks"
    )
    assert [row[1] for row in ledger(database)] == [True]


def test_without_a_champion_there_is_nothing_to_lose(database, releases):
    write_trial(releases / "shop-2", trial(0.1))
    (releases / "shop-1" / "trial.parquet").unlink()
    assert "shop-1 was not tried" in compare_with_champion(database, releases, CANDIDATE)
    with psycopg.connect(database) as connection:
        connection.execute("delete from serving.pointer")
    assert "no other release" in compare_with_champion(database, releases, CANDIDATE)
    assert ledger(database) == []
