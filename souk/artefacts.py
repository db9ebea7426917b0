"""A release as files: what training writes to the lake and what loading copies into Postgres.

`releases/<release_id>/` holds one Parquet file per table of `serving`, with the columns of that table but the release;
the lexical vector of a product is two columns, positions and values. Everything is written column by column in blocks
of rows, so that a catalogue of a million products needs little more memory than its arrays.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ml.recommender import Catalogue, Edges, Recommender
from ml.recommender.category import Category
from ml.search import SearchIndex

Row = TypeVar("Row")
VECTOR_DIMENSION = 384
SEQUENCE_DIMENSION = 256
ROWS_PER_BLOCK = 50_000

_VECTOR = pa.list_(pa.float32(), VECTOR_DIMENSION)
_HALF_VECTOR = pa.list_(pa.float16(), VECTOR_DIMENSION)
SCHEMAS = {
    "item": pa.schema(
        [
            ("item_no", pa.int32()),
            ("item_id", pa.string()),
            ("title", pa.string()),
            ("description", pa.string()),
            ("brand", pa.string()),
            ("categories", pa.list_(pa.string())),
            ("price", pa.decimal128(12, 2)),
            ("attributes", pa.string()),
            ("lang", pa.string()),
            ("key_terms", pa.list_(pa.string())),
            ("popularity", pa.float32()),
            ("text_vector", _HALF_VECTOR),
            ("sequence_input", pa.list_(pa.float16(), SEQUENCE_DIMENSION)),
            # The bias comes last.
            ("sequence_output", pa.list_(pa.float16(), SEQUENCE_DIMENSION + 1)),
            # Positions count from 0: term_no - 1.
            ("lexical_positions", pa.list_(pa.int32())),
            ("lexical_values", pa.list_(pa.float32())),
            ("is_refined", pa.bool_()),
        ]
    ),
    "original": pa.schema([("item_no", pa.int32()), ("description", pa.string())]),
    "position_weight": pa.schema([("place", pa.int32()), ("vec", pa.list_(pa.float32(), SEQUENCE_DIMENSION))]),
    "popularity": pa.schema([("first_nos", pa.list_(pa.int32())), ("vals", pa.list_(pa.float32()))]),
    "edge": pa.schema(
        [
            ("src", pa.int32()),
            ("kind", pa.string()),
            ("dst", pa.list_(pa.int32())),
            ("val", pa.list_(pa.float32())),
        ]
    ),
    "weight": pa.schema([("term", pa.string()), ("min_history", pa.int32()), ("val", pa.float64())]),
    "term": pa.schema(
        [
            ("term", pa.string()),
            ("term_no", pa.int32()),
            ("documents", pa.int32()),
            ("idf", pa.float32()),
            ("item_nos", pa.list_(pa.int32())),
            ("weights", pa.list_(pa.float32())),
            ("vec", _HALF_VECTOR),
        ]
    ),
    "spelling": pa.schema([("variant", pa.string()), ("terms", pa.list_(pa.string()))]),
    "category": pa.schema(
        [("input", pa.string()), ("category", pa.string()), ("bias", pa.float32()), ("vec", _VECTOR)]
    ),
    "item_day": pa.schema([("day", pa.date32()), ("item_no", pa.int32()), ("events", pa.int32())]),
    "user_profile": pa.schema(
        [
            ("shop", pa.string()),
            ("user_key", pa.string()),
            ("history", pa.list_(pa.int32())),
            ("seen", pa.list_(pa.int32())),
            ("disliked", pa.list_(pa.int32())),
            ("praise", _HALF_VECTOR),
            ("complaint", _HALF_VECTOR),
            ("profile", pa.string()),
        ]
    ),
}
TABLES = tuple(SCHEMAS)


@dataclass(frozen=True)
class Shopper:
    """What a release knows of a shopper; products are positions in the catalogue.

    Attributes:
        history: At most 20 products, newest first, each once.
        seen: Products that are not recommended again.
        disliked: At most 20 products that were disliked or returned, newest first.
        praise: What the shopper's reviews praise, (384,), in the space of the text vectors; None without a review.
        complaint: Likewise what they complain of.
        profile: What the marts know, as JSON.
    """

    history: Sequence[int]
    seen: Sequence[int]
    disliked: Sequence[int]
    praise: NDArray[np.floating] | None
    complaint: NDArray[np.floating] | None
    profile: object


def write_release(
    folder: Path,
    shop: str,
    items: Iterable[Mapping[str, Any]],
    catalogue: Catalogue,
    recommender: Recommender,
    index: SearchIndex,
    shoppers: Mapping[str, Shopper],
    categories: Sequence[Category] = (),
    item_days: Iterable[tuple[date, int, int]] = (),
    originals: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Write everything that a release serves; the folder appears when it is whole.

    Args:
        folder: Where to; an older one of the same name is replaced.
        shop: Whose release it is.
        items: Title, description, brand, categories, price, attributes, lang and key_terms, in the order of the
            catalogue.
        catalogue: The items as training saw them.
        recommender: What training made.
        index: Lexicon, postings and query encoder over the same items.
        shoppers: By pseudonym.
        categories: Rows of the category model.
        item_days: Day, position of the product, events on that day.
        originals: The shop's own description, by product, where the one in `items` is the refiner's.

    Returns:
        Rows of each table.

    Raises:
        ValueError: Vectors do not have the dimension of their column, or the parts differ in length.
    """
    dimension = recommender.text_vectors.shape[1]
    if dimension != VECTOR_DIMENSION:
        raise ValueError(f"the encoder gives {dimension} dimensions, but the release stores {VECTOR_DIMENSION}")
    dimension = recommender.inputs.shape[1]
    if dimension != SEQUENCE_DIMENSION:
        raise ValueError(f"the sequence model has {dimension} dimensions, but the release stores {SEQUENCE_DIMENSION}")
    number = _numbers(recommender.popularity)
    blocks: dict[str, Iterable[Mapping[str, Any]]] = {
        "item": _items(items, catalogue.item_ids, number, recommender, index, originals or {}),
        "original": [_originals(originals or {}, catalogue.item_ids, number)],
        "position_weight": [
            {
                "place": np.arange(len(recommender.position_weights), dtype=np.int32),
                "vec": _vectors(recommender.position_weights, np.float32),
            }
        ],
        "popularity": [_popularity(recommender.popularity)],
        "edge": _edges(recommender.edges, number),
        "weight": [_weights({**recommender.weights, **{(term, 0): val for term, val in index.weights.items()}})],
        "term": _terms(index, number),
        "spelling": [{"variant": list(index.spelling), "terms": list(index.spelling.values())}],
        "category": [
            {
                "input": [row.input for row in categories],
                "category": [row.category for row in categories],
                "bias": [row.bias for row in categories],
                "vec": _vectors([row.vector for row in categories], np.float32),
            }
        ],
        "item_day": (
            {"day": days, "item_no": number[list(places)], "events": events}
            for days, places, events in (zip(*block, strict=True) for block in _blocks(item_days))
        ),
        "user_profile": (_shoppers(shop, block, number) for block in _blocks(shoppers.items())),
    }
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    counts = {table: _write(partial / f"{table}.parquet", schema, blocks[table]) for table, schema in SCHEMAS.items()}
    if counts["item"] != len(catalogue.item_ids):
        raise ValueError(f"there are {counts['item']} items for a catalogue of {len(catalogue.item_ids)}")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return counts


