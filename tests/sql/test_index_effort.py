"""What the vector index is asked with is measured on the release, and far products are found as well."""

from __future__ import annotations

import logging

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector

from souk import index_effort

COUNT, CLUSTERS = 3000, 60
GOOD, POOR = "m = 16, ef_construction = 64", "m = 2, ef_construction = 4"


def clustered() -> np.ndarray:
    """Unit vectors of products in clusters, the clusters one after the other: (3000, 384)."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((CLUSTERS, 384))
    vectors = centres[np.arange(COUNT) * CLUSTERS // COUNT] + 0.7 * rng.standard_normal((COUNT, 384))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def load(dsn: str, vectors: np.ndarray, graph: str) -> psycopg.Connection:
    """A connection to a release of products with these vectors; the brand of the last two thirds is Far."""
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute("create table serving.item_1 partition of serving.item for values in ('r')")
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into serving.item (release_id, item_no, item_id, title, description, brand, categories, lang,"
            " key_terms, popularity, text_vector, lexical, sequence_input, sequence_output) values ('r', %s, %s, 't',"
            " '', %s, '{}', 'en', '{}', 0.5, %s::halfvec, '{1:1}/1000000000', array_fill(1::real, array[256])::halfvec,"
            " array_fill(1::real, array[257])::halfvec)",
            [
                (number, f"p{number}", "Far" if number >= COUNT / 3 else "Near", str(vector.tolist()))
                for number, vector in enumerate(vectors)
            ],
        )
    connection.execute(f"create index on serving.item_1 using hnsw (text_vector halfvec_cosine_ops) with ({graph})")
    connection.execute("create index on serving.item_1 (brand) include (item_no, is_available)")
    connection.execute(
        "insert into serving.release (release_id, shop, state, content_hash, encoder, is_generated, has_clock)"
        " values ('r', 'shop', 'candidate', 'h', 'e', true, true)"
    )
    connection.execute("analyze serving.item_1")
    return connection


def recall(connection: psycopg.Connection, vectors: np.ndarray, effort: int | None) -> float:
    """Of the ten nearest of some products, compared with all."""
    hits, asked = 0, range(0, COUNT, 50)
    for number in asked:
        cosines = vectors @ vectors[number]
        cosines[number] = -1
        rows = connection.execute(
            "select item_no from internal.nearest('r', %s::halfvec, array[%s], 10, '{}', %s)",
            [str(vectors[number].tolist()), number, effort],
        ).fetchall()
        assert len(rows) == 10
        hits += len({row[0] for row in rows} & set(np.argsort(-cosines)[:10].tolist()))
    return hits / len(asked) / 10


def test_a_good_graph_needs_little_effort(database):
    vectors = clustered()
    with load(database, vectors, GOOD) as connection:
        effort = index_effort.measure(connection, "r")
        assert effort.ef_search == index_effort.EFFORTS[0]
        assert effort.recall >= index_effort.ENOUGH
        assert recall(connection, vectors, effort.ef_search) == pytest.approx(effort.recall, abs=0.01)


def test_a_poor_graph_gets_more_effort_and_the_release_keeps_it(database, caplog):
    vectors = clustered()
    with load(database, vectors, POOR) as connection, caplog.at_level(logging.WARNING, "souk.index_effort"):
        least = recall(connection, vectors, index_effort.EFFORTS[0])
        assert least < index_effort.ENOUGH
        assert recall(connection, vectors, None) == least
        effort = index_effort.measure(connection, "r")
        assert effort.ef_search > index_effort.EFFORTS[0]
        assert effort.recall > least
        assert (effort.recall < index_effort.ENOUGH) == ("at its most effort" in caplog.text)
        connection.execute(
            "update serving.release set metrics = jsonb_build_object('index_effort', %s::integer)", [effort.ef_search]
        )
        assert recall(connection, vectors, None) == recall(connection, vectors, effort.ef_search) > least


def test_any_of_some_equal_products_is_found(database):
    vectors = np.repeat(clustered()[::10], 10, axis=0)
    with load(database, vectors, GOOD) as connection:
        effort = index_effort.measure(connection, "r")
        assert effort.ef_search == index_effort.EFFORTS[0]
        assert effort.recall >= index_effort.ENOUGH


@pytest.mark.parametrize("vectors", [np.zeros((3, 384)), np.eye(1, 384), np.zeros((0, 384))])
def test_where_there_is_nothing_to_find_nothing_is_missed(database, vectors):
    with load(database, vectors, GOOD) as connection:
        assert index_effort.measure(connection, "r") == index_effort.Effort(index_effort.EFFORTS[0], 1.0)


@pytest.mark.parametrize("k", [1, 10, 30])
def test_many_products_that_lie_far_away_are_compared_one_by_one(database, k):
    vectors = clustered()
    with load(database, vectors, GOOD) as connection:
        few = connection.execute("select sqrt(12 * 30 * %s)", [COUNT]).fetchone()[0]
        assert few < COUNT * 2 / 3, "they are not many"
        stored = np.array(
            [
                row[0]
                for row in connection.execute(
                    "select text_vector::real[] from serving.item order by item_no"
                ).fetchall()
            ]
        )
        for number in (0, 333, 777):
            cosines = stored @ stored[number]
            cosines[: COUNT // 3] = -1
            rows = connection.execute(
                "select item_no, score from internal.nearest('r', %s, '{}', %s, '{\"brand\": \"Far\"}')",
                [HalfVector(stored[number]).to_text(), k],
            ).fetchall()
            assert [score for _, score in rows] == pytest.approx(-np.sort(-cosines)[:k], abs=1e-5)
            assert min(number for number, _ in rows) >= COUNT // 3
