"""Amazon data sets in their two public shapes.

*Sequences*: a folder with `items.jsonl` (item_id, title, and perhaps description, brand, categories, asin) and
`sequences.txt` (`user item item …`, oldest first). Only the order is known, so `has_clock` is False and `event_at` is
2000-01-01 plus the position in seconds.

*Reviews 2018*: a folder with a `products*` or `meta*` file (asin, title, description, brand, category, price, …) and a
`reviews*` file (reviewerID, asin, overall, reviewText, summary, unixReviewTime), JSON lines, plain or `.gz`. A review
yields a purchase and a review.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from souk.errors import SoukError
from souk.sources.contract import Dataset, Row, chunks, fingerprint, require_file, row_id, unreadable
from souk.sources.lines import json_rows, require_columns, sample_columns, text_lines

FIRST_ORDINAL = datetime(2000, 1, 1, tzinfo=UTC)
DOLLARS = re.compile(r"\$\s*([\d,]+(?:\.\d{1,2})?)")


def open_amazon(path: Path) -> Dataset:
    """Open a folder of either shape, named after the folder.

    Raises:
        SoukError: The folder holds neither shape, or a file is empty or lacks a column.
    """
    path = path.resolve()
    items, sequences = path / "items.jsonl", path / "sequences.txt"
    if items.is_file() or sequences.is_file():
        return open_sequences(items, sequences)
    products, reviews = _find(path, "products*", "meta*"), _find(path, "reviews*")
    if products is None or reviews is None:
        raise SoukError(
            f"{path} holds neither items.jsonl and sequences.txt nor products*/meta* and reviews* files",
            "Correct --path.",
        )
    require_columns(products, sample_columns(products, json_rows(products)), {"asin", "title"})
    require_columns(
        reviews, sample_columns(reviews, json_rows(reviews)), {"reviewerID", "asin", "overall", "unixReviewTime"}
    )
    return AmazonReviews(
        shop=path.name,
        source="amazon",
        is_generated=False,
        has_clock=True,
        fingerprint=fingerprint(["amazon", "reviews"], [products, reviews]),
        products_file=products,
        reviews_file=reviews,
    )


def open_sequences(items: Path, sequences: Path) -> AmazonSequences:
    """Open the two files of the sequences shape, wherever they lie; the shop is named after the folder of the items.

    Raises:
        SoukError: A file is missing or empty, or lacks a column.
    """
    items, sequences = require_file(items.resolve()), require_file(sequences.resolve())
    require_columns(items, sample_columns(items, json_rows(items)), {"item_id", "title"})
    if not any(isinstance(line, str) and len(line.split()) > 1 for line in text_lines(sequences)):
        raise SoukError(f"{sequences} has no line of the form 'user item item …'", "Correct the file.")
    return AmazonSequences(
        shop=items.parent.name,
        source="amazon",
        is_generated=False,
        has_clock=False,
        fingerprint=fingerprint(["amazon", "sequences"], [items, sequences]),
        items_file=items,
        sequences_file=sequences,
    )


def _find(folder: Path, *patterns: str) -> Path | None:
    names = [f"{pattern}{ending}" for pattern in patterns for ending in (".json", ".jsonl", ".json.gz", ".jsonl.gz")]
    found = sorted(path for name in names for path in folder.glob(name))
    if len(found) > 1:
        raise SoukError(f"{folder} holds both {found[0].name} and {found[1].name}", "Leave the one to read.")
    return require_file(found[0]) if found else None


@dataclass(frozen=True)
class AmazonSequences(Dataset):
    """`items.jsonl` and `sequences.txt`."""

    items_file: Path
    sequences_file: Path

    def products(self) -> Iterator[list[Row]]:
        """Yield the catalogue."""
        return chunks(map(_item, json_rows(self.items_file)))

    def events(self) -> Iterator[list[Row]]:
        """Yield each position of each sequence as a purchase."""
        return chunks(self._events())

    def _events(self) -> Iterator[Row]:
        known: dict[str, int] = {}
        for line in text_lines(self.sequences_file):
            if isinstance(line, dict):
                yield line
                continue
            user, *items = line.split()
            if not items:
                yield unreadable("empty_sequence", line)
            # A shopper's second line goes on where the first ended.
            first = known.get(user, 0)
            known[user] = first + len(items)
            for position, item in enumerate(items, first):
                yield {
                    "event_id": row_id(user, position),
                    "user_id": user,
                    "item_id": item,
                    "kind": "purchase",
                    "event_at": FIRST_ORDINAL + timedelta(seconds=position),
                    "session_id": None,
                    "query_id": None,
                    "quantity": None,
                }


@dataclass(frozen=True)
class AmazonReviews(Dataset):
    """Product metadata and reviews of the 2018 release."""

    products_file: Path
    reviews_file: Path

    def products(self) -> Iterator[list[Row]]:
        """Yield the catalogue."""
        return chunks(map(_metadata, json_rows(self.products_file)))

    def events(self) -> Iterator[list[Row]]:
        """Yield a purchase for each review."""
        return chunks(map(_purchase, json_rows(self.reviews_file)))

    def reviews(self) -> Iterator[list[Row]]:
        """Yield the reviews, the summary on the first line of the body."""
        return chunks(map(_review, json_rows(self.reviews_file)))


def _text(value: object) -> object:
    """Join the paragraphs that the metadata stores as a list; anything else passes for landing to judge."""
    return "\n".join(str(part) for part in value) if isinstance(value, list) else value


def _path(value: object) -> object:
    """Return the first category path: some sets nest several."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return value[0]
    return value


