"""What every test may use: an embedded Postgres of the test run, and fresh databases cloned from a migrated template."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from souk.postgres import EmbeddedPostgres
from sql.migrate import migrate

OWNER = "test_owner"


def sampled(cases: Sequence[Any], every: int) -> list[Any]:
    """Return the cases of a long table, of which the fast tests take every n-th."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.slow] if number % every else []
        )
        for number, case in enumerate(cases)
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server_home() -> Iterator[Path]:
    """A folder that the server's own user can enter: pytest closes the parents of `tmp_path` to others."""
    with tempfile.TemporaryDirectory(prefix="souk-test-", dir=_memory_disk()) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _memory_disk() -> Path | None:
    """A disk in memory with room for the test run: to clone a database there takes a fifteenth of the time."""
    disk = Path("/dev/shm")
    return disk if disk.is_dir() and shutil.disk_usage(disk).free > 8 * 2**30 else None


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """An embedded Postgres that lives as long as the test run."""
    with server_home() as home:
        embedded = EmbeddedPostgres(home, free_port())
        embedded.start()
        yield embedded
        embedded.stop()


@pytest.fixture(scope="session")
def template(server: EmbeddedPostgres) -> str:
    """The DSN of a migrated database to clone.

    It belongs to a login that is no superuser, as on servers that are rented: all that works on its clones works there.
    """
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"create role {OWNER} login createdb createrole password '{OWNER}'")
        connection.execute(f"create database template_souk owner {OWNER}")
    with psycopg.connect(server.dsn("template_souk")) as connection:
        connection.execute("create extension vector")
    dsn = make_conninfo(server.dsn("template_souk"), user=OWNER, password=OWNER)
    migrate(dsn)
    return dsn


def _clone(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template template_souk owner {OWNER}")
        yield make_conninfo(template, dbname=name)
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The DSN of a fresh, migrated database for one test."""
    yield from _clone(server, template)


@pytest.fixture(scope="module")
def module_database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The DSN of a fresh, migrated database for one test file."""
    yield from _clone(server, template)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("SOUK_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data is absent: {folder} does not exist; set SOUK_DATA")
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of encoders: the default one is converted once for all tests."""
    return tmp_path_factory.mktemp("models")
