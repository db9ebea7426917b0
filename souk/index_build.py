"""Building an index: memory and processes by its size, and how far it is as log lines."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import closing
from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql

from souk.errors import SoukError
from souk.postgres import connect

log = logging.getLogger(__name__)
Connection = psycopg.Connection[Any]

# A graph that does not fit is built on disk, several times as slowly. Measured: 1.6 kB for each product; by their
# number, 1.9 with the links of a large one.
BYTES_PER_ITEM = 2_400
MEMORY = range(64 << 20, 8 << 30)
MAX_WORKERS = 8
LARGE = 250_000


def graph_options(rows: int) -> str:
    """Return the storage parameters of an HNSW graph of so many rows.

    Of the ten nearest of a million products the index found 91 of 100 with pgvector's defaults, and 99 with more links
    (`hnsw.ef_search` 200).
    """
    return "m = 24, ef_construction = 128" if rows > LARGE else "m = 16, ef_construction = 64"


def set_resources(connection: Connection, rows: int) -> None:
    """Let the transaction build an index of so many rows in memory, and with every core.

    It gets no more memory than it needs, for a parallel build takes it all, and as many processes as there are cores;
    where the server is set to build without workers, it stays so.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    wanted = min(rows * BYTES_PER_ITEM, physical // 4)
    size = min(max(wanted, MEMORY.start), MEMORY.stop - 1)
    # The session that builds is a process too.
    workers = min((os.cpu_count() or 1) - 1, MAX_WORKERS)
    connection.execute(
        "select set_config('maintenance_work_mem', %s, true), set_config('max_parallel_maintenance_workers',"
        " case now.workers when 0 then 0 else greatest(now.workers, %s) end::text, true)"
        " from (select current_setting('max_parallel_maintenance_workers')::int as workers) as now",
        [f"{size >> 10}kB", workers],
    )


def create_index(connection: Connection, dsn: str, statement: sql.Composed, what: str, rows: int) -> None:
    """Build an index in a transaction, and log how far it is.

    Args:
        connection: With the transaction.
        dsn: Its database, for a second session: this one is busy.
        statement: What builds it.
        what: What the log calls it.
        rows: Rows of the table.
    """
    try:
        with connection.transaction(), Progress(dsn, connection.info.backend_pid, what, rows):
            connection.execute(statement)
    except psycopg.errors.DiskFull:
        # The shared memory of a container is often small: one process builds it in its own.
        connection.execute("set local max_parallel_maintenance_workers = 0")
        with Progress(dsn, connection.info.backend_pid, what, rows):
            connection.execute(statement)


class Progress:
    """While the block runs, log every 10 % or 30 s how far a session's index is; nothing within the first seconds.

    Args:
        dsn: The database.
        session: Process that builds.
        what: What the log calls the index.
        rows: Rows of the table.
        pause: Seconds between two looks.
    """

    def __init__(self, dsn: str, session: int, what: str, rows: int, pause: float = 2.0) -> None:
        self._dsn, self._session, self._what, self._rows, self._pause = dsn, session, what, rows, pause
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        """Start to watch."""
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to watch."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        if self._done.wait(self._pause):
            return
        try:
            with closing(connect(self._dsn, autocommit=True)) as connection:
                self._follow(connection)
        except (SoukError, psycopg.Error) as error:
            # The index is what matters.
            log.warning("no progress of %s: %s", self._what, str(error).splitlines()[0])

    def _follow(self, connection: Connection) -> None:
        said, said_at = -1.0, time.monotonic()
        while True:
            share = self._share(connection)
            now = time.monotonic()
            if share is not None and (share - said >= 0.1 or now - said_at >= 30):
                log.info("index %s: %.0f %% of %s rows", self._what, 100 * share, f"{self._rows:,}")
                said, said_at = share, now
            if self._done.wait(self._pause):
                return

    def _share(self, connection: Connection) -> float | None:
        """Return the share of rows that are in the index; None where none is being built."""
        row = connection.execute(
            "select tuples_done, tuples_total, blocks_done, blocks_total from pg_stat_progress_create_index"
            " where pid = %s",
            [self._session],
        ).fetchone()
        if row is None:
            return None
        rows_done, rows_total, pages_done, pages_total = row
        # HNSW does not say how many rows there are, a b-tree counts pages until it has read them all.
        by_rows = rows_done / max(rows_total or self._rows, 1)
        return float(min(by_rows if rows_done else pages_done / max(pages_total, 1), 1.0))
