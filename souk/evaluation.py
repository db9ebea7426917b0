"""`souk evaluate`: the ranking figures of any data set, and the proof that SQL serves them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ml.encoder import load_encoder
from ml.evaluate import FIGURES, Extras
from ml.evaluate import evaluate as measure
from ml.evaluation.compare import Gains, paired
from ml.recommender import Catalogue
from ml.text import lexical_terms, passage
from souk.errors import SoukError
from souk.evaluation_plots import write_plots
from souk.evaluation_table import table
from souk.settings import Settings
from souk.sources import Dataset
from souk.through_sql import through_sql
from souk.trial import encode_texts

log = logging.getLogger(__name__)
# What a shopper does with a product that speaks for it; being shown one does not.
TAKEN = ("view", "click", "cart", "purchase")


@dataclass(frozen=True)
class Shop:
    """A data set as it is evaluated.

    Attributes:
        name: Of the shop, marked where it is generated.
        products: Title, brand, categories and description of each product.
        catalogue: The same products, encoded.
        categories: Leaf category of each, None for none.
        sequences: Items that each shopper took, in time order.
        times: When, in Unix seconds; None where only the order is known.
    """

    name: str
    products: list[tuple[str, str, list[str], str]]
    catalogue: Catalogue
    categories: list[str | None]
    sequences: list[list[int]]
    times: list[list[float]] | None


@dataclass(frozen=True)
class Outputs:
    """Where figures go besides the table; None for nowhere.

    Attributes:
        json: A file; the gains of each shopper go beside it, as .npz, for a later `against`.
        plots: A folder.
        against: The JSON of an earlier run on the same data, to compare with.
    """

    json: Path | None = None
    plots: Path | None = None
    against: Path | None = None


def evaluate(
    settings: Settings, dataset: Dataset, sample: int, outputs: Outputs | None = None, extras: Extras | None = None
) -> str:
    """Measure ranking on a data set, and compare SQL with the batch scorer.

    Args:
        settings: The server, the encoder and the cache of vectors.
        dataset: Products and events.
        sample: Shoppers that are scored through the published SQL function, too; 0 leaves it out.
        outputs: Where the figures go besides the table.
        extras: What else is measured.

    Returns:
        The figures as a table.

    Raises:
        SoukError: A file is missing or has nothing to measure, the earlier run is of other data, or SQL and the batch
            scorer disagree.
    """
    outputs = outputs or Outputs()
    earlier = _read_gains(outputs.against) if outputs.against else None
    shop = read_shop(settings, dataset)
    try:
        found = measure(
            *(shop.catalogue, shop.sequences, shop.name),
            times=shop.times,
            categories=shop.categories,
            extras=extras,
        )
    except ValueError as error:
        raise SoukError(f"{shop.name} cannot be evaluated: {error}", "Correct the data.") from None
    report: dict[str, Any] = found.report
    if earlier:
        key, gains = earlier
        if key != report["data_key"]:
            raise SoukError(f"{outputs.against} was measured on other data", "Compare runs on the same data.")
        report["against"] = {"run": str(outputs.against), "differences": _differences(found.gains, gains)}
    if sample and found.served:
        report["through_sql"] = through_sql(
            settings, dataset.shop, shop.products, shop.catalogue, found.served, shop.sequences, sample
        )
    if outputs.json:
        _write(report, found.gains, outputs.json)
    if outputs.plots:
        write_plots(report, outputs.plots)
    asked = report.get("through_sql")
    if asked and not asked["agrees"]:
        # Last of all: what was measured is not lost.
        raise SoukError(
            f"{table(report)}\nSQL and the batch scorer differ by {asked['largest_difference']:.2g}",
            "Compare sql/internal/060_scoring.sql with ml/recommender/fusion.py.",
        )
    return table(report)


def read_shop(settings: Settings, dataset: Dataset) -> Shop:
    """Read what shoppers took in time order, and the products with their vectors, which are kept for the next time.

    An event that is told twice counts once. Events with an unknown product or without a time are ignored.

    Raises:
        SoukError: There are no products.
    """
    rows = list(
        {name: row for chunk in dataset.products() for row in chunk if (name := _text(row, "item_id"))}.values()
    )
    if not rows:
        raise SoukError(f"{dataset.shop} has no products", "Correct the data.")
    products = list(map(product_fields, rows))
    texts = [passage(*fields) for fields in products]
    item_ids = [_text(row, "item_id") for row in rows]
    vectors = encode_texts(settings, load_encoder(settings.encoder, settings.models, settings.encoder_precision), texts)
    sequences, times, ignored = _histories(dataset, item_ids)
    if ignored:
        log.warning("ignored %s events with an unknown item or an unreadable line", f"{ignored:,}")
    return Shop(
        f"{dataset.shop}{' (generated data)' if dataset.is_generated else ''}",
        products,
        Catalogue(item_ids, [lexical_terms(text) for text in texts], vectors),
        [categories[-1] if categories else None for _, _, categories, _ in products],
        sequences,
        times if dataset.has_clock else None,
    )


def _histories(dataset: Dataset, item_ids: Sequence[str]) -> tuple[list[list[int]], list[list[float]], int]:
    """Return items and times of each shopper in time order, and how many events could not be used."""
    number = {item: place for place, item in enumerate(item_ids)}
    taken: dict[str, list[tuple[float, int]]] = {}
    known: set[object] = set()
    ignored = 0
    for event in (row for chunk in dataset.events() for row in chunk):
        place, at, user = number.get(_text(event, "item_id")), event.get("event_at"), _text(event, "user_id")
        if place is None or not user or not isinstance(at, datetime):
            ignored += 1
        elif event.get("kind") in TAKEN and event["event_id"] not in known:
            known.add(event["event_id"])
            taken.setdefault(user, []).append((at.timestamp(), place))
    # Of events at the same moment the source's order is the best guess.
    ordered = [sorted(events, key=lambda event: event[0]) for events in taken.values()]
    return (
        [[place for _, place in events] for events in ordered],
        [[at for at, _ in events] for events in ordered],
        ignored,
    )


def product_fields(product: dict[str, object]) -> tuple[str, str, list[str], str]:
    """Return title, brand, categories and description of a source's product, the arguments of `passage`."""
    categories = product.get("categories")
    return (
        _text(product, "title"),
        _text(product, "brand"),
        [str(name) for name in categories if name] if isinstance(categories, list) else [],
        _text(product, "description"),
    )


