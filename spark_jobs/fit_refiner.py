"""The refiner, trained on an executor of Spark instead of where the stage runs: small networks, so by one process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from ml.refiner import Product, Refiner, RefinerSettings
from spark_jobs.refine_descriptions import from_json, to_json


def fit_refiner(
    spark: SparkSession,
    products: Sequence[Product],
    seed: int,
    settings: RefinerSettings,
    rewards: Mapping[str, float],
    shared: Path,
) -> Refiner:
    """Train as `Refiner.fit` does, with the same result.

    Args:
        spark: The session; its executors need a free slot.
        products: With good descriptions.
        seed: Of everything drawn.
        settings: How much is trained.
        rewards: Of products, see `Refiner.fit`.
        shared: A folder that all executors see; what lies there during the training is removed.

    Raises:
        ValueError: There are too few good descriptions.
        RuntimeError: The training failed.
    """
    shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shared, prefix="training-") as name:
        folder = Path(name)
        (folder / "products.jsonl").write_text("\n".join(map(to_json, products)), "utf-8", "surrogatepass")
        (folder / "options.json").write_text(json.dumps([seed, asdict(settings), dict(rewards)]), "utf-8")
        TorchDistributor(num_processes=1, local_mode=False, use_gpu=False).run(_fit, name)
        failure = folder / "failure.txt"
        if failure.exists():
            raise ValueError(failure.read_text("utf-8"))
        return Refiner.load(folder / "refiner")


def _fit(name: str) -> None:
    """Train in the process, and leave the refiner, or why there is none."""
    folder = Path(name)
    seed, settings, rewards = json.loads((folder / "options.json").read_text("utf-8"))
    products = [
        from_json(line) for line in (folder / "products.jsonl").read_text("utf-8", "surrogatepass").split("\n") if line
    ]
    try:
        refiner = Refiner.fit(products, seed=seed, settings=RefinerSettings(**settings), rewards=rewards)
    except ValueError as error:
        (folder / "failure.txt").write_text(str(error), "utf-8")
        return
    refiner.save(folder / "refiner")
