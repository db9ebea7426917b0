"""Where data comes from: one small contract, and a registry of the sources that keep it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from souk.errors import SoukError
from souk.sources.amazon import open_amazon
from souk.sources.complete_journey import open_complete_journey
from souk.sources.contract import CHUNK_ROWS, Dataset, Row
from souk.sources.demo_shop import open_demo_shop
from souk.sources.files import open_files

__all__ = ["CHUNK_ROWS", "SOURCES", "Dataset", "Row", "open_dataset"]

FROM_PATH: dict[str, Callable[[Path], Dataset]] = {"amazon": open_amazon, "files": open_files}
SOURCES = ("demo-shop", "complete-journey", *FROM_PATH)
# It names folders, too.
SHOP_NAME = re.compile(r"\w[\w .-]{0,99}")


def open_dataset(source: str, path: Path | None, scale: float, seed: int, home: Path) -> Dataset:
    """Open a source and check it, before any row is read.

    Args:
        source: One of `SOURCES`.
        path: File or folder of the data; the demo shop and Complete Journey need none.
        scale: Size of the demo shop; 1 is about 40,000 events.
        seed: Seed of the demo shop.
        home: Folder of generated files; the demo shop leaves its ground truth in `truth/` there, out of the data.

    Raises:
        SoukError: The source is unknown, the data is missing, empty or has the wrong columns, or its shop's name names
            no folder.
    """
    if source == "demo-shop":
        shop = open_demo_shop(scale, seed)
        shop.write_truth(home)
        return shop
    if source == "complete-journey":
        return open_complete_journey()
    if source not in FROM_PATH:
        raise SoukError(f"There is no source {source!r}", f"Choose one of {', '.join(SOURCES)}.")
    if path is None:
        raise SoukError(f"The source {source} needs a path", "Pass --path with the folder of the data.")
    if not path.exists():
        raise SoukError(f"{path} does not exist", "Correct --path.")
    dataset = FROM_PATH[source](path)
    if not SHOP_NAME.fullmatch(dataset.shop):
        raise SoukError(
            f"{dataset.shop!r} cannot name a shop: letters, digits, spaces, '.', '-' and '_' can",
            "Rename the folder, or give the mapping of `files` a key 'shop'.",
        )
    return dataset
