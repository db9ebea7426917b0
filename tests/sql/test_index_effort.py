"""What the vector indexes are asked with is measured on the release, and far products are found as well."""

from __future__ import annotations

import logging

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from psycopg.types.json import Jsonb

from souk import index_effort
from souk.index_effort import SEQUENCE, TEXTS, Index

pytestmark = pytest.mark.slow

COUNT, CLUSTERS = 3000, 60
GOOD, POOR = "m = 16, ef_construction = 64", "m = 2, ef_construction = 4"
both = pytest.mark.parametrize("index", [TEXTS, SEQUENCE], ids=["texts", "sequence"])


def clustered() -> np.ndarray:
    """Unit vectors of products in clusters, the clusters one after the other: (3000, 384)."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((CLUSTERS, 384))
    vectors = centres[np.arange(COUNT) * CLUSTERS // COUNT] + 0.7 * rng.standard_normal((COUNT, 384))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def load(dsn: str, vectors: np.ndarray, graph: str) -> psycopg.Connection:
    """A connection to a release of products with these vectors; the brand of the last two thirds is Far.

    To the sequence model, whom a product suits and what it says of a shopper are the first 256 numbers.
    """
    connection = psycopg.connect(dsn, autocommit=True)
    for table in ("item", "position_weight"):
        connection.execute(f"create table serving.{table}_1 partition of serving.{table} for values in ('r')")
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into serving.item (release_id, item_no, item_id, title, description, brand, categories, lang,"
            " key_terms, popularity, text_vector, lexical, sequence_input, sequence_output) values ('r', %s, %s, 't',"
            " '', %s, '{}', 'en', '{}', 0.5, %s::halfvec, '{1:1}/1000000000', %s::halfvec, %s::halfvec)",
            [
                (
                    *(number, f"p{number}", "Far" if number >= COUNT / 3 else "Near", str(vector.tolist())),
                    *(str(vector[:256].tolist()), str([*(10 * vector[:256]).tolist(), 0])),
                )
                for number, vector in enumerate(vectors)
            ],
        )
    connection.execute(
        "insert into serving.position_weight (release_id, place, vec)"
        " select 'r', p.place, array_fill(1::real, array[256])::vector from generate_series(0, 19) as p (place)"
    )
    for column, kind in ((TEXTS.column, "halfvec_cosine_ops"), (SEQUENCE.column, "halfvec_ip_ops")):
        connection.execute(f"create index on serving.item_1 using hnsw ({column} {kind}) with ({graph})")
    connection.execute("create index on serving.item_1 (brand) include (item_no, is_available)")
    connection.execute(
        "insert into serving.release (release_id, shop, state, content_hash, encoder, is_generated, has_clock)"
        " values ('r', 'shop', 'candidate', 'h', 'e', true, true)"
    )
    connection.execute("analyze serving.item_1")
    return connection


def recall(connection: psycopg.Connection, vectors: np.ndarray, index: Index, effort: int | None) -> float:
    """Of the ten best for some products, compared with all."""
    hits, asked = 0, range(0, COUNT, 50)
    compared = vectors if index == TEXTS else vectors[:, :256]
    for number in asked:
        products = compared @ compared[number]
        products[number] = -np.inf
        rows = connection.execute(
            f"select n.item_no from serving.item as i, internal.{'nearest' if index == TEXTS else 'likely'}"
            f"('r', {index.query}, array[i.item_no], {index.asked}, '{{}}', %s) as n where i.item_no = %s",
            [effort, number],
        ).fetchall()
        assert 10 <= len(rows) <= index.asked
        hits += len({row[0] for row in rows} & set(np.argsort(-products)[:10].tolist()))
    return hits / len(asked) / 10


@both
def test_a_good_graph_needs_little_effort(database, index):
    vectors = clustered()
    with load(database, vectors, GOOD) as connection:
        effort = index_effort.measure(connection, "r", index)
        assert effort.ef_search == index.efforts[0]
        assert effort.recall >= index_effort.ENOUGH
        assert recall(connection, vectors, index, effort.ef_search) == pytest.approx(effort.recall, abs=0.01)


@both
def test_a_poor_graph_gets_more_effort_and_the_release_keeps_it(database, caplog, index):
    vectors = clustered()
    with load(database, vectors, POOR) as connection, caplog.at_level(logging.WARNING, "souk.index_effort"):
        least = recall(connection, vectors, index, index.efforts[0])
        assert least < index_effort.ENOUGH
        assert recall(connection, vectors, index, None) == least
        effort = index_effort.measure(connection, "r", index)
        assert effort.ef_search > index.efforts[0]
        assert effort.recall > least
        assert (effort.recall < index_effort.ENOUGH) == ("at its most effort" in caplog.text)
        kept = {"index_effort" if index == TEXTS else "sequence_effort": effort.ef_search}
        connection.execute("update serving.release set metrics = %s", [Jsonb(kept)])
        assert recall(connection, vectors, index, None) == recall(connection, vectors, index, effort.ef_search) > least


@both
def test_products_that_cannot_be_had_are_not_missed(database, index):
    with load(database, clustered(), GOOD) as connection:
        connection.execute("update serving.item set is_available = item_no % 2 = 0")
        assert index_effort.measure(connection, "r", index).recall >= index_effort.ENOUGH


@both
def test_any_of_some_equal_products_is_found(database, index):
    vectors = np.repeat(clustered()[::10], 10, axis=0)
    with load(database, vectors, GOOD) as connection:
        effort = index_effort.measure(connection, "r", index)
        assert effort.ef_search == index.efforts[0]
        assert effort.recall >= index_effort.ENOUGH


@both
@pytest.mark.parametrize("vectors", [np.zeros((3, 384)), np.eye(1, 384), np.zeros((0, 384))])
def test_where_there_is_nothing_to_find_nothing_is_missed(database, vectors, index):
    with load(database, vectors, GOOD) as connection:
        assert index_effort.measure(connection, "r", index) == index_effort.Effort(index.efforts[0], 1.0)


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
