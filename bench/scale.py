"""What the whole way costs, stage by stage, on shops of growing size: `make bench-scale`.

A generated shop is exported as files and goes through the stages of the recommendations run, each in a process of its
own, and through the gate behind it: from rows in a file to vectors that an index finds. Where a catalogue is larger
than is asked for, the encoder is replaced by vectors that are there already, and training by a generated graph; such
figures are marked. Memory is the most that the stage's own process took; what Spark and dbt took stands beside it. Core
seconds are those of the stage's processes and of the server: other work on the same cores hardly changes them.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import re
import resource
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bench.clustered_shop import ClusteredShop, describe
from bench.shop_export import write_export
from ml.encoder import locate
from ml.search import build_index
from ml.text import lexical_terms
from souk import pipeline
from souk.artefacts import write_release
from souk.gates import guard
from souk.postgres import EmbeddedPostgres, connect
from souk.settings import Settings
from spark_jobs.encode_items import item_model
from spark_jobs.item_text import VECTORS

SHOP = "scale"
ROWS_PER_BLOCK = 20_000
# Of the sum of the stages, for ten times the products: an HNSW graph of n products takes n log n.
MOST_FOR_TENFOLD = 11.5
PLAIN = {"refine": False, "source": "files"}


@dataclass(frozen=True)
class Cost:
    """What a stage took.

    Attributes:
        items: Products of the shop.
        stage: Its name.
        rows: Rows that it read, or made.
        seconds: On the clock.
        core_seconds: For how long its processes and the server kept a core busy.
        memory: Most bytes of its process.
        others: Most bytes of the largest process that it started.
        is_replaced: Whether something stood in for what costs most.
    """

    items: int
    stage: str
    rows: int
    seconds: float
    core_seconds: float
    memory: int
    others: int
    is_replaced: bool = False


def main() -> None:
    """Measure, print, and write var/bench/scale.json and scale.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="sizes of the shop")
    parser.add_argument("--events-per-item", type=int, default=10, help="size of its history")
    parser.add_argument("--encode-up-to", type=int, default=10_000, help="products that the transformer encodes")
    parser.add_argument("--train-up-to", type=int, default=100_000, help="products that training sees")
    parser.add_argument("--until", choices=("land", "profiles", "publish"), default="publish", help="the last stage")
    arguments = parser.parse_args()
    target = Settings.from_env().home / "bench"
    home = target / "scale"
    # The stages read their settings from the environment.
    os.environ["SOUK_HOME"] = str(home)
    os.environ["SOUK_POSTGRES_PORT"] = str(Settings.from_env().postgres_port + 1)
    costs: list[Cost] = []
    for items in sorted(arguments.items):
        server = EmbeddedPostgres(home, Settings.from_env().postgres_port)
        _clear(server, home)
        try:
            server.start()
            _run(items, arguments, costs)
        finally:
            server.stop()
            _clear(server, home)
            # However a run ends, what it has measured stays.
            is_met = _report(costs, target)
    print(f"{target / 'scale.json'}, {target / 'scale.png'}: {'met' if is_met else 'MISSED'}")


def _report(costs: list[Cost], target: Path) -> bool:
    """Write what was measured so far; return whether it grows no faster than is allowed."""
    grown = growth(costs)
    most = {sizes: MOST_FOR_TENFOLD ** math.log10(sizes[1] / sizes[0]) for sizes in grown}
    for (small, large), factor in grown.items():
        print(f"{small:,} to {large:,} products: {factor:.1f} × the core seconds for {large / small:g} × the products")
    report = {
        "name": "scale",
        "generated": True,
        "rows": [asdict(cost) for cost in costs],
        "growth": [
            {"from": sizes[0], "to": sizes[1], "factor": round(factor, 2), "most": round(most[sizes], 2)}
            for sizes, factor in grown.items()
        ],
        "met": all(factor <= most[sizes] for sizes, factor in grown.items()),
    }
    (target / "scale.json").write_text(json.dumps(report, indent=2) + "\n")
    _plot(costs, target / "scale.png")
    return bool(report["met"])


def growth(costs: list[Cost]) -> dict[tuple[int, int], float]:
    """Return how the core seconds grow from one size to the next, over the stages that did the same at both."""
    seconds = {(cost.items, cost.stage): cost.core_seconds for cost in costs if not cost.is_replaced}
    sizes = sorted({cost.items for cost in costs})
    grown = {}
    for small, large in zip(sizes, sizes[1:], strict=False):
        same = [stage for items, stage in seconds if items == small and (large, stage) in seconds]
        if same:
            grown[small, large] = sum(seconds[large, one] for one in same) / sum(seconds[small, one] for one in same)
    return grown


