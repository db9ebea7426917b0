"""How fast Spark encodes a catalogue, next to SentenceTransformer and to a plain pandas UDF: `make bench-encode`.

All arms take the same texts and the same model. Ours is the whole job: languages, terms, vectors, Parquet, manifest;
its workers have their encoder loaded, as SentenceTransformer has, while a plain UDF loads it in every partition.
SentenceTransformer's defaults cut a text at 512 tokens, the job at SOUK_ENCODER_MAX_TOKENS: other arms cut alike.
Beside the clock, the seconds that all processes of an arm keep a core busy: other work does not change them much.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf

from ml.encoder import PRECISIONS, locate
from ml.text import normalise, passage
from souk.evaluation import product_fields
from souk.settings import Settings
from souk.sources import open_dataset
from spark_jobs.encode_items import ITEMS, ROWS_PER_TASK, encode_items, item_model
from spark_jobs.session import session, spark_session

SLOTS = 2
DEFAULTS, ALIKE = "SentenceTransformer.encode, its defaults", "SentenceTransformer.encode, cut alike"
UDF, UDF_ALIKE = "pandas UDF, its defaults", "pandas UDF, cut alike"
OURS = {precision: f"encode_items, {precision}" for precision in PRECISIONS}
TARGETS = ((DEFAULTS, 3.0), (ALIKE, 3.0), (UDF, 5.0), (UDF_ALIKE, 5.0))
CHANGED, MOST_OF_ALL = 0.01, 0.03

Vectors = NDArray[np.float32]


def main() -> None:
    """Measure, print and write var/bench/encode.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, help="folder of an Amazon data set; SOUK_DATA's, else the demo shop")
    parser.add_argument("--texts", type=int, default=600, help="products that all arms encode")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each arm, one after the other")
    arguments = parser.parse_args()
    settings = Settings.from_env()
    home = settings.home / "bench" / "encode"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    name, fields = read_products(settings, arguments.path)
    # Evenly over the catalogue, whose order may mean something.
    chosen = np.linspace(0, len(fields) - 1, min(arguments.texts, len(fields))).astype(int)
    print(f"{len(chosen):,} of {len(fields):,} products of {name}", flush=True)
    spark = spark_session("souk-bench-encode", f"local[{SLOTS}]", home)
    try:
        result = _compare(spark, settings, home, [fields[place] for place in chosen.tolist()], arguments.rounds)
        spark.stop()
        result["changed"] = _change(settings, home, fields)
    finally:
        spark.stop()
        shutil.rmtree(home, ignore_errors=True)
    target = settings.home / "bench" / "encode.json"
    target.write_text(json.dumps({"name": "encode", "data": name, "texts": len(chosen), **result}, indent=2) + "\n")
    met = all(check["met"] for check in [*result["checks"], result["changed"]])
    print(f"{target}: {'met' if met else 'MISSED'}")


def read_products(settings: Settings, path: Path | None) -> tuple[str, list[tuple[str, str, list[str], str]]]:
    """Return the name of the data, and title, brand, categories and description of each product that has a text."""
    if path is None and os.environ.get("SOUK_DATA"):
        path = Path(os.environ["SOUK_DATA"]) / "amazon-scientific"
    dataset = open_dataset("amazon" if path else "demo-shop", path, 1, 0, settings.home)
    fields = [product_fields(row) for chunk in dataset.products() for row in chunk]
    name = f"{dataset.shop}{' (generated data)' if dataset.is_generated else ''}"
    return name, [field for field in fields if any(map(str.isalnum, passage(*field)))]


def write_items(path: Path, fields: list[tuple[str, str, list[str], str]], mark: str = "") -> None:
    """Write products as the marts hand them on; the mark goes before the descriptions of the first in a hundred."""
    changed = int(len(fields) * CHANGED) if mark else 0
    rows = []
    for number, (title, brand, categories, text) in enumerate(fields):
        text = f"{mark} {text}" if number < changed else text
        text_hash = hashlib.md5(repr((title, brand, categories, text)).encode()).hexdigest()
        rows.append((str(number), title, text, brand, categories, text_hash))
    pq.write_table(pa.Table.from_pylist([dict(zip(ITEMS.names, row, strict=True)) for row in rows], ITEMS), path)


