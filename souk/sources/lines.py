"""Reading line files, plain or gzip, so that one bad line costs one row and a broken file says so."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from souk.errors import SoukError
from souk.sources.contract import Row, unreadable

SAMPLE_ROWS = 1_000


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacking `.gz`.

    Raises:
        SoukError: The gzip stream is broken or cut short.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(IO[bytes], file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SoukError(f"{path} is not a whole gzip file: {error}", "Copy or export it again.") from error


def text_lines(path: Path) -> Iterator[str | Row]:
    """Yield the non-blank lines of a UTF-8 file; a line that is not UTF-8 becomes an unreadable row."""
    with open_bytes(path) as file:
        for number, line in enumerate(file):
            raw = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
            if not raw.strip():
                continue
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError:
                yield unreadable("bad_utf8", raw)


def json_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSON lines file; what does not parse becomes an unreadable row."""
    for line in text_lines(path):
        if isinstance(line, dict):
            yield line
            continue
        try:
            value = json.loads(line)
            if "\\ud" in line.lower():  # half of a surrogate pair parses, and cannot be stored anywhere afterwards
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            yield unreadable("broken_json", line)
            continue
        yield value if isinstance(value, dict) else unreadable("not_an_object", line)


def sample_columns(path: Path, rows: Iterator[Row], sought: Set[str] = frozenset()) -> set[str]:
    """Return the columns that occur in the first rows of a file, and behind them until all that are sought are found.

    Raises:
        SoukError: The file has no row, or none of the first rows can be read.
    """
    columns: set[str] = set()
    bad = 0
    for number, row in enumerate(rows, start=1):
        if "_unreadable" in row:
            bad += 1
        else:
            columns |= row.keys()
        if number >= SAMPLE_ROWS and (not columns or sought <= columns):
            break
    if not columns and bad:
        raise SoukError(f"{path} has no readable row among its first {bad}", "Check that its format is the one named.")
    if not columns:
        raise SoukError(f"{path} has no rows", "Export it again, then run souk again.")
    return columns


def require_columns(path: Path, found: set[str], wanted: set[str]) -> None:
    """Check that a file has the columns it needs.

    Raises:
        SoukError: At least one is missing; the first is named with the file.
    """
    missing = sorted(wanted - found)
    if missing:
        listing = ", ".join(sorted(found)[:20])
        raise SoukError(f"{path} has no column {missing[0]!r} (it has {listing})", "Correct the file or the mapping.")
