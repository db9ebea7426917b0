"""A release as files: what training writes to the lake and what loading copies into Postgres.

`releases/<release_id>/` holds one Parquet file per table of `serving`, with the columns of that table but the release.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.recommender import Catalogue, Recommender
from ml.recommender.fusion import recent
from ml.search import Postings, TokenTable

VECTOR_DIMENSION = 384
# Fusion of lexical and semantic search: the ratio fitted on held-out queries in the study behind this recipe.
SEARCH_WEIGHTS = {"search_lexical": 0.57, "search_semantic": 0.43}

_VECTOR = pa.list_(pa.float32())
SCHEMAS = {
    "item": pa.schema(
        [
            ("item_id", pa.string()),
            ("title", pa.string()),
            ("description", pa.string()),
            ("brand", pa.string()),
            ("categories", pa.list_(pa.string())),
            ("price", pa.decimal128(12, 2)),
            ("lang", pa.string()),
            ("key_terms", pa.list_(pa.string())),
            ("popularity", pa.float32()),
            ("text_vector", _VECTOR),
        ]
    ),
    "edge": pa.schema([("kind", pa.string()), ("src", pa.string()), ("dst", pa.string()), ("val", pa.float32())]),
    "weight": pa.schema([("term", pa.string()), ("min_history", pa.int32()), ("val", pa.float64())]),
    "token_vector": pa.schema([("token", pa.string()), ("vec", _VECTOR)]),
    "posting": pa.schema([("term", pa.string()), ("item_id", pa.string()), ("weight", pa.float32())]),
    "user_profile": pa.schema(
        [
            ("user_key", pa.string()),
            ("history", pa.list_(pa.string())),
            ("history_length", pa.int32()),
            ("profile", pa.string()),
        ]
    ),
    "seen": pa.schema([("user_key", pa.string()), ("item_id", pa.string())]),
}
TABLES = tuple(SCHEMAS)


def write_release(
    folder: Path,
    items: Iterable[Mapping[str, Any]],
    catalogue: Catalogue,
    recommender: Recommender,
    index: Postings,
    tokens: TokenTable,
    sequences: Mapping[str, list[int]],
    seen: Mapping[str, Iterable[str]],
    profiles: Mapping[str, object],
) -> dict[str, int]:
    """Write everything that a release serves; the folder appears when it is whole.

    Args:
        folder: Where to; an older one of the same name is replaced.
        items: Title, description, brand, categories, price, lang and key_terms, in the order of the catalogue.
        catalogue: The items as training saw them.
        recommender: What training made.
        index: The inverted index over the same items.
        tokens: The query encoder.
        sequences: Item indices in time order by user.
        seen: Every item that a user has dealt with.
        profiles: What the marts know of a user.

    Returns:
        Rows of each table.

    Raises:
        ValueError: The encoder's vectors do not have the dimension of the table.
    """
    dimension = recommender.text_vectors.shape[1]
    if dimension != VECTOR_DIMENSION:
        raise ValueError(f"the encoder gives {dimension} dimensions, but the release stores {VECTOR_DIMENSION}")
    ids = catalogue.item_ids
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    vectors = recommender.text_vectors.astype(np.float32)
    rows: dict[str, Iterable[Mapping[str, Any]]] = {
        "item": (
            {
                **item,
                "item_id": ids[number],
                "popularity": recommender.popularity[number],
                "text_vector": vectors[number],
            }
            for number, item in enumerate(items)
        ),
        "edge": (
            {"kind": kind, "src": ids[src], "dst": ids[dst], "val": val}
            for kind, edges in recommender.edges.items()
            for src, dst, val in zip(edges.src, edges.dst, edges.val, strict=True)
        ),
        "weight": [
            *({"term": term, "min_history": first, "val": val} for (term, first), val in recommender.weights.items()),
            *({"term": term, "min_history": 0, "val": val} for term, val in SEARCH_WEIGHTS.items()),
        ],
        "token_vector": (
            {"token": token, "vec": vector.astype(np.float32)}
            for token, vector in zip(tokens.tokens, tokens.vectors, strict=True)
        ),
        "posting": (
            {"term": index.vocabulary[term], "item_id": ids[item], "weight": weight}
            for term, item, weight in zip(index.term, index.item, index.weight, strict=True)
        ),
        "user_profile": (_user(user, [ids[i] for i in recent(taken)], profiles) for user, taken in sequences.items()),
        "seen": ({"user_key": user, "item_id": item} for user, items in seen.items() for item in items),
    }
    counts = {table: _write(partial / f"{table}.parquet", SCHEMAS[table], rows[table]) for table in TABLES}
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return counts


def _user(user: str, history: list[str], profiles: Mapping[str, object]) -> dict[str, Any]:
    profile = json.dumps(profiles.get(user, {}), ensure_ascii=False, default=str)
    return {"user_key": user, "history": history, "history_length": len(history), "profile": profile}


def _write(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], chunk: int = 50_000) -> int:
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        block: list[Mapping[str, Any]] = []
        for row in rows:
            block.append(row)
            if len(block) == chunk:
                writer.write_table(pa.Table.from_pylist(block, schema))
                count += len(block)
                block = []
        writer.write_table(pa.Table.from_pylist(block, schema))
    return count + len(block)
