"""Short texts to vectors: words, fragments of titles and searched queries, each encoded once for as long as it is used.

All that search learns from is bounded (`ml.search.encoder`) and has to be in the memory of training, so this process
plans, and gives Spark only what it would itself take longer for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ml.text import normalise
from spark_jobs.text_vectors import (
    EncodeReport,
    Row,
    Session,
    TextModel,
    content_hash,
    encode_new,
    encoded_schema,
    readable,
    recover,
    swap,
    write_manifest,
)

logger = logging.getLogger(__name__)

ENCODED = encoded_schema()
VECTORS = pa.schema([field for field in ENCODED if field.name != "error"])
PART = "part-0.parquet"
# So many new texts take 19 s here, and 20 s by Spark on two cores, 15 s of them its start (int8, 260 texts/s here).
FEW = 5000
TEXTS_PER_TASK = 1000
UNIT = 1e-3


@dataclass(frozen=True)
class _Stored:
    """A data set of vectors: columns of `VECTORS`, by text_hash, and the reasons of texts that have none."""

    table: pa.Table
    unfit: Mapping[str, str]


def encode_texts(texts: Sequence[str], vectors: Path, model: TextModel, session: Session) -> NDArray[np.float32]:
    """Return the vectors of texts, and make the data set hold these texts and no others; readers see it whole.

    A text is known by the hash of its normalised form: the data set does not hold what people searched for. A damaged
    one is made anew.

    Args:
        texts: m texts, some of them equal.
        vectors: The data set, with the columns of `VECTORS`, and its `manifest.json`.
        model: The encoder.
        session: Starts Spark, and stops it; called when there are many new texts.

    Returns:
        (m, dimension), of unit length; zero where a text cannot be encoded, whose reason is in the manifest.

    Raises:
        SoukError: There is no such encoder.
    """
    model_id = model.model_id()
    recover(vectors)
    normalised = [normalise(text) for text in texts]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in normalised]
    wanted = dict(zip(hashes, normalised, strict=True))
    stored = _read(vectors, model_id)
    known = {*stored.table["text_hash"].to_pylist(), *stored.unfit}
    new = {text_hash: text for text_hash, text in wanted.items() if text_hash not in known}
    if new or len(wanted) != len(known):
        stored = _renew(stored, wanted, new, vectors, model, session)
    matrix = _matrix(stored.table) if len(stored.table) else model.encode([], None)
    place = {text_hash: number for number, text_hash in enumerate(stored.table["text_hash"].to_pylist())}
    nothing = np.zeros((1, matrix.shape[1]), np.float32)
    return np.concatenate([matrix, nothing])[[place.get(text_hash, -1) for text_hash in hashes]]


def prepare(raw: Row) -> Row:
    """Return what is encoded of a text.

    Raises:
        UnfitError: There is nothing to read, or too much.
        UnicodeDecodeError: It is not UTF-8.
    """
    return {"text": readable(raw["text"].decode())}


def _renew(
    stored: _Stored,
    wanted: Mapping[str, str],
    new: Mapping[str, str],
    vectors: Path,
    model: TextModel,
    session: Session,
) -> _Stored:
    """Replace the data set: without what is not wanted any more, with what is new."""
    vectors.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=vectors.parent, prefix=f".{vectors.name}-") as scratch:
        names = pa.schema(dict.fromkeys(["text_hash", "text"], pa.string()))
        rows = pa.table({"text_hash": list(new), "text": list(new.values())}, names).to_batches(TEXTS_PER_TASK)
        files = encode_new(rows, len(new), FEW, TEXTS_PER_TASK, model, prepare, ENCODED, session, Path(scratch))
        encoded = pq.read_table(files)
        is_fit = pc.is_null(encoded["error"])
        fit, failed = encoded.filter(is_fit), encoded.filter(pc.invert(is_fit))
        kept = stored.table.filter(pc.is_in(stored.table["text_hash"], pa.array(list(wanted), pa.string())))
        table = pa.concat_tables([kept, fit.select(VECTORS.names).cast(VECTORS)]).sort_by("text_hash")
        unfit = {text_hash: reason for text_hash, reason in stored.unfit.items() if text_hash in wanted}
        unfit |= dict(zip(failed["text_hash"].to_pylist(), failed["error"].to_pylist(), strict=True))
        report = EncodeReport(
            rows=len(table),
            encoded=len(fit),
            reused=len(kept),
            texts=len(fit),
            quarantined=[{"text_hash": text_hash, "reason": reason} for text_hash, reason in sorted(unfit.items())],
            model_id=model.model_id(),
            content_hash=content_hash(table.select(["text_hash", "model_id"])),
        )
        unfinished = Path(scratch) / "vectors"
        unfinished.mkdir()
        pq.write_table(table, unfinished / PART, use_dictionary=["model_id"], write_page_checksum=True)
        write_manifest(report, unfinished)
        swap(unfinished, vectors)
    logger.info("short texts: %d rows, %d encoded, %d reused", report.rows, report.encoded, report.reused)
    for row in failed.to_pylist():
        # Not the text: it may be what a person searched for.
        logger.warning("no vector for the text %s: %s", row["text_hash"], row["error"])
    return _Stored(table, unfit)


def _read(vectors: Path, model_id: str) -> _Stored:
    """Return what is stored for a model; nothing when there is no data set, or one of another model or damaged."""
    nothing = _Stored(VECTORS.empty_table(), {})
    if not vectors.exists():
        return nothing
    try:
        report = EncodeReport(**json.loads((vectors / "manifest.json").read_text(encoding="utf-8")))
        if report.model_id != model_id:
            return nothing
        table = pq.read_table(vectors / PART, page_checksum_verification=True).cast(VECTORS)
        is_whole = content_hash(table.select(["text_hash", "model_id"])) == report.content_hash
        length = np.linalg.norm(_matrix(table), axis=1) if len(table) else np.ones(0)
        if is_whole and (abs(length - 1) < UNIT).all():
            return _Stored(table, {row["text_hash"]: row["reason"] for row in report.quarantined})
        cause: object = "its rows are not those of its manifest"
    except (OSError, ValueError, TypeError, KeyError) as error:
        cause = error
    logger.warning("%s is damaged and made anew: %s", vectors, cause)
    return nothing


def _matrix(table: pa.Table) -> NDArray[np.float32]:
    """Return the vectors, (rows, dimension).

    Raises:
        ValueError: They differ in length.
    """
    lists = table["vector"].combine_chunks()
    flat: NDArray[np.float32] = lists.flatten().to_numpy(zero_copy_only=False)
    matrix = flat.reshape(len(lists), -1)
    if set(pc.list_value_length(lists).unique().to_pylist()) - {matrix.shape[1]}:
        raise ValueError("vectors of different lengths")
    return matrix
