"""One Spark session for all Spark tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from spark_jobs.session import spark_session


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    session = spark_session("souk-tests", "local[2,2]", tmp_path_factory.mktemp("home"))
    yield session
    session.stop()
