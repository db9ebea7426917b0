"""An Airflow of its own for the tests of the DAG."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from souk.airflow import DATABASE, prepare
from souk.settings import Settings
from tests.conftest import free_port


@dataclass(frozen=True)
class Installation:
    """Settings and a migrated souk database; Airflow's database is on the same server."""

    settings: Settings
    dsn: str

    def metadata(self, query: str) -> list[tuple[object, ...]]:
        """Ask Airflow's database."""
        return self._rows(make_conninfo(self.dsn, dbname=DATABASE), query)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Ask the souk database."""
        return self._rows(self.dsn, query)

    @staticmethod
    def _rows(dsn: str, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(dsn) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def installation(module_database: str, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A home with a migrated Airflow; `run_dag(installation.settings, installation.dsn, params)` runs the DAG there."""
    home: Path = tmp_path_factory.mktemp("airflow")
    (home / "models").symlink_to(models)
    settings = replace(Settings.from_env({}), home=home, database_url=module_database, airflow_port=free_port())
    settings = replace(settings, refiner_steps=3)
    prepare(settings, module_database)
    return Installation(settings, module_database)
