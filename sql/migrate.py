"""Apply `migrations/` once each, and `internal/`, `api/` and `roles.sql` every time, under one advisory lock.

Functions that no file defines any more are dropped.

The hash of every migration is frozen in `migrations/frozen.sha256` when it lands: a migration that has been applied
is never edited, a new one is written instead.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parent
FROZEN = ROOT / "migrations" / "frozen.sha256"
# "souk" in ASCII: any two migrators of one database meet on this number.
LOCK = 0x736F756B


class MigrationError(Exception):
    """A migration was edited after it was applied or frozen, or is missing."""


@dataclass(frozen=True)
class Migration:
    """One file of `migrations/`."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Return the hash that identifies the content."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_migrations(root: Path = ROOT) -> list[Migration]:
    """Return the migrations of a folder in their order."""
    return [Migration(path.name, path.read_text()) for path in sorted((root / "migrations").glob("*.sql"))]


def migrate(dsn: str, root: Path = ROOT) -> list[str]:
    """Bring a database up to date, in one transaction.

    Args:
        dsn: The database.
        root: A folder laid out as this one.

    Returns:
        The names of the migrations applied now.

    Raises:
        MigrationError: An applied migration has changed or is missing.
    """
    migrations = read_migrations(root)
    with psycopg.connect(dsn) as connection:
        connection.execute("select pg_advisory_xact_lock(%s)", [LOCK])
        connection.execute("create schema if not exists migration")
        connection.execute(
            "create table if not exists migration.applied"
            " (name text primary key, sha256 text not null, applied_at timestamptz not null default now())"
        )
        applied: dict[str, str] = dict(connection.execute("select name, sha256 from migration.applied").fetchall())
        _refuse_changes(applied, {migration.name: migration for migration in migrations})
        fresh = [migration for migration in migrations if migration.name not in applied]
        for migration in fresh:
            connection.execute(migration.text)
            connection.execute(
                "insert into migration.applied (name, sha256) values (%s, %s)", [migration.name, migration.sha256]
            )
        # The settings of pgvector that functions carry are known from its first use in a session on.
        connection.execute("select '[1]'::public.vector")
        for path in [*sorted((root / "internal").glob("*.sql")), *sorted((root / "api").glob("*.sql"))]:
            connection.execute(path.read_text())
        _drop_left_over(connection)
        connection.execute((root / "roles.sql").read_text())
    return [migration.name for migration in fresh]


def _drop_left_over(connection: psycopg.Connection[Any]) -> None:
    """Drop the functions that no file defines any more: an overload left behind would make calls ambiguous."""
    left_over = connection.execute(
        "select p.oid::regprocedure::text from pg_proc as p where p.xmin <> pg_current_xact_id()::xid"
        " and p.pronamespace in ('internal'::regnamespace, 'api'::regnamespace)"
    ).fetchall()
    for (function,) in left_over:
        connection.execute(f"drop function {function}")


def _refuse_changes(applied: dict[str, str], known: dict[str, Migration]) -> None:
    for name, sha256 in applied.items():
        if name not in known:
            raise MigrationError(f"Migration {name} was applied to this database but its file is missing")
        if known[name].sha256 != sha256:
            raise MigrationError(f"Migration {name} was changed after it was applied; write a new migration instead")
