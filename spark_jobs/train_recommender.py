"""The sequence model, trained by several processes on Spark's executors: each learns from its part of every batch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from ml.recommender.pq import PQ, Team, train
from souk.errors import SoukError

PATIENCE = timedelta(minutes=10)


def train_recommender(
    spark: SparkSession,
    features: NDArray[np.float32],
    sequences: Sequence[Sequence[int]],
    seed: int,
    processes: int,
    shared: Path,
) -> PQ:
    """Train as `ml.recommender.pq.train` does.

    Args:
        spark: The session; its executors need as many free slots as there are processes.
        features: float32 (n, d), unit vectors of the texts, or zero.
        sequences: Distinct item indices in time order, one sequence per shopper.
        seed: Of everything that is drawn.
        processes: How many train together.
        shared: A folder that all executors see; what lies there during the training is removed.

    Raises:
        SoukError: Spark has fewer slots than processes.
    """
    slots = spark.sparkContext.defaultParallelism
    if slots < processes:
        raise SoukError(f"Spark has room for {slots} of {processes} trainers", "Correct SOUK_TRAINERS.")
    shared.mkdir(parents=True, exist_ok=True)
    # By way of files: rows of a million products are too large for the messages of Spark.
    with tempfile.TemporaryDirectory(dir=shared, prefix="training-") as folder:
        np.save(Path(folder) / "features.npy", features)
        np.save(Path(folder) / "lengths.npy", np.array([len(items) for items in sequences], np.int64))
        np.save(Path(folder) / "items.npy", np.array([item for items in sequences for item in items], np.int32))
        TorchDistributor(num_processes=processes, local_mode=False, use_gpu=False).run(_take_part, folder, seed)
        with np.load(Path(folder) / "model.npz") as model:
            return PQ(**model)


def _take_part(folder: str, seed: int) -> None:
    """Train in one of the processes; the first writes the model."""
    from torch import distributed

    # Gloo looks the name of the machine up, which not every network answers.
    if os.environ["MASTER_ADDR"] == "127.0.0.1" and Path("/sys/class/net/lo").exists():
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    features, lengths, items = (np.load(Path(folder) / f"{name}.npy") for name in ("features", "lengths", "items"))
    sequences = [part.tolist() for part in np.split(items, np.cumsum(lengths)[:-1])]
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        team = Team(distributed.get_rank(), distributed.get_world_size(), distributed.all_reduce)
        model = train(features, sequences, seed, team)
        if team.rank == 0:
            np.savez(Path(folder) / "model.npz", **vars(model))
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
