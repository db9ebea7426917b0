"""What a row must be to land: one check per entity, each giving a row of `raw.*` or a reason code."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from ml.text import detect_language, sentiment
from souk.privacy import Keys
from souk.sources.contract import Row

KINDS = frozenset({"view", "click", "cart", "purchase", "dislike", "return"})
MAX_ID = 200
MAX_TEXT = 1_000_000
CLOCK_SKEW = timedelta(minutes=5)
PERSONAL = frozenset({"contact", "user_id", "name", "email", "phone", "address"})
# What could not be read: of a shopper's row nobody knows where the personal columns are.
UNREAD = "_raw"

COLUMNS: dict[str, tuple[str, ...]] = {
    "product": (
        "item_id", "title", "description", "brand", "categories", "price", "currency", "attributes", "listed_at",
    ),
    "event": ("event_id", "user_key", "item_id", "kind", "event_at", "session_id", "query_id", "quantity"),
    "query": ("query_id", "user_key", "session_id", "query_text", "lang", "searched_at", "shown_item_ids"),
    "review": ("review_id", "user_key", "item_id", "rating", "body", "lang", "sentiment", "reviewed_at"),
}  # fmt: skip
KEYS = {entity: columns[0] for entity, columns in COLUMNS.items()}


class RejectedError(Exception):
    """A row that does not land; the message is its reason code."""


class Contract:
    """The checks of one landing.

    Args:
        keys: Pseudonyms of users.
        now: When the landing started; later times are in the future.
    """

    def __init__(self, keys: Keys, now: datetime) -> None:
        self._keys = keys
        self._latest = now + CLOCK_SKEW
        self._checks: dict[str, Callable[[Row], dict[str, Any]]] = {
            "product": self._product,
            "event": self._event,
            "query": self._query,
            "review": self._review,
        }

    def check(self, entity: str, row: Row) -> dict[str, Any]:
        """Return the columns of a row as they will be stored.

        Raises:
            RejectedError: The row breaks the contract.
        """
        if "_unreadable" in row:
            raise RejectedError(str(row["_unreadable"]))
        # Data frames write NaN where there is nothing.
        return self._checks[entity]({name: None if _is_nan(value) else value for name, value in row.items()})

    def _product(self, row: Row) -> dict[str, Any]:
        return {
            "item_id": _identifier(row, "item_id"),
            "title": _text(row, "title", required=True),
            "description": _text(row, "description"),
            "brand": _text(row, "brand") or None,
            "categories": _list(row, "categories"),
            "price": _price(row),
            "currency": _text(row, "currency") or None,
            "attributes": _attributes(row),
            "listed_at": self._time(row, "listed_at", required=False),
        }

    def _event(self, row: Row) -> dict[str, Any]:
        if row.get("kind") not in KINDS:
            raise RejectedError("unknown_kind")
        return {
            "event_id": _identifier(row, "event_id"),
            "user_key": self._keys.user_key(_identifier(row, "user_id")),
            "item_id": _identifier(row, "item_id"),
            "kind": row["kind"],
            "event_at": self._time(row, "event_at"),
            "session_id": _text(row, "session_id") or None,
            "query_id": _text(row, "query_id") or None,
            "quantity": _quantity(row),
        }

    def _query(self, row: Row) -> dict[str, Any]:
        text = _text(row, "query_text", required=True)
        user = row.get("user_id")
        return {
            "query_id": _identifier(row, "query_id"),
            "user_key": self._keys.user_key(_identifier(row, "user_id")) if user else None,
            "session_id": _text(row, "session_id") or None,
            "query_text": text,
            "lang": detect_language(text),
            "searched_at": self._time(row, "searched_at"),
            "shown_item_ids": _list(row, "shown_item_ids"),
        }

    def _review(self, row: Row) -> dict[str, Any]:
        body = _text(row, "body")
        lang = detect_language(body)
        return {
            "review_id": _identifier(row, "review_id"),
            "user_key": self._keys.user_key(_identifier(row, "user_id")),
            "item_id": _identifier(row, "item_id"),
            "rating": _rating(row),
            "body": body,
            "lang": lang,
            "sentiment": sentiment(body, lang) if body else 0.0,
            "reviewed_at": self._time(row, "reviewed_at"),
        }

    def _time(self, row: Row, name: str, *, required: bool = True) -> datetime | None:
        value = row.get(name)
        if value is None or value == "":
            if required:
                raise RejectedError(f"missing_{name}")
            return None
        if not isinstance(value, datetime):
            raise RejectedError(f"bad_{name}")
        moment = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        if moment > self._latest:
            raise RejectedError("future_timestamp")
        return moment


def row_hash(row: object) -> str:
    """Return a hash of a row's content."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, ensure_ascii=True, default=str).encode()).hexdigest()


