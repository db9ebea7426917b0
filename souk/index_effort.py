"""How hard the vector index of a release must look to find what an exact search finds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql

log = logging.getLogger(__name__)
Connection = psycopg.Connection[Any]

# Values of hnsw.ef_search to choose from; 1,000 is the most that pgvector takes.
EFFORTS = (200, 300, 400, 600, 800, 1000)
ENOUGH = 0.99
K, SAMPLES = 10, 300
# Products with one and the same vector are as near as each other, whichever of them is found.
TIE = 1e-4
ROWS_PER_BLOCK = 20_000


@dataclass(frozen=True)
class Effort:
    """What a release's vector index is asked with.

    Attributes:
        ef_search: Candidates that a search keeps in view (`hnsw.ef_search`).
        recall: Share of the ten nearest products that it finds with it; 1 where there was nothing to find.
    """

    ef_search: int
    recall: float


def measure(connection: Connection, release_id: str) -> Effort:
    """Return the least effort with which the index finds 99 of 100 of the ten nearest products.

    The ten nearest of a sample of products are found by comparing it with all, in one pass over the table, and by the
    function that serves them.

    Args:
        connection: With the release loaded and indexed.
        release_id: The release.

    Returns:
        The most that there is, with what it finds, where nothing is enough.
    """
    register_vector(connection)
    queries = _sample(connection, release_id)
    nearest = _nearest(connection, release_id, queries)
    wanted = sum(map(len, nearest.values()))
    recall = 1.0
    for ef_search in EFFORTS if wanted else EFFORTS[:1]:
        found = 0
        for number, cosines in nearest.items():
            rows = connection.execute(
                "select score from internal.nearest(%s, %s, array[%s], %s, '{}', %s)",
                [release_id, queries[number], number, len(cosines), ef_search],
            ).fetchall()
            found += sum(bool(score >= cosines[-1] - TIE) for (score,) in rows)
        recall = found / wanted if wanted else 1.0
        if recall >= ENOUGH:
            break
    else:
        log.warning("the vector index finds %.1f %% of the nearest products at its most effort", 100 * recall)
    return Effort(ef_search, round(recall, 4))


def _sample(connection: Connection, release_id: str) -> dict[int, HalfVector]:
    """Return the vectors of products that lie evenly in the release, by number; those without text left out."""
    rows = connection.execute(
        "with every as (select greatest(max(item_no) / %(count)s, 1) as step from serving.item"
        " where release_id = %(release)s) select item_no, text_vector from serving.item, every"
        " where release_id = %(release)s and l2_norm(text_vector) > 0 and item_no %% step = 0",
        {"release": release_id, "count": SAMPLES},
    ).fetchall()
    return dict(rows)


def _nearest(connection: Connection, release_id: str, queries: dict[int, HalfVector]) -> dict[int, NDArray[np.float32]]:
    """Return the cosines of the ten products nearest to each query, but for itself, the highest first."""
    if not queries:
        return {}
    own = np.array(list(queries))[:, None]
    wanted = np.stack([query.to_numpy() for query in queries.values()]).astype(np.float32)
    best = np.full((len(own), K), -np.inf, np.float32)
    for numbers, vectors in _blocks(connection, release_id):
        cosines = wanted @ vectors.T
        cosines[own == numbers] = -np.inf
        best = -np.partition(-np.concatenate([best, cosines], axis=1), K - 1, axis=1)[:, :K]
    best = -np.sort(-best, axis=1)
    return {number: row[np.isfinite(row)] for number, row in zip(queries, best, strict=True)}


def _blocks(connection: Connection, release_id: str) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Yield numbers (n,) and vectors (n, 384) of the products that have a text."""
    statement = sql.SQL(
        "copy (select item_no, text_vector from serving.item where release_id = {} and l2_norm(text_vector) > 0)"
        " to stdout (format binary)"
    ).format(sql.Literal(release_id))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["int4", "halfvec"])
        rows = copy.rows()
        while block := list(islice(rows, ROWS_PER_BLOCK)):
            numbers, vectors = zip(*block, strict=True)
            yield np.array(numbers, np.int32), np.stack([vector.to_numpy() for vector in vectors]).astype(np.float32)
