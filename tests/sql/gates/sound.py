"""A sound shop: what its manifests promise, and what its files and tables are written and judged with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml.refiner import Product
from souk.gates import GateFailed, check
from spark_jobs.refine_descriptions import to_json

# A quote and a colon: both mean something in SQL text.
SHOP = "o'shop:a"
RELEASE = "shop-1"
USERS = [f"u1_{number:032x}" for number in range(3)]
ITEMS = [f"i{number}" for number in range(20)]
ROWS = {
    "landed": {"product": 20, "event": 60, "query": 1, "review": 0},
    "profiles": {"dim_items": 20, "fct_interactions": 60, "dim_user_profiles": 3, "fct_searches": 1},
    "encoded": {"vectors": 20},
    "refined": {"refined": 1, "ledger": 1, "catalogue": 20, "moved": 1},
    "trained": {"item": 20, "edge": 19, "weight": 5, "term": 2, "events": 60},
    "candidate": {
        "release": 1,
        "item": 20,
        "original": 1,
        "position_weight": 1,
        "popularity": 1,
        "edge": 19,
        "weight": 5,
        "term": 2,
        "spelling": 1,
        "category": 1,
        "item_day": 1,
        "user_profile": 3,
        "events": 60,
    },
}


def stage(gate: str, **rows: int) -> dict[str, Any]:
    return {"shop": SHOP, "run_id": "run", "release_id": RELEASE, "refine_share": 0.1, "rows": {**ROWS[gate], **rows}}


def vectors(**columns: Any) -> pa.Table:
    unit = np.zeros((len(ITEMS), 384), np.float32)
    unit[:, 0] = 1
    return pa.table({"item_id": ITEMS, "vector": pa.array(list(unit), pa.list_(pa.float32())), **columns})


PRODUCT = Product("i3", "Green tea", "Tea.", "Alpine", ("Tea",), (("weight", "500 g"),), ())
TEXT = "Green tea by Alpine. Weight: 500 g."


def refined(**columns: Any) -> dict[str, Any]:
    """A text in force that every check passes, or one with a disease."""
    row = {"item_id": "i3", "text_hash": "h", "text": TEXT, "original": "Tea.", "is_in_vector": False}
    return {**row, "product": to_json(PRODUCT), **columns}


def write_lists(path: Path, columns: dict[str, Any]) -> None:
    types = {"dst": pa.int32(), "item_nos": pa.int32(), "val": pa.float32(), "weights": pa.float32()}
    pq.write_table(
        pa.table(
            {name: pa.array(rows, pa.list_(types[name])) if name in types else rows for name, rows in columns.items()}
        ),
        path,
    )


def execute(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def red(dsn: str, lake: Path, gate: str, **rows: int) -> str:
    """Return the verdict of a gate that has to be red, as it was recorded."""
    with pytest.raises(GateFailed) as failed:
        check(dsn, lake, gate, stage(gate, **rows))
    recorded = execute(dsn, f"select is_passed, verdict from ops.gate_result where gate = '{gate}'")
    assert recorded == [(False, failed.value.cause)]
    return failed.value.cause