def _clear(server: EmbeddedPostgres, home: Path) -> None:
    shutil.rmtree(server.root, ignore_errors=True)
    for folder in ("lake", "export"):
        shutil.rmtree(home / folder, ignore_errors=True)


def _run(items: int, arguments: argparse.Namespace, costs: list[Cost]) -> None:
    settings = Settings.from_env()
    shop = ClusteredShop(items)
    print(describe(shop), flush=True)
    export = settings.home / "export"
    write_export(shop, export, SHOP, items * arguments.events_per_item)
    _in_process(pipeline.database, settings)
    # Models are converted once, whatever the size of the shop.
    _in_process(locate, settings.encoder, settings.models, settings.encoder_precision)

    def measure(name: str, call: Callable[..., Any], *inputs: Any, replaced: bool = False) -> Any:  # noqa: ANN401
        before = _server_seconds(settings)
        done, *spent, memory, others = _in_process(_timed, call, *inputs)
        seconds, busy = spent[0], spent[1] + _server_seconds(settings) - before
        rows = done["rows"]
        counted = rows.get("event") if name == "land" else items
        costs.append(Cost(items, name, counted or items, seconds, busy, memory, others, replaced))
        print(_line(costs[-1]), flush=True)
        return done

    def gate(name: str, done: dict[str, Any]) -> dict[str, Any]:
        passed: dict[str, Any] = measure(f"gate: {name}", guard, name, done)
        return passed

    landed = gate("landed", measure("land", pipeline.land, {**PLAIN, "path": str(export)}))
    if arguments.until == "land":
        return
    gate("profiles", measure("profiles", pipeline.build_profiles, landed))
    if arguments.until == "profiles":
        return
    folder = settings.lake / SHOP
    is_encoded = items <= arguments.encode_up_to
    if not is_encoded:
        _write_vectors(shop, folder, settings)
    gate("encoded", measure("encode", pipeline.encode, landed, replaced=not is_encoded))
    if items <= arguments.train_up_to:
        fitted = _in_process(pipeline.fit_refiner, landed)
        _in_process(pipeline.settle, landed, _in_process(pipeline.generate, landed, fitted))
        trained = measure("train", pipeline.train, landed)
    else:
        _in_process(_write_release, shop, folder / "releases" / landed["release_id"], items)
        trained = measure("train", pipeline.train, landed, replaced=True)
    gate("trained", trained)
    loaded = measure("load and index", pipeline.load, landed, trained)
    checked = gate("candidate", loaded)
    published = measure("publish", pipeline.publish, measure("compare", pipeline.compare, landed, checked))
    _look(settings, shop, published["release_id"])


