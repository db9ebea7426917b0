"""Build the shopper profiles and the other marts: dbt in this process, one build of a database at a time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from souk.errors import SoukError
from souk.postgres import connect
from souk.settings import REPOSITORY, Settings

PROJECT = REPOSITORY / "dbt"
TRANSITIONS = "fct_item_transitions"
# "dbt" in ASCII: two builds would drop each other's views.
LOCK = 0x646274


@dataclass(frozen=True)
class ProfilesReport:
    """What a build did.

    Attributes:
        shop: The shop whose rows were replaced or added.
        models: Models built.
        tests: Data tests and unit tests passed.
        rows: Rows of the shop in each mart.
        seconds: Wall time.
    """

    shop: str
    models: int
    tests: int
    rows: dict[str, int]
    seconds: float


def build_profiles(dsn: str, settings: Settings, shop: str, *, full_refresh: bool = False) -> ProfilesReport:
    """Fold the new landings of a shop into the marts and test everything.

    Args:
        dsn: A migrated database.
        settings: Where generated files go, and how late an event may be.
        shop: The shop.
        full_refresh: Build every mart anew, for every shop; late events then count like others.

    Raises:
        SoukError: The shop has no complete landing, another build runs, or a model or a test failed.
    """
    start = time.monotonic()
    with _only_build(dsn) as connection:
        landed = connection.execute("select 1 from raw.landing where shop = %s and state = 'complete'", [shop])
        if landed.fetchone() is None:
            raise SoukError(f"Shop {shop!r} has no complete landing", "Land its data first.")
        options = ["--full-refresh"] if full_refresh else []
        if settings.edges != "dbt":
            options += ["--exclude", TRANSITIONS]
        results = _dbt(connection, settings, shop, "build", *options)
        types = [result.node.resource_type.value for result in results]
        marts = sorted(result.node.name for result in results if result.node.config.get("schema") == "marts")
        return ProfilesReport(
            shop=shop,
            models=types.count("model"),
            tests=types.count("test") + types.count("unit_test"),
            rows={mart: _count(connection, mart, shop) for mart in marts},
            seconds=round(time.monotonic() - start, 3),
        )


def write_docs(dsn: str, settings: Settings, shop: str) -> Path:
    """Write the documentation of the models as one HTML page and return its path.

    Raises:
        SoukError: Another build runs, or dbt cannot read the database.
    """
    with _only_build(dsn) as connection:
        _dbt(connection, settings, shop, "docs", "generate", "--static")
    return _target(settings) / "static_index.html"


def _target(settings: Settings) -> Path:
    return settings.home / "dbt" / "target"


@contextmanager
def _only_build(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect, and hold the lock of the build as long as the connection is open."""
    with closing(connect(dsn, autocommit=True)) as connection:
        if connection.execute("select pg_try_advisory_lock(%s)", [LOCK]).fetchone() != (True,):
            raise SoukError("Another profile build is running on this database", "Wait until it has ended.")
        yield connection


def _dbt(connection: psycopg.Connection[Any], settings: Settings, shop: str, *command: str) -> list[Any]:
    """Run one dbt command and return the results of its nodes."""
    from dbt.cli.main import dbtRunner

    logs = settings.home / "dbt" / "logs"
    arguments = [
        *command,
        *("--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)),
        *("--target-path", str(_target(settings)), "--log-path", str(logs)),
        *("--vars", json.dumps({"shop": shop, "late_days": settings.late_days})),
        *("--quiet", "--no-use-colors", "--no-version-check", "--no-send-anonymous-usage-stats"),
    ]
    with _environment(_profile(connection)):
        outcome = dbtRunner().invoke(arguments)
    results = list(getattr(outcome.result, "results", None) or [])
    if not outcome.success:
        raise SoukError(f"dbt {command[0]} failed {_blame(results, outcome.exception)}", f"Read {logs / 'dbt.log'}.")
    return results


def _blame(results: list[Any], exception: BaseException | None) -> str:
    for result in results:
        if result.status in ("error", "fail", "runtime error"):
            # The first line of a longer message only repeats which node it was.
            lines = [line.strip() for line in (result.message or "no message").splitlines() if line.strip()]
            cause = lines[min(1, len(lines) - 1)].rstrip(".")
            return f"at {result.node.resource_type.value} {result.node.name}: {cause}"
    return f"before the first model: {exception}"


def _profile(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return the variables that `dbt/profiles.yml` reads, and those by which libpq keeps the DSN's TLS choices."""
    info = connection.info
    tls = {key: value for key, value in conninfo_to_dict(info.dsn).items() if key.startswith("ssl")}
    return {
        "SOUK_DBT_HOST": info.host,
        "SOUK_DBT_PORT": str(info.port),
        "SOUK_DBT_USER": info.user,
        "SOUK_DBT_PASSWORD": info.password,
        "SOUK_DBT_DBNAME": info.dbname,
        "DO_NOT_TRACK": "1",
        **{f"PG{key.upper()}": str(value) for key, value in tls.items()},
    }


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _count(connection: psycopg.Connection[Any], mart: str, shop: str) -> int:
    query = psycopg.sql.SQL("select count(*) from marts.{} where shop = %s").format(psycopg.sql.Identifier(mart))
    row = connection.execute(query, [shop]).fetchone()
    return int(row[0]) if row else 0
