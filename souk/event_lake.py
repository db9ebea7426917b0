"""The events of a shop as files, for what counts them outside of Postgres: one file a date, and a manifest.

`date=YYYY-MM-DD/<digest>.parquet` holds the events of a date (UTC), each with what it says of its product (`SIGNAL` of
`souk.shoppers`), `manifest.json` names the files that count. An export writes the dates anew whose rows in the mart
have changed, then replaces the manifest, then removes every file that it does not name: a reader sees the events of one
export, whole, and what a killed export has left is never read. An erased shopper is gone from the files with the next
export.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from souk.errors import SoukError
from souk.shoppers import SIGNAL, Connection, stream

log = logging.getLogger(__name__)

VERSION = 2
MANIFEST = "manifest.json"
EVENTS = pa.schema(
    [
        ("user_key", pa.string()),
        ("item_id", pa.string()),
        ("event_at", pa.timestamp("us", "UTC")),
        ("event_id", pa.string()),
        ("signal", pa.int8()),
    ]
)
# A thousand small files are read in a moment, and late events then change little. Many more cost more than their rows.
MAX_DATES = 1_000
ROWS_PER_DATE = 10_000
ROWS_PER_GROUP = 100_000
READERS = 4

# How `to_char` writes the value of a partition.
_PATTERNS = {"date": "YYYY-MM-DD", "month": "YYYY-MM"}
_FILE = re.compile(r"(date=\d{4}-\d\d-\d\d|month=\d{4}-\d\d)/[0-9a-f]{32}\.parquet")
_MICROSECONDS = "(extract(epoch from event_at) * 1000000)::bigint"

# Partition, user_key, item_id, microseconds since 1970, event_id, signal.
Row = tuple[str, str, str, int, str, int]


@dataclass(frozen=True)
class Content:
    """What a date or a partition holds: the number of its events, and sums of their hashes, which have no order."""

    rows: int
    high: int
    low: int

    @property
    def digest(self) -> str:
        """Return 32 hex digits that change with any event."""
        return hashlib.sha256(f"{self.rows} {self.high} {self.low}".encode()).hexdigest()[:32]

    def __add__(self, other: Content) -> Content:
        """Return what both hold together."""
        return Content(self.rows + other.rows, self.high + other.high, self.low + other.low)


@dataclass(frozen=True)
class Part:
    """A line of the manifest.

    Attributes:
        rows: Events.
        digest: Of the content, as the database counts it.
        file: Relative to the folder of the manifest.
        size: Of the file, in bytes.
        sha256: Of the file.
    """

    rows: int
    digest: str
    file: str
    size: int
    sha256: str


def export_events(connection: Connection, shop: str, folder: Path) -> list[str]:
    """Bring the files of a shop up to date with `marts.fct_interactions`; return the partitions that were written.

    Args:
        connection: Outside a transaction: one of its own sees the mart as it is at one moment.
        shop: The shop.
        folder: Where the manifest lies; nothing else may lie there.

    Raises:
        SoukError: Another process exports this shop.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        taken = connection.execute(
            "select pg_try_advisory_xact_lock(hashtext('souk.event_lake'), hashtext(%s))", [shop]
        ).fetchone()
        if taken is None or not taken[0]:
            raise SoukError(f"Another process exports the events of {shop}", "Wait for it to end.")
        kind, wanted = by_partition(_count(connection, shop))
        return update(folder, wanted, lambda names: _read(connection, shop, kind, names))


def by_partition(dates: Mapping[str, Content]) -> tuple[str, dict[str, Content]]:
    """Return `date` or `month`, and what each partition has to hold.

    Events lie by date, unless there are more than `MAX_DATES` dates with fewer than `ROWS_PER_DATE` events each on
    average; then by month. A shop without a clock has its ordinals for dates: a few, as a rule one.

    Args:
        dates: By `YYYY-MM-DD`.
    """
    rows = sum(content.rows for content in dates.values())
    kind = "month" if len(dates) > MAX_DATES and rows < ROWS_PER_DATE * len(dates) else "date"
    wanted: dict[str, Content] = {}
    for date, content in sorted(dates.items()):
        name = f"{kind}={date[: len(_PATTERNS[kind])]}"
        wanted[name] = wanted[name] + content if name in wanted else content
    return kind, wanted


def update(folder: Path, wanted: Mapping[str, Content], read: Callable[[Sequence[str]], Iterator[Row]]) -> list[str]:
    """Write the partitions that are not as wanted, show them, and remove what is no longer named.

    Args:
        folder: Where the manifest lies.
        wanted: By partition, such as `date=2026-01-31`.
        read: Yields the events of the partitions it is given, one partition after the other.

    Returns:
        The partitions that were written.

    Raises:
        SoukError: What was read is not what was wanted.
    """
    known = _known(folder)
    stale = [name for name, content in wanted.items() if not _is_current(folder, known.get(name), content)]
    written: dict[str, Part] = {}
    for name, rows in groupby(read(stale) if stale else (), key=lambda row: row[0]):
        written[name] = _write(folder / name, wanted[name], rows)
    if missing := [name for name in stale if name not in written]:
        raise SoukError(f"No events were read of {missing[0]}, but were counted", "Export the events again.")
    _show(folder, {name: written.get(name) or known[name] for name in sorted(wanted)})
    _clear(folder, wanted)
    log.info(
        "event lake: %s events in %s partitions, %s of them written",
        *(f"{sum(content.rows for content in wanted.values()):,}", f"{len(wanted):,}", f"{len(written):,}"),
    )
    return list(written)