def redacted(entity: str, row: Row) -> str:
    """Return a row as JSON without personal columns and without what Postgres cannot store."""
    hidden = PERSONAL if entity == "product" else PERSONAL | {UNREAD}
    kept = {name: _finite(value) for name, value in row.items() if name not in hidden}
    # ASCII escapes keep lone surrogates apart; jsonb refuses both these and NUL.
    text = json.dumps(kept, ensure_ascii=False, default=str).replace("\\u0000", "\ufffd")
    return text.encode("utf-8", "replace").decode()


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value) or isinstance(value, Decimal) and value.is_nan()


def _finite(value: object) -> object:
    """Return a value in which numbers that JSON does not have are null."""
    if isinstance(value, dict):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _identifier(row: Row, name: str) -> str:
    value = _text(row, name)
    if not value:
        raise RejectedError(f"missing_{name}")
    if len(value) > MAX_ID:
        raise RejectedError(f"bad_{name}")
    return value


def _text(row: Row, name: str, *, required: bool = False) -> str:
    value = row.get(name)
    text = "" if value is None else str(value).strip()
    if "\x00" in text:
        raise RejectedError("nul_byte")
    if len(text) > MAX_TEXT:
        raise RejectedError("text_too_long")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RejectedError("bad_utf8") from None
    if required and not text:
        raise RejectedError(f"missing_{name}")
    return text


def _list(row: Row, name: str) -> list[str]:
    value = row.get(name)
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise RejectedError(f"bad_{name}")
    parts = [_text({name: part}, name) for part in value if not _is_nan(part)]
    return [part for part in parts if part]


def _attributes(row: Row) -> str:
    value = row.get("attributes") or {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RejectedError("bad_attributes") from None
    if not isinstance(value, dict):
        raise RejectedError("bad_attributes")
    text = json.dumps(_finite(value), ensure_ascii=False, default=str)
    if "\\u0000" in text:
        raise RejectedError("nul_byte")
    return _text({"attributes": text}, "attributes")


def _quantity(row: Row) -> int | None:
    value = row.get("quantity")
    if value is None or value == "":
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise RejectedError("bad_quantity") from None
    # A data frame with gaps writes 1.0 for 1.
    if not number.is_finite() or number != number.to_integral_value() or abs(number) >= 2**31:
        raise RejectedError("bad_quantity")
    return int(number)


def _price(row: Row) -> Decimal | None:
    value = row.get("price")
    if value is None or value == "":
        return None
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        raise RejectedError("bad_price") from None
    if not price.is_finite() or price < 0 or price >= Decimal(10) ** 10:
        raise RejectedError("bad_price")
    return price.quantize(Decimal("0.01"))


def _rating(row: Row) -> float | None:
    value = row.get("rating")
    if value is None or value == "":
        return None
    try:
        rating = float(str(value))
    except ValueError:
        raise RejectedError("bad_rating") from None
    if not 1 <= rating <= 5:
        raise RejectedError("bad_rating")
    return rating