def _key(value: object) -> object:
    return value if value is None else str(value)


def _item(row: Row) -> Row:
    if "_unreadable" in row:
        return row
    return {
        "item_id": _key(row.get("item_id")),
        "title": row.get("title"),
        "description": _text(row.get("description") or ""),
        "brand": row.get("brand") or None,
        "categories": _path(row.get("categories") or []),
        "price": None,
        "currency": None,
        "attributes": {"asin": row["asin"]} if row.get("asin") else {},
        "listed_at": None,
    }


def _metadata(row: Row) -> Row:
    if "_unreadable" in row:
        return row
    # Where a product has a range of prices or none, the field holds a range, nothing or a piece of the page's markup.
    price = DOLLARS.fullmatch(str(row.get("price") or "").strip())
    details = row.get("details")
    attributes: dict[str, object] = {
        " ".join(name.split()).rstrip(": "): " ".join(str(value).split())
        for name, value in (details.items() if isinstance(details, dict) else ())
    }
    if row.get("feature"):
        attributes["feature"] = row["feature"]
    return {
        "item_id": _key(row.get("asin")),
        "title": row.get("title"),
        "description": _text(row.get("description") or ""),
        "brand": row.get("brand") or None,
        "categories": _path(row.get("category") or []),
        "price": float(price[1].replace(",", "")) if price else None,
        "currency": "USD" if price else None,
        "attributes": attributes,
        "listed_at": None,
    }


def _reviewed_at(row: Row) -> object:
    """Return the time of a review; what is not a Unix time passes for landing to reject."""
    value = row.get("unixReviewTime")
    try:
        return datetime.fromtimestamp(value, UTC) if isinstance(value, int) else value
    except (OverflowError, OSError, ValueError):
        return value


def _review_key(row: Row) -> str:
    return row_id(row.get("reviewerID"), row.get("asin"), row.get("unixReviewTime"))


def _purchase(row: Row) -> Row:
    if "_unreadable" in row:
        return row
    return {
        "event_id": _review_key(row),
        "user_id": row.get("reviewerID"),
        "item_id": row.get("asin"),
        "kind": "purchase",
        "event_at": _reviewed_at(row),
        "session_id": None,
        "query_id": None,
        "quantity": 1,
    }


def _review(row: Row) -> Row:
    if "_unreadable" in row:
        return row
    return {
        "review_id": _review_key(row),
        "user_id": row.get("reviewerID"),
        "item_id": row.get("asin"),
        "rating": row.get("overall"),
        "body": "\n".join(str(part) for part in (row.get("summary"), row.get("reviewText")) if part),
        "reviewed_at": _reviewed_at(row),
    }
