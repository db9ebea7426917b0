"""docker-compose.yml, judged by the real Compose binary."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import compose
import pytest

from souk.postgres import CONFIGURATION
from souk.settings import REPOSITORY

# The wrapper that the package installs on PATH always exits 0.
BINARY = Path(compose.__file__).parent / "docker-compose"
FILE = REPOSITORY / "docker-compose.yml"
SECRETS = {
    "SOUK_COMPOSE_POSTGRES_PASSWORD": "postgres0secret",
    "SOUK_COMPOSE_AIRFLOW_PASSWORD": "airflow0secret",
    "SOUK_COMPOSE_SECRET": "signing0secret",
    "SOUK_COMPOSE_FERNET_KEY": "fernet0secret",
}


def config(
    folder: Path, text: str, *options: str, secrets: dict[str, str] = SECRETS
) -> subprocess.CompletedProcess[str]:
    """Run `config` on a compose file with this text."""
    (folder / "docker-compose.yml").write_text(text)
    return subprocess.run(
        [BINARY, "--project-directory", folder, "config", *options],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **secrets},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    done = config(tmp_path_factory.mktemp("compose"), FILE.read_text(), "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def test_compose_accepts_the_file(tmp_path: Path) -> None:
    done = config(tmp_path, FILE.read_text(), "-q")
    assert (done.returncode, done.stderr) == (0, "")


def test_compose_refuses_a_broken_file(tmp_path: Path) -> None:
    broken = FILE.read_text().replace("airflow-migrate: {condition:", "airflow-migrated: {condition:")
    assert broken != FILE.read_text()
    done = config(tmp_path, broken, "-q")
    assert done.returncode != 0
    assert "airflow-migrated" in done.stderr


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_is_required(tmp_path: Path, name: str) -> None:
    done = config(tmp_path, FILE.read_text(), "-q", secrets={key: SECRETS[key] for key in SECRETS if key != name})
    assert done.returncode != 0
    assert name in done.stderr


def test_the_stack_is_complete(services: dict[str, dict]) -> None:
    assert set(services) == {
        "postgres",
        "airflow-migrate",
        "airflow-api",
        "airflow-scheduler",
        "airflow-dag-processor",
        "spark-master",
        "spark-worker",
    }
    assert services["postgres"]["image"] == "pgvector/pgvector:0.8.6-pg18"
    assert services["airflow-api"]["image"] == services["spark-worker"]["image"]


def test_postgres_is_set_as_the_embedded_one(services: dict[str, dict]) -> None:
    program, *options = services["postgres"]["command"]
    embedded = dict(line.split(" = ") for line in CONFIGURATION.splitlines())
    its_own = {"listen_addresses", "unix_socket_directories", "port", "max_connections", "timezone", "log_timezone"}
    assert (program, set(options[::2])) == ("postgres", {"-c"})
    assert dict(option.split("=") for option in options[1::2]) == {
        name: value for name, value in embedded.items() if name not in its_own
    }


def test_ports_are_on_loopback(services: dict[str, dict]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_every_lasting_service_has_a_health_check(services: dict[str, dict]) -> None:
    lasting = {name for name, service in services.items() if service.get("restart") != "no"}
    assert lasting == set(services) - {"airflow-migrate"}
    assert {name for name in lasting if services[name].get("healthcheck", {}).get("test")} == lasting


def test_the_image_holds_what_the_services_use() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert "dags" in copied
    assert [path for path in copied if not (REPOSITORY / path).exists()] == []
    admitted = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert admitted == set(copied)
    assert re.fullmatch(r"FROM python:3\.11\.\d+-slim-\w+", next(line for line in lines if line.startswith("FROM")))