def _compare(
    spark: SparkSession, settings: Settings, home: Path, fields: list[tuple[str, str, list[str], str]], rounds: int
) -> dict[str, Any]:
    folder, _ = locate(settings.encoder, settings.models)
    texts = [f"passage: {normalise(passage(*field))}" for field in fields]
    write_items(home / "items.parquet", fields)
    pq.write_table(pa.table({"text": texts}), home / "texts.parquet")
    write_items(home / "few.parquet", fields[: 2 * SLOTS])
    few = pq.read_table(home / "few.parquet").num_rows
    tasks = SLOTS * max(1, -(-len(texts) // (SLOTS * ROWS_PER_TASK)))
    cut = settings.encoder_max_tokens
    peers = {DEFAULTS: load_peer(folder, None), ALIKE: load_peer(folder, cut)}
    arms: dict[str, Callable[[], Vectors]] = {
        DEFAULTS: lambda: peers[DEFAULTS].encode(texts),
        ALIKE: lambda: peers[ALIKE].encode(texts),
        UDF: lambda: _encode_by_udf(spark, folder, None, home, tasks),
        UDF_ALIKE: lambda: _encode_by_udf(spark, folder, cut, home, tasks),
    }
    for precision, name in OURS.items():
        arms[name] = lambda precision=precision: _encode(spark, settings, home, "items", precision)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    busy: dict[str, list[float]] = {name: [] for name in arms}
    first: dict[str, Vectors] = {}
    for turn in range(rounds):
        for name, encode in arms.items():
            for precision, own in OURS.items():
                if own == name:
                    # Into every worker.
                    assert len(_encode(spark, settings, home, "few", precision)) == few
            start, start_busy = time.perf_counter(), core_seconds()
            vectors = encode()
            seconds[name].append(time.perf_counter() - start)
            busy[name].append(core_seconds() - start_busy)
            first.setdefault(name, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
            print(f"  {turn + 1}  {name:42}{len(texts) / seconds[name][-1]:8.1f} texts/s", flush=True)
    cosine = {name: float(np.mean(np.sum(vectors * first[ALIKE], axis=1))) for name, vectors in first.items()}
    assert min(cosine[name] for name in (UDF_ALIKE, *OURS.values())) > 0.99, (
        f"the arms encode different texts: {cosine}"
    )
    return _report(seconds, busy, cosine, len(texts), settings.encoder_precision)


def load_peer(folder: Path, cut: int | None) -> Any:  # noqa: ANN401
    """Return the model as SentenceTransformer runs it, in fp32 (the file holds half precision)."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    if cut:
        model.max_seq_length = cut
    return model


def _encode_by_udf(spark: SparkSession, folder: Path, cut: int | None, home: Path, tasks: int) -> Vectors:
    @pandas_udf("array<float>")  # type: ignore[call-overload, untyped-decorator]
    def encode(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        model = load_peer(folder, cut)
        for batch in batches:
            yield pd.Series(list(model.encode(batch.tolist())))

    target = home / "udf"
    texts = spark.read.parquet(str(home / "texts.parquet")).repartition(tasks)
    texts.select("text", encode("text").alias("vector")).write.mode("overwrite").parquet(str(target))
    table = pq.read_table(sorted(target.glob("*.parquet"))).to_pydict()
    found = dict(zip(table["text"], table["vector"], strict=True))
    order = pq.read_table(home / "texts.parquet")["text"].to_pylist()
    return np.array([found[text] for text in order], np.float32)


def _encode(spark: SparkSession, settings: Settings, home: Path, items: str, precision: str) -> Vectors:
    target = home / "vectors"
    shutil.rmtree(target, ignore_errors=True)
    model = item_model(dataclasses.replace(settings, encoder_precision=precision), settings.encoder)
    # By Spark, however few they are.
    encode_items(home / f"{items}.parquet", target, model, lambda: nullcontext(spark), few=0)
    table = pq.read_table(sorted(target.glob("*.parquet")), columns=["item_id", "vector"]).to_pydict()
    found = dict(zip(table["item_id"], table["vector"], strict=True))
    return np.array([found[str(number)] for number in range(len(found))], np.float32)


def _change(settings: Settings, home: Path, fields: list[tuple[str, str, list[str], str]]) -> dict[str, Any]:
    """Encode the whole catalogue, then three times more with one text in a hundred changed.

    Each run is a process that starts Spark, as the stage does; so is one that starts it for nothing.
    """
    write_items(home / "all.parquet", fields)
    shutil.rmtree(home / "vectors", ignore_errors=True)
    full, _ = _in_process(_encode_all, settings, home)
    taken, starts = [], []
    for mark in ("New:", "Newer:", "Newest:"):
        starts.append(_in_process(_start_only, home)[0])
        write_items(home / "all.parquet", fields, mark)
        seconds, encoded = _in_process(_encode_all, settings, home)
        taken.append(seconds)
        assert encoded == int(len(fields) * CHANGED)
    return judge_change(len(fields), full, taken, starts)


def judge_change(products: int, full: float, taken: list[float], starts: list[float]) -> dict[str, Any]:
    """Tell whether a run with few changes takes no more than its share of the work, and the start of Spark.

    Args:
        products: Number of products.
        full: Seconds of the run that encodes all of them, the start of Spark included.
        taken: Seconds of the runs with changes, the start of Spark included.
        starts: Seconds of starting Spark, and a Python worker in each slot, for nothing.
    """
    changed, start = statistics.median(taken), statistics.median(starts)
    most = MOST_OF_ALL * (full - start) + start
    met = changed <= most
    print(
        f"{products:,} products in {full:.1f} s; with 1 % changed in {changed:.1f} s;"
        f" Spark alone starts in {start:.1f} s; at most {most:.1f} s: {'met' if met else 'MISSED'}"
    )
    return {
        "products": products,
        "full_s": full,
        "changed_s": taken,
        "start_s": starts,
        "most_s": most,
        "share": (changed - start) / (full - start),
        "met": met,
    }


def _in_process(call: Callable[..., int], *inputs: Any) -> tuple[float, int]:  # noqa: ANN401
    """Return the seconds of a call in a new process, and what it returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        start = time.perf_counter()
        done = pool.submit(call, *inputs).result()
        return time.perf_counter() - start, done


def _encode_all(settings: Settings, home: Path) -> int:
    """Return how many products a run has encoded, with a session of its own if it needs one."""
    model = item_model(settings, settings.encoder)
    local = dataclasses.replace(settings, spark_master=f"local[{SLOTS}]")
    report = encode_items(home / "all.parquet", home / "vectors", model, lambda: session("souk-bench-encode", local))
    return report.encoded


def _start_only(home: Path) -> int:
    """Start a session, and a Python worker in each of its slots; return how many rows they saw."""
    spark = spark_session("souk-bench-encode", f"local[{SLOTS}]", home)
    rows = spark.range(SLOTS, numPartitions=SLOTS).mapInArrow(lambda batches: batches, "id long").count()
    spark.stop()
    return rows


def core_seconds() -> float:
    """Return the seconds that this process and what it started have kept a core busy."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    # Of those that have ended the parent keeps the sum.
    return float(sum(t.user + t.system + t.children_user + t.children_system for t in times))


def _report(
    seconds: dict[str, list[float]], busy: dict[str, list[float]], cosine: dict[str, float], count: int, precision: str
) -> dict[str, Any]:
    rate = {name: count / statistics.median(taken) for name, taken in seconds.items()}
    ours = rate[OURS[precision]]
    of_core = {name: count / statistics.median(taken) for name, taken in busy.items()}
    print(f"\n{'medians':42}{'texts/s':>10}{'ours / it':>11}{'texts/core-s':>14}{'ours / it':>11}{'cosine':>9}")
    for name, value in rate.items():
        relative = of_core[OURS[precision]] / of_core[name]
        print(f"{name:42}{value:10.1f}{ours / value:11.2f}{of_core[name]:14.1f}{relative:11.2f}{cosine[name]:9.4f}")
    checks = []
    for peer, target in TARGETS:
        ratio = ours / rate[peer]
        checks.append({"peer": peer, "ratio": round(ratio, 3), "target": target, "met": ratio >= target})
        print(f"{peer}: target {target:g} ×, {ratio:.2f} × it: {'met' if ratio >= target else 'MISSED'}")
    return {
        "precision": precision,
        "texts_per_second": {name: round(value, 2) for name, value in rate.items()},
        "texts_per_core_second": {name: round(value, 2) for name, value in of_core.items()},
        "turns": {name: [round(value, 3) for value in taken] for name, taken in seconds.items()},
        "cosine": cosine,
        "checks": checks,
    }


if __name__ == "__main__":
    main()
