"""The sequence model of a toy shop, trained by processes of Spark's and by this one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pyspark.sql import SparkSession

from ml.recommender.pq import PQ, tastes, train
from souk.errors import SoukError
from souk.settings import Settings
from souk.training import learner
from spark_jobs.train_recommender import train_recommender

pytestmark = pytest.mark.slow

N_ITEMS = 60


def walks(n: int, seed: int) -> list[list[int]]:
    """Shoppers who go on to a neighbour of what they had, on a ring of items."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        steps = chance.choice([1, 2, 3], chance.integers(2, 9))
        found.append(((chance.integers(N_ITEMS) + np.cumsum(steps)) % N_ITEMS).tolist())
    return found


def loss(model: PQ, sequences: list[list[int]]) -> float:
    """The mean of -log p(last item | those before it)."""
    users = tastes(model.inputs, model.position_weights, [items[-2::-1] for items in sequences])
    logits = (users @ model.outputs.astype(np.float32).T).astype(np.float64)
    likelihood = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -float(likelihood[np.arange(len(sequences)), [items[-1] for items in sequences]].mean())


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    drawn = np.random.default_rng(2).normal(size=(N_ITEMS, 16))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def test_two_processes_learn_what_one_learns(spark: SparkSession, features, tmp_path, monkeypatch):
    monkeypatch.setattr(SparkSession, "stop", lambda _: None)  # other tests need it
    settings = dataclasses.replace(Settings.from_env({}), home=tmp_path)
    taught, unseen = walks(4000, 0), walks(500, 1)
    with learner(settings, "toy") as learn:
        alone = learn(features, taught, 0)
    with learner(dataclasses.replace(settings, trainers=2), "toy") as learn:
        together = learn(features, taught, 0)
    assert loss(alone, unseen) < 0.8 * np.log(N_ITEMS)
    assert loss(together, unseen) == pytest.approx(loss(alone, unseen), rel=0.01)
    # Both drew the same; sums of halves of a batch round otherwise than those of a whole one.
    assert np.allclose(together.inputs, alone.inputs, atol=0.02)
    assert not np.allclose(together.inputs, train(features, taught, 1).inputs, atol=0.02)
    assert list((tmp_path / "lake" / "toy").iterdir()) == []


def test_more_processes_than_slots_are_refused(spark: SparkSession, features, tmp_path):
    with pytest.raises(SoukError, match="Spark has room for 2 of 3 trainers"):
        train_recommender(spark, features, walks(10, 0), 0, 3, tmp_path)
