"""Poor descriptions to better ones: only what has no result yet, in blocks that survive an interruption."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from ml.refiner import Product, Refinement, Refiner
from spark_jobs.progress import Progress
from spark_jobs.session import slots

logger = logging.getLogger(__name__)
ROWS_PER_TASK = 32
TASKS_PER_BLOCK = 16
POOR = pa.schema([("item_id", pa.string()), ("text_hash", pa.string()), ("product", pa.string())])
REFINED = pa.schema(
    [
        ("item_id", pa.string()),
        ("text_hash", pa.string()),
        ("source_hash", pa.string()),
        ("model_version", pa.string()),
        ("text", pa.string()),
        ("reason", pa.string()),
        ("spans", pa.string()),
        ("scores", pa.string()),
    ]
)
KEY = ("item_id", "text_hash", "source_hash", "model_version")
Partition = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class RefineReport:
    """What a run did; the content of `manifest.json`.

    Attributes:
        rows: Products in the data set.
        generated: Of these, worked on by this run.
        reused: Of these, taken over from a run before, or from one that was interrupted.
        refined: Products with a new text.
        reasons: Number of originals kept, by reason code.
        model_version: Version of the refiner.
        content_hash: SHA-256 over keys, texts and reasons, by item_id.
    """

    rows: int
    generated: int
    reused: int
    refined: int
    reasons: dict[str, int]
    model_version: str
    content_hash: str


def to_json(product: Product) -> str:
    """Return a product as it travels to the executors and lies beside published texts."""
    return json.dumps(asdict(product), ensure_ascii=False)


def from_json(text: str) -> Product:
    """Return what `to_json` wrote.

    Raises:
        ValueError, TypeError, KeyError: It is something else.
    """
    row: dict[str, Any] = json.loads(text)
    row["attributes"] = tuple((str(name), str(value)) for name, value in row["attributes"])
    given: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Product(**given)


def refine_descriptions(
    spark: SparkSession, poor: Path, results: Path, refiner: Path, version: str, seed: int = 0
) -> RefineReport:
    """Bring the data set of new texts up to date with the poor descriptions; readers see the old one whole until then.

    Args:
        spark: The session.
        poor: Parquet with the columns of `POOR`, one row per item_id.
        results: The data set, with the columns of `REFINED`, and its `manifest.json`.
        refiner: Folder of the trained refiner, which all executors see.
        version: Its version.
        seed: Of what is drawn; each product by its own id.
    """
    wanted = pq.read_table(poor, columns=POOR.names).to_pylist()
    for row in wanted:
        row["source_hash"] = hashlib.sha256(row["product"].encode()).hexdigest()[:16]
        row["model_version"] = version
    partial = results.with_name(f".{results.name}.partial")
    _recover(results)
    known = {_key(row): row for folder in (results, partial) for row in _read(folder)}
    todo = [row for row in wanted if _key(row) not in known]
    partial.mkdir(parents=True, exist_ok=True)
    size = ROWS_PER_TASK * max(slots(spark), TASKS_PER_BLOCK)
    for first in range(0, len(todo), size):
        block = todo[first : first + size]
        tasks = max(1, min(len(block), -(-len(block) // ROWS_PER_TASK)))
        frame = spark.createDataFrame(
            [(row["item_id"], row["text_hash"], row["source_hash"], row["product"]) for row in block],
            "item_id string, text_hash string, source_hash string, product string",
        ).repartition(tasks)
        done = frame.mapInArrow(partition_refiner(refiner, version, seed), from_arrow_schema(REFINED))
        with Progress(spark, "descriptions", len(block), tasks):
            table = done.toArrow().cast(REFINED)
        # A block is there as a whole or not at all.
        name = hashlib.sha256("".join(row["item_id"] + row["source_hash"] for row in block).encode()).hexdigest()[:16]
        pq.write_table(table, partial / f".{name}")
        (partial / f".{name}").rename(partial / f"{name}.parquet")
        known |= {_key(row): row for row in table.to_pylist()}
    rows = sorted((known[_key(row)] for row in wanted), key=lambda row: str(row["item_id"]))
    report = _report(rows, len(todo), version)
    _swap(rows, report, results, partial)
    logger.info("descriptions: %d of %d got a new text, %d reused", report.refined, report.rows, report.reused)
    return report


def partition_refiner(folder: Path, version: str, seed: int) -> Partition:
    """Return the function for `mapInArrow`: rows of `POOR` with their source_hash to rows of `REFINED`."""

    def refine(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = []
            for row in batch.to_pylist():
                made = _refined(row, folder, version, seed)
                rows.append(
                    {name: row[name] for name in KEY[:3]}
                    | {
                        "model_version": version,
                        "text": made.text,
                        "reason": made.reason,
                        "spans": json.dumps([asdict(span) for span in made.spans], ensure_ascii=False),
                        "scores": json.dumps(made.scores, allow_nan=False),
                    }
                )
            yield pa.RecordBatch.from_pylist(rows, schema=REFINED)

    return refine


@lru_cache(maxsize=1)
def _worker_refiner(folder: Path, version: str) -> Refiner:
    return Refiner.load(folder)


def _refined(row: dict[str, Any], folder: Path, version: str, seed: int) -> Refinement:
    """Return what becomes of one description; whatever is wrong with it costs no other."""
    refiner = _worker_refiner(folder, version)  # one that is broken fails the job
    try:
        product = from_json(row["product"])
        made = refiner.refine([product], seed=seed)[0]
        json.dumps(made.scores, allow_nan=False)
        if made.text is not None and not made.text.strip():
            return Refinement(row["item_id"], None, "generator_failed")
    except (ValueError, RuntimeError, ArithmeticError, LookupError, TypeError, RecursionError):
        return Refinement(row["item_id"], None, "generator_failed")
    return made


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)


def _read(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file, schema=REFINED).to_pylist()]


def _report(rows: list[dict[str, Any]], generated: int, version: str) -> RefineReport:
    digest = hashlib.sha256()
    for row in rows:
        digest.update("\x1f".join([*_key(row), row["text"] or "", row["reason"]]).encode() + b"\n")
    kept = Counter(row["reason"] for row in rows if row["text"] is None)
    return RefineReport(
        rows=len(rows),
        generated=generated,
        reused=len(rows) - generated,
        refined=len(rows) - kept.total(),
        reasons=dict(sorted(kept.items())),
        model_version=version,
        content_hash=digest.hexdigest(),
    )


def _recover(results: Path) -> None:
    """Put a data set in place that a killed run left beside it, the new one first."""
    for folder in (results.with_name(f".{results.name}.{name}") for name in ("new", "old")):
        if not results.exists() and (folder / "manifest.json").exists():
            folder.rename(results)


def _swap(rows: list[dict[str, Any]], report: RefineReport, results: Path, partial: Path) -> None:
    fresh, old = results.with_name(f".{results.name}.new"), results.with_name(f".{results.name}.old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, REFINED), fresh / "part-0.parquet")
    # Last, and whole: a folder with a manifest is complete.
    (fresh / ".manifest").write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1), encoding="utf-8")
    (fresh / ".manifest").rename(fresh / "manifest.json")
    if results.exists():
        results.rename(old)
    fresh.rename(results)
    for folder in (old, partial):
        shutil.rmtree(folder, ignore_errors=True)
