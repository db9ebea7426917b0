from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from souk import release
from souk.errors import SoukError
from souk.index_build import LARGE, Progress, create_index, graph_options, set_resources
from tests.sql.conftest import ANNA, TITLES, publish_shop

MAY, JUNE = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6))


def shown(dsn: str, shop: str = "shop") -> str | None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select release_id from serving.pointer where shop = %s", [shop]).fetchone()
    return row[0] if row else None


def test_what_was_written_is_what_is_served(shop, tmp_path):
    files = {table: pq.read_table(tmp_path / "shop-1" / f"{table}.parquet").to_pylist() for table in release.TABLES}
    assert [table for table, rows in files.items() if not rows] == []
    vectors = {"text_vector", "sequence_input", "sequence_output", "vec", "praise", "complaint"}
    for table, rows in files.items():
        names = [name for name in release.SCHEMAS[table].names if not name.startswith("lexical_")]
        columns = [f"{name}::vector::real[]" if name in vectors else name for name in names]
        served = shop.execute(f"select {', '.join(columns)} from serving.{table}", binary=True).fetchall()
        expected = [
            tuple(
                json.loads(value) if name in ("attributes", "profile") else value
                for name, value in row.items()
                if not name.startswith("lexical_")
            )
            for row in rows
        ]
        key = 1 if table == "user_profile" else slice(0, 2)
        assert sorted(served, key=lambda row: row[key]) == sorted(expected, key=lambda row: row[key])
    lexical = dict(shop.execute("select item_no, lexical::text from serving.item").fetchall())
    for row in files["item"]:
        positions, values = lexical[row["item_no"]].split("/")[0], row["lexical_values"]
        found = dict(part.split(":") for part in positions.strip("{}").split(","))
        assert [int(place) - 1 for place in found] == row["lexical_positions"]
        assert [float(value) for value in found.values()] == pytest.approx(values)


def test_a_part_is_laid_out_like_its_table(shop):
    query = (
        "select array_agg(a.attname || a.attstorage::text order by a.attnum), c.relowner, c.relallvisible = c.relpages"
        " from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0"
        " where c.oid = %s::regclass group by c.oid"
    )
    for table in release.TABLES:
        parent = shop.execute(query, [f"serving.{table}"]).fetchone()
        part = shop.execute(query, [f"serving.{release.partition(table, 'shop-1')}"]).fetchone()
        assert part[:2] == parent[:2]
        assert part[2], "a page that is not known to be visible is read for nothing"


def test_an_index_that_shared_memory_cannot_hold_is_built_by_one_process(database):
    with psycopg.connect(database) as connection:
        create_index(
            connection,
            database,
            sql.SQL(
                "do $$ begin if current_setting('max_parallel_maintenance_workers')::int > 0 then"
                " raise sqlstate '53100'; end if; end $$"
            ),
            "nothing",
            0,
        )
        assert connection.execute("show max_parallel_maintenance_workers").fetchone() == ("0",)


@pytest.mark.slow
def test_how_far_an_index_is_becomes_log_lines(database, caplog):
    with psycopg.connect(database) as connection, caplog.at_level(logging.INFO, "souk.index_build"):
        connection.execute(
            "create table many as select array[random(), random(), random()]::real[]::vector(3) as v"
            " from generate_series(1, 6000) as g"
        )
        set_resources(connection, 6000)
        statement = "create index on many using hnsw (v vector_l2_ops) with (ef_construction = 400, m = 32)"
        with Progress(database, connection.info.backend_pid, "many", 6000, pause=0.02):
            connection.execute(statement)
    shares = [int(record.args[1]) for record in caplog.records]
    assert shares, "nothing was said of the index"
    assert shares == sorted(shares)
    assert all(0 <= share <= 100 for share in shares)
    assert caplog.records[0].getMessage().endswith("% of 6,000 rows")


def test_a_server_that_is_set_to_one_process_keeps_it(database):
    for given, workers in (("0", 0), ("1", max(1, min((os.cpu_count() or 1) - 1, 8)))):
        with psycopg.connect(database) as connection:
            connection.execute(f"set max_parallel_maintenance_workers = {given}")
            set_resources(connection, 100_000)
            found = connection.execute(
                "select current_setting('max_parallel_maintenance_workers')::int,"
                " pg_size_bytes(current_setting('maintenance_work_mem')) / 1000000"
            ).fetchone()
        assert found == (workers, 240)


