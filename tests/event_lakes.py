"""An event lake without a database: events in memory, counted as the export counts those of the mart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from souk import event_lake

# user_key, item_id, microseconds since 1970, event_id, signal
Event = tuple[str, str, int, str, int]


def date_of(event: Event) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event[2])).date().isoformat()


def contents(events: Iterable[Event]) -> dict[str, event_lake.Content]:
    """By date, as `Content` that changes with any event."""
    found: dict[str, event_lake.Content] = {}
    for event in events:
        value = int.from_bytes(hashlib.md5(repr(event).encode()).digest(), "big")
        one = event_lake.Content(1, value, value // 7)
        found[date_of(event)] = found[date_of(event)] + one if date_of(event) in found else one
    return found


def write_lake(folder: Path, events: Sequence[Event]) -> list[str]:
    """Bring the lake up to date with these events; returns the partitions that were written."""
    kind, wanted = event_lake.by_partition(contents(events))

    def read(names: Sequence[str]) -> Iterator[event_lake.Row]:
        length = {"date": 10, "month": 7}[kind]
        named = [(f"{kind}={date_of(event)[:length]}", *event) for event in events]
        yield from sorted((row for row in named if row[0] in names), key=lambda row: row[0])

    return event_lake.update(folder, wanted, read)
