"""The sound shop as files and as tables; every test breaks its own copy."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from souk.artefacts import TABLES
from souk.refinement import IN_FORCE, MOVED
from tests.sql.gates.sound import ITEMS, RELEASE, SHOP, TEXT, USERS, refined, vectors, write_lists


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """The files of a sound release."""
    folder = tmp_path / SHOP
    release = folder / "releases" / RELEASE
    for each in (folder / "vectors", release):
        each.mkdir(parents=True)
    pq.write_table(pa.table({"item_id": ITEMS}), folder / "items.parquet")
    pq.write_table(vectors(), folder / "vectors" / "part-0.parquet")
    words = pa.array([[0.5, 1.5]] * 20, pa.list_(pa.float32()))
    items = vectors(lexical_values=words).rename_columns(["item_id", "text_vector", "lexical_values"])
    pq.write_table(items, release / "item.parquet")
    edges = {"src": pa.array(range(19), pa.int32()), "dst": [[n + 1, 0] if n else [1, 2] for n in range(19)]}
    write_lists(release / "edge.parquet", {**edges, "val": [[0.5, 0.25]] * 19})
    write_lists(release / "term.parquet", {"item_nos": [[3, 1], []], "weights": [[0.7, 0.6], []]})
    weights = {"term": ["sequence", "transition", "tfidf", "encoder", "popularity"], "val": [2.0, 1.0, 0.5, 0.0, 0.2]}
    pq.write_table(pa.table(weights), release / "weight.parquet")
    settled = folder / "refined" / RELEASE
    settled.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([refined()], IN_FORCE), settled / "texts.parquet")
    pq.write_table(vectors().slice(4, 1), settled / MOVED)
    return tmp_path


@pytest.fixture
def sound(database: str) -> str:
    """A database with a sound shop in `raw`, `marts` and `serving`."""
    unit = "('[1' || repeat(',0', 383) || ']')::halfvec"
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into raw.landing (shop, source, manifest_hash, is_generated, has_clock, state)"
            " values (%s, 'files', 'h', false, true, 'complete')",
            [SHOP],
        )
        for item in ITEMS:
            connection.execute(
                "insert into raw.product (shop, item_id, title, price, landing_no)"
                " select %s, %s, 'Tea', 3, landing_no from raw.landing",
                [SHOP, item],
            )
        connection.execute(
            "insert into raw.event (shop, event_id, user_key, item_id, kind, event_at, landing_no)"
            " select shop, u || item_id, u, item_id, 'view', '2026-01-01', landing_no"
            " from raw.product, unnest(%s::text[]) as u",
            [USERS],
        )
        connection.execute(
            "insert into raw.query (shop, query_id, query_text, lang, searched_at, landing_no)"
            " select shop, 'q', 'tea', 'en', '2026-01-01', landing_no from raw.landing"
        )
        connection.execute(
            "create schema marts;"
            " create table marts.dim_items as"
            " select shop, item_id, title, 'Tea.' as description, md5(title) as text_hash, 3 as event_count"
            " from raw.product;"
            " create table marts.fct_interactions as"
            " select shop, event_id, user_key, item_id, 0.4::real as strength from raw.event;"
            " create table marts.dim_user_profiles as"
            " select shop, user_key, count(*) as event_count, 0.1::real as sentiment from raw.event group by 1, 2"
        )
        for table in TABLES:
            connection.execute(
                f"create table serving.{table}_1 partition of serving.{table} for values in ('{RELEASE}')"
            )
        connection.execute(
            "insert into serving.release (release_id, shop, state, content_hash, encoder, is_generated, has_clock,"
            " metrics) values (%s, %s, 'candidate', 'h', 'e', false, true,"
            ' \'{"index_recall": 0.99, "sequence_recall": 0.99}\')',
            [RELEASE, SHOP],
        )
        connection.execute(
            "insert into serving.item (release_id, item_no, item_id, title, description, categories, lang, key_terms,"
            f" popularity, text_vector, lexical, sequence_input, sequence_output) select '{RELEASE}', substr(item_id, 2)::int, item_id, title, '', '{{}}',"
            f" 'en', '{{}}', 0.5, {unit}, '{{1:0.5,7:1.5}}/1000000000', array_fill(1::real, array[256])::halfvec,"
            f" array_fill(1::real, array[257])::halfvec from raw.product;"
            f" insert into serving.position_weight values ('{RELEASE}', 0, array_fill(1::real, array[256])::vector);"
            f" insert into serving.popularity values ('{RELEASE}', '{{0,20}}', '{{0.5,0}}');"
            f" insert into serving.edge select '{RELEASE}', n, 'encoder', array[n + 1, (n + 19) % 20], '{{0.5,0.25}}'"
            " from generate_series(0, 18) as n;"
            f" insert into serving.weight select '{RELEASE}', term, 1, 0.5"
            " from unnest('{sequence,transition,tfidf,encoder,popularity}'::text[]) as term;"
            f" insert into serving.term values ('{RELEASE}', 'tea', 1, 20, 0.1, '{{3,1}}', '{{0.7,0.6}}', {unit}),"
            f" ('{RELEASE}', '#te', 2, 20, 0.1, '{{}}', '{{}}', null);"
            f" insert into serving.spelling values ('{RELEASE}', 'te', '{{tea}}');"
            f" insert into serving.category values ('{RELEASE}', 'query', 'Tea', 0.1, {unit}::vector);"
            f" insert into serving.item_day values ('{RELEASE}', '2026-01-01', 3, 2)"
        )
        connection.execute(
            f"insert into serving.user_profile select '{RELEASE}', shop, user_key, '{{1}}', '{{1,2}}', '{{2}}', {unit},"
            " null, '{}' from marts.dim_user_profiles"
        )
        connection.execute(
            "insert into ops.refinement (shop, item_id, text_hash, model_version, old_text, new_text, state, releases)"
            " values (%s, 'i3', 'h', 'v', 'Tea.', %s, 'proposed', %s)",
            [SHOP, TEXT, [RELEASE]],
        )
        connection.execute("update serving.item set is_refined = true, description = %s where item_no = 3", [TEXT])
        connection.execute("insert into serving.original values (%s, 3, 'Tea.')", [RELEASE])
    return database
