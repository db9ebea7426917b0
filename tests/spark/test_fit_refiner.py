"""The refiner, trained by a process of Spark's and by this one."""

from __future__ import annotations

import dataclasses

import pytest
from pyspark.sql import SparkSession

from ml.refiner import Product, Refiner, RefinerSettings
from spark_jobs.fit_refiner import fit_refiner
from tests.refiner import demo_shop

pytestmark = pytest.mark.slow
QUICK = RefinerSettings(texts=60, mle_steps=3, adversarial_steps=1, discriminator_steps=3, folds=1, samples=2)


def test_a_process_of_spark_trains_the_same_refiner(spark: SparkSession, tmp_path) -> None:
    products = demo_shop()[0][:120]
    products[0] = dataclasses.replace(products[0], title=products[0].title + " \ud800\u2028")
    rewards = {products[1].item_id: 0.4}
    there = fit_refiner(spark, products, 3, QUICK, rewards, tmp_path)
    here = Refiner.fit(products, seed=3, settings=QUICK, rewards=rewards)
    assert there.version == here.version
    assert there.report == here.report
    assert there.refine(products[:6], seed=1) == here.refine(products[:6], seed=1)
    with pytest.raises(ValueError, match="too few"):
        fit_refiner(spark, [Product("1", "Steel bottle", "", "", (), (), ())], 3, QUICK, {}, tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