def verified_files(folder: Path) -> list[Path]:
    """Return the files that the manifest names; each has the hash, the columns and the rows that it says.

    Raises:
        SoukError: There is no manifest, it is of another version or damaged, or a file is missing or another one.
    """
    remedy = f"Remove {folder} and run the training with SOUK_EDGES=spark: it exports the events again."
    try:
        parts = _parse((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise SoukError(f"There is no manifest of events in {folder}", remedy) from None
    except ValueError as error:
        raise SoukError(f"The manifest of events in {folder} {error}", remedy) from error
    with ThreadPoolExecutor(READERS) as pool:
        problems = [problem for problem in pool.map(lambda part: _problem(folder, part), parts.values()) if problem]
    if problems:
        more = f", and {len(problems) - 1:,} more files are damaged" if len(problems) > 1 else ""
        raise SoukError(problems[0] + more, remedy)
    return [folder / part.file for part in parts.values()]


def _count(connection: Connection, shop: str) -> dict[str, Content]:
    """Return what each date holds, by its name."""
    rows = connection.execute(
        f"select to_char(event_at at time zone 'UTC', '{_PATTERNS['date']}'), count(*),"
        " sum(('x' || left(hash, 16))::bit(64)::bigint), sum(('x' || right(hash, 16))::bit(64)::bigint)"
        f" from (select event_at, md5(row(user_key, item_id, {_MICROSECONDS}, event_id, {SIGNAL})::text) as hash"
        " from marts.fct_interactions where shop = %s) as events group by 1",
        [shop],
    ).fetchall()
    return {date: Content(count, int(high), int(low)) for date, count, high, low in rows}


def _read(connection: Connection, shop: str, kind: str, names: Sequence[str]) -> Iterator[Row]:
    # The order of the rows makes files smaller, and the same on every run.
    name = f"'{kind}=' || to_char(event_at at time zone 'UTC', '{_PATTERNS[kind]}')"
    yield from stream(
        connection,
        f"select {name}, user_key, item_id, {_MICROSECONDS}, event_id, {SIGNAL} from marts.fct_interactions"
        f" where shop = %s and {name} = any(%s)"
        ' order by 1, user_key collate "C", event_at, event_id collate "C"',
        [shop, list(names)],
    )


def _known(folder: Path) -> dict[str, Part]:
    """Return the manifest that is shown; nothing where there is none to build on."""
    try:
        return _parse((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        log.warning("the manifest of events in %s %s: everything is written anew", folder, error)
        return {}


def _parse(text: bytes) -> dict[str, Part]:
    """Return the lines of a manifest by partition.

    Raises:
        ValueError: It is of another version, or damaged.
    """
    try:
        said = json.loads(text)
        version = said["version"]
        parts = _parts(said) if version == VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("is damaged") from error
    if parts is None:
        raise ValueError(f"is of version {version}, not {VERSION}")
    return parts


def _parts(said: dict[str, Any]) -> dict[str, Part]:
    parts = {name: Part(**line) for name, line in said["partitions"].items()}
    for name, part in parts.items():
        if not (_FILE.fullmatch(part.file) and part.file.startswith(f"{name}/")):
            raise ValueError(f"{part.file} is no file of {name}")
    if said["rows"] != sum(part.rows for part in parts.values()):
        raise ValueError("the rows do not add up")
    return parts


def _is_current(folder: Path, part: Part | None, content: Content) -> bool:
    if part is None or part.digest != content.digest:
        return False
    path = folder / part.file
    return path.is_file() and path.stat().st_size == part.size


def _write(folder: Path, content: Content, rows: Iterator[Row]) -> Part:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{content.digest}.parquet"
    partial = target.with_suffix(".partial")
    with pq.ParquetWriter(partial, EVENTS, compression="zstd") as writer:
        count = 0
        while group := list(islice(rows, ROWS_PER_GROUP)):
            _, *columns = zip(*group, strict=True)
            writer.write_table(pa.table(columns, schema=EVENTS))
            count += len(group)
    if count != content.rows:
        raise SoukError(
            f"{count:,} events were read of {folder.name}, but {content.rows:,} counted", "Export the events again."
        )
    partial.replace(target)
    return Part(count, content.digest, f"{folder.name}/{target.name}", target.stat().st_size, _sha256(target))


def _show(folder: Path, parts: Mapping[str, Part]) -> None:
    """Replace the manifest, unless it says this already."""
    lines = {name: asdict(part) for name, part in parts.items()}
    said = {"version": VERSION, "rows": sum(part.rows for part in parts.values()), "partitions": lines}
    text = json.dumps(said, indent=1) + "\n"
    manifest = folder / MANIFEST
    if manifest.exists() and manifest.read_bytes() == text.encode():
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = manifest.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(manifest)


def _clear(folder: Path, wanted: Mapping[str, Content]) -> None:
    """Remove what the manifest does not name: replaced files, and what a killed export has left."""
    kept = {
        folder / "manifest.json",
        *(folder / name / f"{content.digest}.parquet" for name, content in wanted.items()),
    }
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept:
            path.unlink()


def _problem(folder: Path, part: Part) -> str | None:
    """Return what is wrong with a file; None if nothing is."""
    path = folder / part.file
    if not path.is_file():
        return f"{path} is missing"
    if _sha256(path) != part.sha256:
        return f"{path} is not the file that the manifest names"
    try:
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
    except pa.ArrowInvalid:
        return f"{path} is not a Parquet file"
    if not schema.equals(EVENTS):
        return f"{path} has other columns than events have"
    return None if rows == part.rows else f"{path} has {rows:,} rows, the manifest says {part.rows:,}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
