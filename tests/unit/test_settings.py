from __future__ import annotations

import re

import pytest

from souk.errors import SoukError
from souk.settings import REPOSITORY, Settings

# Set by `souk.profiles` for dbt alone, out of the connection string.
INTERNAL = re.compile(r"SOUK_DBT_\w+|SOUK_AIRFLOW_DSN")


def names(pattern: str, *globs: str) -> set[str]:
    found: set[str] = set()
    for glob in globs:
        for path in REPOSITORY.glob(glob):
            found |= set(re.findall(pattern, path.read_text()))
    return {name for name in found if not INTERNAL.fullmatch(name)}


def test_the_example_names_every_variable_that_the_code_reads():
    read = names(
        r"""["'](SOUK_[A-Z_]+)["']""", "souk/**/*.py", "spark_jobs/*.py", "dags/*.py", "dbt/*.yml", "tests/conftest.py"
    )
    read |= names(r"\$\{(SOUK_COMPOSE_[A-Z_]+)", "docker-compose.yml")
    assert {"SOUK_HOME", "SOUK_COMPOSE_SECRET"} <= read
    assert (
        names(r"^#(SOUK_[A-Z_]+)=", ".env.example")
        | set(re.findall(r"^#(SOUK_[A-Z_]+)=", (REPOSITORY / ".env.example").read_text(), re.M))
        == read
    )


def test_a_bad_number_is_told_by_name():
    with pytest.raises(SoukError, match="SOUK_POSTGRES_PORT='x' is not a int"):
        Settings.from_env({"SOUK_POSTGRES_PORT": "x"})


def test_edges_are_counted_by_what_is_known():
    assert [Settings.from_env({"SOUK_EDGES": name}).edges for name in ("", "dbt", "spark")] == ["dbt", "dbt", "spark"]
    with pytest.raises(SoukError, match="SOUK_EDGES='flink' is neither dbt nor spark"):
        Settings.from_env({"SOUK_EDGES": "flink"})


def test_trainers_need_more_than_spark_connect_gives():
    given = {"SOUK_SPARK_MASTER": "sc://host:15002"}
    assert Settings.from_env(given).trainers == 0
    with pytest.raises(SoukError, match="SOUK_TRAINERS=2 needs TorchDistributor"):
        Settings.from_env(given | {"SOUK_TRAINERS": "2"})


def test_the_environment_decides():
    settings = Settings.from_env({"SOUK_HOME": "/somewhere", "SOUK_LATE_DAYS": "3"})
    assert (str(settings.lake), settings.late_days) == ("/somewhere/lake", 3)
