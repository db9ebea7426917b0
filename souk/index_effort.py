"""How hard the vector indexes of a release must look to find what an exact search finds."""

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

ENOUGH = 0.99
K, SAMPLES = 10, 300
ROWS_PER_BLOCK = 20_000


@dataclass(frozen=True)
class Index:
    """A vector index, and how a sample of products is asked for in it.

    Attributes:
        column: Of `serving.item`.
        query: A product's query vector, of columns of the product `i`; null where it has none.
        search: The function that serves it: given the release, a query, the product, k and an effort.
        asked: Products that are asked for where K are looked at.
        efforts: Values of hnsw.ef_search to choose from; 1,000 is the most that pgvector takes.
        tie: Products so close to the last of the K are as good, whichever is found.
    """

    column: str
    query: str
    search: str
    asked: int
    efforts: tuple[int, ...]
    tie: float


TEXTS = Index(
    "text_vector",
    "case when l2_norm(i.text_vector) > 0 then i.text_vector end",
    "select score from internal.nearest(%s, %s, array[%s], %s, '{}', %s)",
    K,
    (200, 300, 400, 600, 800, 1000),
    1e-4,
)
# The query is the taste of a shopper who has this product alone. A recommendation asks for no fewer than 60.
SEQUENCE = Index(
    "sequence_output",
    "internal.taste(i.release_id, array[i.item_no])",
    "select logit from internal.likely(%s, %s, array[%s], %s, '{}', %s)",
    60,
    (100, 150, 200, 300, 400, 600, 800, 1000),
    1e-3,
)


@dataclass(frozen=True)
class Effort:
    """What a vector index is asked with.

    Attributes:
        ef_search: Candidates that a search keeps in view (`hnsw.ef_search`).
        recall: Share of the ten best products that it finds with it; 1 where there was nothing to find.
    """

    ef_search: int
    recall: float


def measure(connection: Connection, release_id: str, index: Index) -> Effort:
    """Return the least effort with which the index finds 99 of 100 of the ten best products.

    The ten best for a sample of products are found by comparing it with all, in one pass over the table, and by the
    function that serves them.

    Args:
        connection: With the release loaded and indexed.
        release_id: The release.
        index: Which of its indexes.

    Returns:
        The most that there is, with what it finds, where nothing is enough.
    """
    register_vector(connection)
    queries = _sample(connection, release_id, index)
    best = _best(connection, release_id, index, queries)
    wanted = sum(map(len, best.values()))
    recall = 1.0
    for ef_search in index.efforts if wanted else index.efforts[:1]:
        found = 0
        for number, values in best.items():
            asked = index.asked if len(values) == K else len(values)
            rows = connection.execute(index.search, [release_id, queries[number], number, asked, ef_search]).fetchall()
            found += min(sum(bool(value >= values[-1] - index.tie) for (value,) in rows), len(values))
        recall = found / wanted if wanted else 1.0
        if recall >= ENOUGH:
            break
    else:
        log.warning("the index of %s finds %.1f %% at its most effort", index.column, 100 * recall)
    return Effort(ef_search, round(recall, 4))


def _sample(connection: Connection, release_id: str, index: Index) -> dict[int, HalfVector]:
    """Return the query vectors of products that lie evenly in the release, by number; those without one left out."""
    rows = connection.execute(
        "with every as (select greatest(max(item_no) / %(count)s, 1) as step from serving.item"
        " where release_id = %(release)s)"
        f" select s.item_no, s.query from (select i.item_no, {index.query} as query from serving.item as i, every"
        " where i.release_id = %(release)s and i.item_no %% every.step = 0) as s where s.query is not null",
        {"release": release_id, "count": SAMPLES},
    ).fetchall()
    return dict(rows)


def _best(
    connection: Connection, release_id: str, index: Index, queries: dict[int, HalfVector]
) -> dict[int, NDArray[np.float32]]:
    """Return the inner products of each query with its ten best products, but for its own, the highest first."""
    if not queries:
        return {}
    own = np.array(list(queries))[:, None]
    wanted = np.stack([query.to_numpy() for query in queries.values()]).astype(np.float32)
    best = np.full((len(own), K), -np.inf, np.float32)
    for numbers, vectors in _blocks(connection, release_id, index.column):
        products = wanted @ vectors.T
        products[own == numbers] = -np.inf
        best = -np.partition(-np.concatenate([best, products], axis=1), K - 1, axis=1)[:, :K]
    best = -np.sort(-best, axis=1)
    return {number: row[np.isfinite(row)] for number, row in zip(queries, best, strict=True)}


def _blocks(
    connection: Connection, release_id: str, column: str
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Yield numbers (n,) and vectors (n, d) of the products that have one and can be had."""
    statement = sql.SQL(
        "copy (select item_no, {column} from serving.item where release_id = {release} and is_available"
        " and l2_norm({column}) > 0) to stdout (format binary)"
    ).format(column=sql.Identifier(column), release=sql.Literal(release_id))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["int4", "halfvec"])
        rows = copy.rows()
        while block := list(islice(rows, ROWS_PER_BLOCK)):
            numbers, vectors = zip(*block, strict=True)
            yield np.array(numbers, np.int32), np.stack([vector.to_numpy() for vector in vectors]).astype(np.float32)