def _numbers(popularity: NDArray[np.floating]) -> NDArray[np.int32]:
    """Return the number of each product of the catalogue: its rank by falling popularity, from 0."""
    number = np.empty(len(popularity), dtype=np.int32)
    number[np.argsort(-popularity, kind="stable")] = np.arange(len(popularity), dtype=np.int32)
    return number


def _popularity(popularity: NDArray[np.floating]) -> dict[str, Any]:
    """Return the first number of each value of popularity; the products that come later have none."""
    falling = np.append(-np.sort(-popularity), 0).astype(np.float32)
    first = np.flatnonzero(np.diff(falling, prepend=np.inf))
    return {"first_nos": [first.astype(np.int32)], "vals": [falling[first]]}


def _items(
    items: Iterable[Mapping[str, Any]],
    item_ids: Sequence[str],
    number: NDArray[np.int32],
    recommender: Recommender,
    index: SearchIndex,
    originals: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    lexical = index.lexical
    if not lexical.has_sorted_indices:
        lexical = lexical.sorted_indices()
    first = 0
    for block in _blocks(items):
        last = first + len(block)
        cells = slice(lexical.indptr[first], lexical.indptr[last])
        bounds = lexical.indptr[first : last + 1] - lexical.indptr[first]
        texts = ("title", "description", "brand", "categories", "price", "lang", "key_terms")
        yield {
            **{name: [item[name] for item in block] for name in texts},
            "item_no": number[first:last],
            "item_id": item_ids[first:last],
            "attributes": [_json(item["attributes"]) for item in block],
            "popularity": recommender.popularity[first:last],
            "text_vector": _vectors(recommender.text_vectors[first:last], np.float16),
            "sequence_input": _vectors(recommender.inputs[first:last], np.float16),
            "sequence_output": _vectors(recommender.outputs[first:last], np.float16),
            "lexical_positions": _lists(bounds, lexical.indices[cells], np.int32),
            "lexical_values": _lists(bounds, lexical.data[cells], np.float32),
            "is_refined": [item_id in originals for item_id in item_ids[first:last]],
        }
        first = last


def _originals(originals: Mapping[str, str], item_ids: Sequence[str], number: NDArray[np.int32]) -> dict[str, Any]:
    places = [place for place, item_id in enumerate(item_ids) if item_id in originals]
    return {"item_no": number[places], "description": [originals[item_ids[place]] for place in places]}


def _edges(edges: Mapping[str, Edges], number: NDArray[np.int32]) -> Iterator[dict[str, Any]]:
    """Yield the neighbours of each product and kind; all kinds of a product together, as they are read."""
    kinds = sorted(edges)
    src = np.concatenate([edges[kind].src for kind in kinds])
    dst = np.concatenate([edges[kind].dst for kind in kinds])
    val = np.concatenate([edges[kind].val for kind in kinds])
    kind_no = np.repeat(np.arange(len(kinds), dtype=np.int8), [len(edges[kind].src) for kind in kinds])
    # Each kind is sorted by source: a list starts where source or kind change.
    start = np.flatnonzero(np.diff(src, prepend=-1) | np.diff(kind_no, prepend=-1))
    length = np.diff(start, append=len(src))
    order = np.lexsort((kind_no[start], src[start]))
    start, length = start[order], length[order]
    for first in range(0, len(start), ROWS_PER_BLOCK):
        starts, lengths = start[first : first + ROWS_PER_BLOCK], length[first : first + ROWS_PER_BLOCK]
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        cells = np.arange(bounds[-1]) + np.repeat(starts - bounds[:-1], lengths)
        yield {
            "src": number[src[starts]],
            "kind": [kinds[number] for number in kind_no[starts]],
            "dst": _lists(bounds, number[dst[cells]], np.int32),
            "val": _lists(bounds, val[cells], np.float32),
        }


def _weights(weights: Mapping[tuple[str, int], float]) -> dict[str, Any]:
    return {
        "term": [term for term, _ in weights],
        "min_history": [first for _, first in weights],
        "val": list(weights.values()),
    }


def _terms(index: SearchIndex, number: NDArray[np.int32]) -> Iterator[dict[str, Any]]:
    for first in range(0, len(index.terms), ROWS_PER_BLOCK):
        last = min(first + ROWS_PER_BLOCK, len(index.terms))
        cells = slice(index.start[first], index.start[last])
        bounds = index.start[first : last + 1] - index.start[first]
        vectors = index.vectors[first:last]
        yield {
            "term": index.terms[first:last],
            "term_no": np.arange(first + 1, last + 1, dtype=np.int32),
            "documents": index.documents[first:last],
            "idf": index.idf[first:last],
            "item_nos": _lists(bounds, number[index.item[cells]], np.int32),
            "weights": _lists(bounds, index.weight[cells], np.float32),
            "vec": _vectors(vectors, np.float16, np.linalg.norm(vectors.astype(np.float32), axis=1) == 0),
        }


def _shoppers(shop: str, block: Sequence[tuple[str, Shopper]], number: NDArray[np.int32]) -> dict[str, Any]:
    shoppers = [shopper for _, shopper in block]
    return {
        "shop": [shop] * len(block),
        "user_key": [user for user, _ in block],
        "history": [number[list(shopper.history)] for shopper in shoppers],
        "seen": [number[list(shopper.seen)] for shopper in shoppers],
        "disliked": [number[list(shopper.disliked)] for shopper in shoppers],
        "praise": _optional_vectors([shopper.praise for shopper in shoppers]),
        "complaint": _optional_vectors([shopper.complaint for shopper in shoppers]),
        "profile": [_json(shopper.profile) for shopper in shoppers],
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _lists(bounds: NDArray[np.integer], values: NDArray[Any], dtype: type[np.generic]) -> pa.ListArray:
    """Return one list per pair of neighbouring bounds."""
    return pa.ListArray.from_arrays(bounds.astype(np.int32), pa.array(values.astype(dtype, copy=False)))


def _vectors(
    vectors: Sequence[NDArray[Any]] | NDArray[Any],
    dtype: type[np.floating],
    is_null: NDArray[np.bool_] | None = None,
) -> pa.FixedSizeListArray:
    values = np.asarray(vectors, dtype=dtype)
    dimension = values.shape[1] if values.ndim == 2 else VECTOR_DIMENSION
    mask = None if is_null is None else pa.array(is_null)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dimension, mask=mask)


def _optional_vectors(vectors: Sequence[NDArray[np.floating] | None]) -> pa.FixedSizeListArray:
    absent = np.zeros(VECTOR_DIMENSION)
    values = [absent if vector is None else vector for vector in vectors]
    return _vectors(values, np.float16, np.array([vector is None for vector in vectors]))


def _blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while block := list(islice(rows, ROWS_PER_BLOCK)):
        yield block


def _write(path: Path, schema: pa.Schema, blocks: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for block in blocks:
            arrays = [
                column if isinstance(column, pa.Array) else pa.array(column, field.type)
                for field, column in ((field, block[field.name]) for field in schema)
            ]
            writer.write_table(pa.table(arrays, schema=schema))
            count += len(arrays[0])
    return count
