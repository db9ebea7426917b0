from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pyarrow.parquet as pq
import pytest

from souk import release
from souk.errors import SoukError
from tests.sql.conftest import ANNA, TITLES, publish_shop

MAY, JUNE = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6))


def shown(dsn: str) -> str | None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select release_id from serving.pointer").fetchone()
    return row[0] if row else None


def test_publishing_again_is_recorded_and_changes_nothing(database, tmp_path):
    assert publish_shop(database, tmp_path) == "published"
    assert release.publish(database, "shop-1") == "unchanged"
    with psycopg.connect(database) as connection:
        outcomes = connection.execute("select outcome from serving.publication order by publication_no").fetchall()
    assert outcomes == [("published",), ("unchanged",)]


def test_an_older_interval_never_overtakes(database, tmp_path):
    assert publish_shop(database, tmp_path, "june", end=JUNE) == "published"
    assert publish_shop(database, tmp_path, "may", end=MAY) == "refused"
    assert shown(database) == "june"


def test_a_candidate_is_not_seen_and_not_published_without_audit(database, tmp_path):
    publish_shop(database, tmp_path)
    entry = release.Release("shop-2", "shop", "x", None, "test", True, True)
    release.load(database, entry, tmp_path / "shop-1", 1)
    assert shown(database) == "shop-1"
    with pytest.raises(SoukError, match="has not passed its audit"):
        release.publish(database, "shop-2")
    assert shown(database) == "shop-1"


def test_a_broken_file_leaves_the_served_release(database, tmp_path):
    publish_shop(database, tmp_path)
    assert pq.read_table(tmp_path / "shop-1" / "posting.parquet").num_rows
    (tmp_path / "shop-1" / "posting.parquet").write_bytes(b"no parquet")
    entry = release.Release("shop-2", "shop", "x", None, "test", True, True)
    with pytest.raises(Exception, match="(?i)parquet"):
        release.load(database, entry, tmp_path / "shop-1", 1)
    with psycopg.connect(database) as connection:
        parts = connection.execute(
            "select count(*) from pg_class where relname = %s", [release.partition("item", "shop-2")]
        )
        assert parts.fetchone() == (0,)
        assert connection.execute("select count(*) from api.recommend(%s, 3)", [ANNA]).fetchone() == (3,)


def test_old_releases_are_dropped_and_the_last_one_stays_for_a_rollback(database, tmp_path):
    for number in range(1, 5):
        assert publish_shop(database, tmp_path, f"shop-{number}") == "published"
    with psycopg.connect(database) as connection:
        kept = connection.execute("select distinct release_id from serving.item order by 1").fetchall()
        ledger = connection.execute("select count(*) from serving.release").fetchone()
        assert connection.execute("select count(*) from serving.item where release_id = 'shop-4'").fetchone() == (
            len(TITLES),
        )
    assert kept == [("shop-3",), ("shop-4",)]
    assert ledger == (4,)
    assert release.publish(database, "shop-3") == "published"
    assert shown(database) == "shop-3"


def test_a_release_that_was_dropped_can_come_back(database, tmp_path):
    for number in range(1, 4):
        publish_shop(database, tmp_path, f"shop-{number}")
    assert [release.is_kept(database, f"shop-{number}") for number in range(1, 4)] == [False, True, True]
    assert publish_shop(database, tmp_path, "shop-1") == "published"
    assert shown(database) == "shop-1"
    with pytest.raises(SoukError, match="is being served"):
        publish_shop(database, tmp_path, "shop-1")
