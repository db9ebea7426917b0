"""What every source yields: chunks of plain rows, uninterpreted, for landing to validate."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from souk.errors import SoukError

Row = dict[str, object]
CHUNK_ROWS = 10_000
RAW_CHARACTERS = 200


@dataclass(frozen=True)
class Dataset(ABC):
    """One shop's data, opened and checked but not yet read.

    Each method starts from the beginning and yields non-empty chunks of at most `CHUNK_ROWS` rows. A row that cannot be
    decoded is `unreadable(...)`; any row may carry `contact`: {name, email, phone}. The keys are

    - product: item_id, title, description, brand, categories (list), price, currency, attributes (dict), listed_at
    - event: event_id, user_id, item_id, kind, event_at, session_id, query_id, quantity
    - query: query_id, user_id, session_id, query_text, searched_at, shown_item_ids (list)
    - review: review_id, user_id, item_id, rating, body, reviewed_at

    Attributes:
        shop: Name of the shop that the rows belong to.
        source: Name in the registry of `open_dataset`.
        is_generated: True where the data was made up; every figure drawn from it has to say so.
        has_clock: False where only the order of events is known and `event_at` is an ordinal.
        fingerprint: SHA-256, in hex, of the input's content and of the parameters that shape its rows.
    """

    shop: str
    source: str
    is_generated: bool
    has_clock: bool
    fingerprint: str

    @abstractmethod
    def products(self) -> Iterator[list[Row]]:
        """Yield the catalogue."""

    @abstractmethod
    def events(self) -> Iterator[list[Row]]:
        """Yield what shoppers did with products."""

    def queries(self) -> Iterator[list[Row]]:
        """Yield the searches; none where the source has none."""
        return iter(())

    def reviews(self) -> Iterator[list[Row]]:
        """Yield the reviews; none where the source has none."""
        return iter(())


def unreadable(reason: str, raw: object) -> Row:
    """Return the row that stands for one that cannot be decoded.

    Args:
        reason: Reason code, such as `broken_json`.
        raw: The offending text or bytes; only its beginning is kept, without NUL.
    """
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    return {"_unreadable": reason, "_raw": text[:RAW_CHARACTERS].replace("\x00", "\ufffd").strip()}


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Cut a stream of rows into lists of at most `CHUNK_ROWS`."""
    stream = iter(rows)
    while chunk := list(islice(stream, CHUNK_ROWS)):
        yield chunk


def fingerprint(parameters: Iterable[str], files: Iterable[Path] = ()) -> str:
    """Return the SHA-256, in hex, of parameters and of file contents, in the given order; file names do not count."""
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(f"{len(parameter)}:{parameter}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def row_id(*parts: object) -> str:
    """Return a deterministic id for a row that has none: 32 hex digits of the hash of its natural key.

    The key of an event names the shopper, so it is hashed rather than spelled out.
    """
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode("utf-8", "replace")).hexdigest()[:32]


def require_file(path: Path) -> Path:
    """Return the path of a file that exists and is not empty.

    Raises:
        SoukError: It does not exist, is not a file, cannot be read or has no content.
    """
    try:
        if not path.is_file():
            raise SoukError(f"{path} does not exist", "Correct --path or the file's name.")
        if path.stat().st_size == 0:
            raise SoukError(f"{path} is empty", "Export it again, then run souk again.")
        with path.open("rb"):
            return path
    except OSError as error:
        raise SoukError(f"{path} cannot be read: {error.strerror}", "Correct its permissions.") from error
