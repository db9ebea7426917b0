"""A clustered shop as files, as a shop would export them: products and events in Parquet, and the mapping."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.clustered_shop import ClusteredShop
from souk.sources.files import MAPPING_NAME

ROWS_PER_GROUP = 100_000
EVENTS_PER_SHOPPER, CLUSTERS_PER_SHOPPER = 10, 2
FIRST_DAY, DAYS = datetime(2026, 1, 1, tzinfo=UTC), 90
KINDS = {"view": 0.8, "cart": 0.1, "purchase": 0.1}
MAPPING = """\
shop: {shop}
products:
  file: products.parquet
  columns: {{item_id: item_id, title: title, description: description, brand: brand, categories: categories,
    price: price}}
  attributes: [colour, size]
events:
  file: events.parquet
  columns: {{event_id: event_id, user_id: user_id, item_id: item_id, kind: kind, event_at: event_at}}
"""
PRODUCTS = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("brand", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("price", pa.decimal128(12, 2)),
        ("colour", pa.string()),
        ("size", pa.string()),
    ]
)


def write_export(shop: ClusteredShop, folder: Path, name: str, events: int) -> None:
    """Write what `--source files` reads.

    Args:
        shop: The products.
        folder: Where to; made if it is not there.
        name: Of the shop.
        events: How many; every ten are one shopper's, of two clusters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MAPPING_NAME).write_text(MAPPING.format(shop=name))
    with pq.ParquetWriter(folder / "products.parquet", PRODUCTS) as writer:
        rows: list[dict[str, object]] = []
        for item_id, item in zip(shop.item_ids, shop.items(), strict=True):
            attributes = item["attributes"]
            assert isinstance(attributes, dict)
            own = {"item_id": item_id, "colour": attributes["colour"], "size": str(attributes["size"])}
            rows.append({name: item.get(name) for name in PRODUCTS.names} | own)
            if len(rows) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, PRODUCTS))
                rows.clear()
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, PRODUCTS))
    _write_events(shop, folder / "events.parquet", events)


def _write_events(shop: ClusteredShop, file: Path, events: int) -> None:
    rng = np.random.default_rng(shop.seed + 4)
    item_ids = pa.array(shop.item_ids)
    members, sizes = np.concatenate(shop.members), np.array([len(members) for members in shop.members])
    first = np.cumsum(sizes) - sizes
    writer = None
    for start in range(0, events, ROWS_PER_GROUP):
        number = np.arange(start, min(start + ROWS_PER_GROUP, events))
        user = number // EVENTS_PER_SHOPPER
        # A number that looks drawn, but is the same for all events of a shopper.
        side = rng.integers(0, CLUSTERS_PER_SHOPPER, len(number))
        cluster = (user * 2_654_435_761 + side * 40_503) % len(sizes)
        place = (rng.random(len(number)) ** 2 * sizes[cluster]).astype(np.int64)
        moment = np.datetime64(FIRST_DAY.replace(tzinfo=None), "us") + rng.integers(
            0, DAYS * 86_400_000_000, len(number)
        ).astype("timedelta64[us]")
        table = pa.table(
            {
                "event_id": [f"e{one}" for one in number.tolist()],
                "user_id": [f"user {one}" for one in user.tolist()],
                "item_id": item_ids.take(pa.array(members[first[cluster] + place])),
                "kind": rng.choice(list(KINDS), len(number), p=list(KINDS.values())),
                "event_at": pa.array(moment).cast(pa.timestamp("us", "UTC")),
            }
        )
        writer = writer or pq.ParquetWriter(file, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()
