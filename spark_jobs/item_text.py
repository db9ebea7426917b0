"""What an executor does with the text of a product: language, terms and vector, one row at a time where it must be.

Apart from `encode_items`, so that executors import it by name and a Python worker keeps its encoder between tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from ml.encoder import Encoder, load_encoder
from ml.text import detect_language, key_terms, lexical_terms, passage

LONGEST_TEXT = 100_000
_TEXT = [
    ("text_hash", pa.string()),
    ("model_id", pa.string()),
    ("lang", pa.string()),
    ("terms", pa.list_(pa.string())),
    ("key_terms", pa.list_(pa.string())),
    ("vector", pa.list_(pa.float32())),
]
VECTORS = pa.schema([("item_id", pa.string()), *_TEXT])
ENCODED = pa.schema([*_TEXT, ("error", pa.string())])

Row = dict[str, Any]
PartitionEncoder = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def partition_encoder(encoder: str, models: Path, precision: str, model_id: str, max_tokens: int) -> PartitionEncoder:
    """Return the function for `mapInArrow`.

    It takes products whose texts are raw bytes, because one that is not UTF-8 would fail the whole batch, and returns
    rows of `ENCODED`: `error` holds a reason code, and `vector` nothing, where a product cannot be encoded. The encoder
    takes the texts of a batch by their number of tokens.
    """

    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [_prepare(row) | {"model_id": model_id} for row in batch.to_pylist()]
            fit = [row for row in rows if row["error"] is None]
            _add_vectors(fit, _worker_encoder(encoder, models, precision), max_tokens)
            yield pa.RecordBatch.from_pylist(rows, schema=ENCODED)

    return encode


@lru_cache(maxsize=1)
def _worker_encoder(encoder: str, models: Path, precision: str) -> Encoder:
    return load_encoder(encoder, models, precision, threads=1)


class _UnfitError(Exception):
    """A text that is not worth a vector; its message is the reason code."""


def _prepare(raw: Row) -> Row:
    row: Row = dict.fromkeys(ENCODED.names)
    row["text_hash"] = raw["text_hash"].decode()
    try:
        text = _text(raw)
        language = detect_language(text)
        row |= {"text": text, "lang": language, "terms": lexical_terms(text), "key_terms": key_terms(text)}
    except UnicodeDecodeError:
        row["error"] = "invalid_utf8"
    except _UnfitError as error:
        row["error"] = str(error)
    return row


def _text(raw: Row) -> str:
    title, brand, description = ((raw[name] or b"").decode() for name in ("title", "brand", "description"))
    categories = [name.decode() for name in raw["categories"] or [] if name]
    if sum(map(len, [title, brand, description, *categories])) > LONGEST_TEXT:
        raise _UnfitError("text_too_long")
    text = passage(title, brand, categories, description)
    if not any(map(str.isalnum, text)):
        raise _UnfitError("empty_text")
    return text


def _add_vectors(rows: list[Row], encoder: Encoder, max_tokens: int) -> None:
    """Set `vector`; when a batch fails, its rows go one by one, so that only the guilty ones are left out."""
    if not rows:
        return
    try:
        vectors = encoder.encode_passages([row["text"] for row in rows], max_tokens)
        for row, vector in zip(rows, vectors, strict=True):
            row["vector"] = vector
    except (ValueError, RuntimeError, UnicodeError):
        if len(rows) == 1:
            encoder.encode_passages(["a"], max_tokens)  # Raises when it is the encoder that is broken, not the text.
            rows[0]["error"] = "encoder_failed"
            return
        for row in rows:
            _add_vectors([row], encoder, max_tokens)