def _look(settings: Settings, shop: ClusteredShop, release: str) -> None:
    """Check that the index finds what was landed.

    Raises:
        AssertionError: It finds nothing, or not the product itself.
    """
    nearest = "select item_id from serving.item where release_id = %s order by text_vector <=> %s::halfvec limit 10"
    with closing(connect(pipeline.database(settings), autocommit=True)) as connection:
        vector = connection.execute(
            "select text_vector::text from serving.item where release_id = %s and item_id = %s",
            [release, shop.item_ids[shop.size // 2]],
        ).fetchone()
        assert vector, "the product is not there"
        plan = connection.execute(f"explain {nearest}", [release, vector[0]]).fetchall()
        assert any("Index Scan" in line and "text_vector" in line for (line,) in plan), plan
        found = [row[0] for row in connection.execute(nearest, [release, vector[0]]).fetchall()]
        assert len(found) == 10, found
        assert shop.item_ids[shop.size // 2] in found, "the index does not find a product by its own vector"


def _in_process(call: Callable[..., Any], *inputs: Any) -> Any:  # noqa: ANN401
    """Call a function in a new process, so that what it takes is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(call, *inputs).result()


def _timed(call: Callable[..., Any], *inputs: Any) -> tuple[Any, float, float, int, int]:  # noqa: ANN401
    """Return what a call returns, its seconds, its core seconds, and the most bytes of this process and of a child."""
    start = time.perf_counter()
    done = call(*inputs)
    seconds, me = time.perf_counter() - start, psutil.Process()
    # Spark's still run, dbt's have ended.
    others = [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10]
    others += [_most_bytes(child.pid) for child in me.children(recursive=True)]
    return done, seconds, _core_seconds(me), _most_bytes(me.pid), max(others)


def _most_bytes(process: int) -> int:
    """Return the most memory that a process has taken, 0 if it has ended; rusage would begin with its parent's."""
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) << 10 if found else 0


def _server_seconds(settings: Settings) -> float:
    """Return for how long the server, which starts its processes itself, has kept a core busy."""
    server = EmbeddedPostgres(settings.home, settings.postgres_port)
    return _core_seconds(psutil.Process(int((server.data / "postmaster.pid").read_text().split("\n", 1)[0])))


def _core_seconds(parent: psutil.Process) -> float:
    """Return for how long a process and what it started have kept a core busy."""
    total = 0.0
    for process in (parent, *parent.children(recursive=True)):
        try:
            # Of those that have ended the parent keeps the sum.
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    return total


def _write_vectors(shop: ClusteredShop, folder: Path, settings: Settings) -> None:
    """Write what the encode stage would have left from a run before: the shop's vectors under the texts' hashes."""
    place = {item_id: number for number, item_id in enumerate(shop.item_ids)}
    model_id = item_model(settings, settings.encoder).model_id()
    target = folder / "vectors"
    target.mkdir(parents=True)
    with pq.ParquetFile(folder / "items.parquet") as file, pq.ParquetWriter(target / "0.parquet", VECTORS) as writer:
        for batch in file.iter_batches(ROWS_PER_BLOCK, columns=["item_id", "title", "text_hash"]):
            item_ids, titles = batch.column("item_id").to_pylist(), batch.column("title").to_pylist()
            places = [place[item_id] for item_id in item_ids]
            vectors = shop.vectors[places].astype(np.float32)
            bounds = np.arange(len(places) + 1, dtype=np.int32) * vectors.shape[1]
            columns = {
                "item_id": item_ids,
                "text_hash": batch.column("text_hash"),
                "model_id": [model_id] * len(places),
                "lang": ["zh" if shop.is_chinese[one] else "en" for one in places],
                "terms": [lexical_terms(title) for title in titles],
                # As in a generated release: telling parts of speech would take longer than all that is measured.
                "key_terms": [title.split()[:5] for title in titles],
                "vector": pa.ListArray.from_arrays(pa.array(bounds), pa.array(vectors.ravel())),
            }
            writer.write_table(pa.table(columns).cast(VECTORS))


def _write_release(shop: ClusteredShop, folder: Path, items: int) -> None:
    """Write the files that training would: a graph and vectors that are drawn, a search index that is built."""
    documents = [shop.document(item) for item in range(items)]
    index = build_index(documents, shop.vectors.astype(np.float32), shop.encode)
    del documents
    counts = write_release(
        folder, SHOP, shop.items(), shop.catalogue(), shop.recommender(), index, shop.shoppers(), shop.categories()
    )
    (folder / "manifest.json").write_text(json.dumps({**counts, "events": 0}))


def _line(cost: Cost) -> str:
    rate = cost.rows / cost.seconds
    mark = "  replaced" if cost.is_replaced else ""
    return (
        f"{cost.items:>9,}  {cost.stage:18}{cost.seconds:9.1f} s{cost.core_seconds:9.1f} core-s{rate:12,.0f} rows/s"
        f"{cost.memory / 2**20:8,.0f} MB{cost.others / 2**20:8,.0f} MB{mark}"
    )


def _plot(costs: list[Cost], file: Path) -> None:
    """Draw the core seconds of each stage by the number of products, both as logarithms; dots are linear."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    main_stages = [name for name in dict.fromkeys(cost.stage for cost in costs) if not name.startswith("gate")]
    for stage in main_stages:
        own = [cost for cost in costs if cost.stage == stage and not cost.is_replaced]
        if not own:
            continue
        (line,) = axes.loglog([cost.items for cost in own], [cost.core_seconds for cost in own], "o-", label=stage)
        sizes = [own[0].items, max(cost.items for cost in costs)]
        axes.loglog(sizes, [own[0].core_seconds * size / sizes[0] for size in sizes], ":", color=line.get_color())
    axes.set_xlabel("products (generated)")
    axes.set_ylabel("core seconds; dots: linear")
    axes.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