def test_a_large_graph_gets_more_links():
    assert graph_options(LARGE) == "m = 16, ef_construction = 64"
    assert graph_options(LARGE + 1) == "m = 24, ef_construction = 128"


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
    assert pq.read_table(tmp_path / "shop-1" / "term.parquet").num_rows
    (tmp_path / "shop-1" / "term.parquet").write_bytes(b"no parquet")
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


def test_a_reader_that_stays_keeps_old_tables_and_stops_no_publication(database, tmp_path):
    publish_shop(database, tmp_path, "shop-1")
    with psycopg.connect(database) as reader:
        assert reader.execute("select count(*) from serving.item").fetchone() == (len(TITLES),)
        for number in range(2, 5):
            assert publish_shop(database, tmp_path, f"shop-{number}") == "published"
            assert shown(database) == f"shop-{number}"
    # The detachment that was broken off is finished by the next publication.
    with psycopg.connect(database) as connection:
        assert connection.execute("select count(*) from pg_inherits where inhdetachpending").fetchone() == (1,)
    assert publish_shop(database, tmp_path, "shop-5") == "published"
    with psycopg.connect(database) as connection:
        assert connection.execute("select distinct release_id from serving.item order by 1").fetchall() == [
            ("shop-4",),
            ("shop-5",),
        ]
        assert connection.execute("select count(*) from pg_inherits where inhdetachpending").fetchone() == (0,)


def test_a_transaction_that_changes_products_and_stays_open_is_told(database, tmp_path, monkeypatch):
    monkeypatch.setattr(release, "PUBLISH_ATTEMPTS", 1)
    publish_shop(database, tmp_path, "shop-1")
    with psycopg.connect(database) as application:
        application.execute("select api.upsert_product('wok', 'Wok')")
        with pytest.raises(SoukError, match="shop-2 is not shown: a transaction that changes products stays open"):
            publish_shop(database, tmp_path, "shop-2")
    assert shown(database) == "shop-1"
    assert release.publish(database, "shop-2") == "published"


def test_a_release_that_was_dropped_can_come_back(database, tmp_path):
    for number in range(1, 4):
        publish_shop(database, tmp_path, f"shop-{number}")
    assert [release.is_kept(database, f"shop-{number}") for number in range(1, 4)] == [False, True, True]
    assert publish_shop(database, tmp_path, "shop-1") == "published"
    assert shown(database) == "shop-1"
    with pytest.raises(SoukError, match="is being served"):
        publish_shop(database, tmp_path, "shop-1")


def test_a_release_that_was_loaded_without_a_measure_of_its_index_gets_one(database, tmp_path):
    publish_shop(database, tmp_path, "shop-1")
    query = "select metrics from serving.release where release_id = 'shop-1'"
    with psycopg.connect(database, autocommit=True) as connection:
        (measured,) = connection.execute(query).fetchone()
        connection.execute("update serving.release set metrics = '{}'")
        release.measure(database, "shop-1")
        assert connection.execute(query).fetchone() == (measured,)
        kept = {"index_effort": 1000, "index_recall": 0.95, "sequence_effort": 400, "sequence_recall": 0.99}
        connection.execute("update serving.release set metrics = %s", [Jsonb(kept)])
        release.measure(database, "shop-1")
        assert connection.execute(query).fetchone() == (kept,)
    assert measured["index_recall"] == measured["sequence_recall"] == 1


def test_each_shop_shows_its_own_release_and_keeps_the_one_before(database, tmp_path):
    for number in range(1, 4):
        assert publish_shop(database, tmp_path, f"shop-{number}") == "published"
        assert publish_shop(database, tmp_path, f"other-{number}", shop="other") == "published"
    assert (shown(database), shown(database, "other")) == ("shop-3", "other-3")
    with psycopg.connect(database) as connection:
        kept = connection.execute("select distinct release_id from serving.item order by 1").fetchall()
    assert kept == [("other-2",), ("other-3",), ("shop-2",), ("shop-3",)]
