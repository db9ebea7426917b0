"""What the rules of a gate need to see of Parquet files: one row per vector, product or list, never its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import pandas as pd

ROWS_PER_BLOCK = 4096


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """Return some columns of a file."""
    return pq.read_table(path, columns=columns).to_pandas()


def vectors(files: list[Path], column: str, known: Path) -> pd.DataFrame:
    """Return item_id, known_item_id, dimension and norm of every vector.

    Args:
        files: Where the vectors are.
        column: Which they are.
        known: A file of products; known_item_id is null where it does not name the item.

    Returns:
        One row per vector; its norm is null where it is not finite.
    """
    import pandas as pd

    frames = [pd.DataFrame({"item_id": [], "dimension": [], "norm": []})]
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(ROWS_PER_BLOCK, columns=["item_id", column]):
            # Lists of their own lengths: a vector that is cut short must not take numbers of its neighbour.
            dimensions = pc.list_value_length(batch.column(column)).fill_null(0).to_numpy(zero_copy_only=False)
            values = batch.column(column).flatten().to_numpy(zero_copy_only=False).astype(np.float64)
            owners = np.repeat(np.arange(len(dimensions)), dimensions)
            norms = np.sqrt(np.bincount(owners, values**2, minlength=len(dimensions)))
            ids = batch.column("item_id").to_pandas()
            frames.append(pd.DataFrame({"item_id": ids, "dimension": dimensions, "norm": norms}))
    frame = pd.concat(frames, ignore_index=True)
    frame["norm"] = frame["norm"].where(np.isfinite(frame["norm"]))
    frame["known_item_id"] = frame["item_id"].where(frame["item_id"].isin(read(known, ["item_id"])["item_id"]))
    return frame


def items(release: Path, known: Path) -> pd.DataFrame:
    """Return what `vectors` does for the items of a release, and the number of their words."""
    frame = vectors([release / "item.parquet"], "text_vector", known)
    words = pq.read_table(release / "item.parquet", columns=["lexical_values"]).column(0)
    frame["words"] = pc.list_value_length(words).fill_null(0).to_numpy()
    return frame


def texts(settled: Path) -> pd.DataFrame:
    """Return what a checker that knows nothing of the generator finds in the texts of a release.

    Returns:
        One row per text: precision, coverage, unsupported, is_refused (for these or any other reason of `verify`),
        is_without_original, text (null where blank).
    """
    import pandas as pd

    from ml.refiner.verdict import verify
    from spark_jobs.refine_descriptions import from_json

    rows = []
    for row in pq.read_table(settled / "texts.parquet").to_pylist():
        product = from_json(row["product"])
        reason, found = verify(row["text"] or "", product)
        rows.append(
            {
                "item_id": row["item_id"],
                "text": (row["text"] or "").strip() or None,
                "precision": found.precision,
                "coverage": found.coverage,
                "unsupported": len(found.unsupported),
                "is_refused": bool(reason),
                "is_without_original": row["original"] is None or row["original"] != product.description,
            }
        )
    return pd.DataFrame(rows)


def lists(release: Path, table: str, numbers: str, values: str, owner: str | None = None) -> pd.DataFrame:
    """Return what is wrong with lists of products that have a value each.

    Args:
        release: The files of a release.
        table: Which of them.
        numbers: Column of the numbers of products.
        values: Column of their values.
        owner: Column of the product that the list is about, and must not name.

    Returns:
        One row per list: is_unknown, is_repeated, is_loop, and the lowest and highest value; a value that is not finite
        counts as infinite, an empty list has none.

    Raises:
        ValueError: The columns of a list differ in length.
    """
    import pandas as pd

    n_items = pq.ParquetFile(release / "item.parquet").metadata.num_rows
    columns = [numbers, values, *([owner] if owner else [])]
    frames = []
    for batch in pq.ParquetFile(release / f"{table}.parquet").iter_batches(ROWS_PER_BLOCK, columns=columns):
        length = pc.list_value_length(batch.column(numbers)).fill_null(0).to_numpy(zero_copy_only=False)
        if not np.array_equal(length, pc.list_value_length(batch.column(values)).fill_null(0).to_numpy()):
            raise ValueError(f"a list of {table} does not have a value for each item")
        item = batch.column(numbers).flatten().to_numpy()
        value = batch.column(values).flatten().to_numpy()
        row = np.repeat(np.arange(len(length)), length)
        cells = pd.DataFrame(
            {
                "is_unknown": (item < 0) | (item >= n_items),
                "is_repeated": pd.DataFrame({"row": row, "item": item}).duplicated(),
                "is_loop": item == np.repeat(batch.column(owner).to_numpy(), length) if owner else False,
                "value": np.where(np.isfinite(value), value, np.inf),
            }
        ).groupby(row)
        flags = cells[["is_unknown", "is_repeated", "is_loop"]].any().reindex(range(len(length)), fill_value=False)
        frames.append(flags.assign(lowest=cells["value"].min(), highest=cells["value"].max()))
    columns = ["is_unknown", "is_repeated", "is_loop", "lowest", "highest"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