def _text(row: Mapping[str, object], name: str) -> str:
    """Return a field as landing reads it: stripped, and nothing where a data frame has NaN."""
    value = row.get(name)
    return "" if value is None or value != value else str(value).strip()  # noqa: PLR0124


def _write(report: dict[str, Any], gains: Gains, target: Path) -> None:
    """Write the figures, and beside them what each test shopper gained, so that another run can be compared."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2))
    # A hit's gain is one of some hundred values, and most shoppers have none: it packs to a few bytes each.
    halves = {name: values.astype(np.float32) for name, values in gains.items()}
    np.savez_compressed(target.with_suffix(".npz"), data_key=np.array(report["data_key"]), **halves)  # type: ignore[arg-type]


def _read_gains(run: Path) -> tuple[str, Gains]:
    """Return the key of the data of an earlier run, and its gains.

    Raises:
        SoukError: The run, or its file of gains, is missing or unreadable.
    """
    path = run.with_suffix(".npz")
    try:
        with np.load(path, allow_pickle=False) as stored:
            gains = {name: stored[name].astype(np.float64) for name in stored.files if name != "data_key"}
            return str(stored["data_key"]), gains
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise SoukError(f"{path} cannot be read: {error}", "Pass the --json file of an earlier run.") from None


def _differences(ours: Gains, theirs: Gains) -> dict[str, Any]:
    """Return by how much each arm that both runs have differs, with 95 % intervals."""
    found: dict[str, Any] = {}
    for name in (name for name in ours if name in theirs):
        # As the earlier ones were kept: an equal run is equal.
        mean, low, high = paired(ours[name].astype(np.float32).astype(np.float64), theirs[name])
        found[name] = {
            figure: {"difference": float(mean[at]), "ci95": [float(low[at]), float(high[at])]}
            for at, figure in enumerate(FIGURES)
        }
    return found
