"""`souk evaluate`: the ranking figures of any items.jsonl and sequences.txt, and the proof that SQL serves them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ml.encoder import load_encoder
from ml.evaluate import evaluate as measure
from ml.recommender import Catalogue
from ml.text import lexical_terms, passage
from souk.errors import SoukError
from souk.settings import Settings
from souk.sources import Dataset
from souk.sources.amazon import open_sequences
from souk.through_sql import through_sql
from souk.trial import encode_texts

log = logging.getLogger(__name__)


def evaluate(settings: Settings, items: Path, sequences: Path, sample: int, target: Path | None) -> str:
    """Measure ranking on a data set, and compare SQL with the batch scorer.

    Args:
        settings: The server, the encoder and the cache of vectors.
        items: items.jsonl.
        sequences: sequences.txt, in the same order of time.
        sample: Users that are scored through the published SQL function, too.
        target: Where the figures go as JSON; None for nowhere.

    Returns:
        The figures as a table.

    Raises:
        SoukError: A file is missing or has nothing to measure, or SQL and the batch scorer disagree.
    """
    dataset = open_sequences(items, sequences)
    products = list(
        {row["item_id"]: row for chunk in dataset.products() for row in chunk if row.get("item_id")}.values()
    )
    catalogue = _catalogue(settings, products)
    histories, ignored = _histories(dataset, catalogue.item_ids)
    if ignored:
        log.warning("ignored %s events with an unknown item or an unreadable line", f"{ignored:,}")
    try:
        report: dict[str, Any] = measure(catalogue, list(histories.values()), dataset.shop)
    except ValueError as error:
        raise SoukError(f"{dataset.shop} cannot be evaluated: {error}", "Correct the data.") from None
    report["through_sql"] = through_sql(
        settings, dataset.shop, list(map(product_fields, products)), catalogue, list(histories.values()), sample
    )
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, indent=2))
    return _table(report)


def _catalogue(settings: Settings, products: list[dict[str, object]]) -> Catalogue:
    """Return the items with their vectors, which are kept for the next evaluation of the same texts."""
    texts = [passage(*product_fields(product)) for product in products]
    vectors = encode_texts(settings, load_encoder(settings.encoder, settings.models), texts)
    return Catalogue([str(row["item_id"]) for row in products], [lexical_terms(text) for text in texts], vectors)


def _histories(dataset: Dataset, item_ids: list[str]) -> tuple[dict[str, list[int]], int]:
    """Return the item indices of each user in time order, and how many events could not be used."""
    number = {item: place for place, item in enumerate(item_ids)}
    histories: dict[str, list[int]] = {}
    ignored = 0
    for event in (row for chunk in dataset.events() for row in chunk):
        place = number.get(str(event.get("item_id")))
        if place is None:
            ignored += 1
        else:
            histories.setdefault(str(event["user_id"]), []).append(place)
    return histories, ignored


def product_fields(product: dict[str, object]) -> tuple[str, str, list[str], str]:
    """Return title, brand, categories and description of a source's product, the arguments of `passage`."""
    categories = product.get("categories")
    return (
        str(product.get("title") or ""),
        str(product.get("brand") or ""),
        [str(name) for name in categories] if isinstance(categories, list) else [],
        str(product.get("description") or ""),
    )


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['data']}: {report['items']:,} items, {report['users']:,} users, {report['events']:,} events",
        f"{report['protocol']}",
        f"{'arm':12} {'val R@10':>9} {'N@10':>7} {'test R@10':>10} {'N@10':>7}  {'95 % of R@10':>18} {'train s':>8}",
    ]
    for arm, figures in report["arms"].items():
        validation, test, (low, high) = figures["validation"], figures["test"], figures["ci95"]["recall@10"]
        lines.append(
            f"{arm:12} {validation['recall@10']:9.4f} {validation['ndcg@10']:7.4f} {test['recall@10']:10.4f}"
            f" {test['ndcg@10']:7.4f}  {low:8.4f} to {high:.4f} {figures['train_seconds']:8.1f}"
        )
    agreement = report["through_sql"]
    lines.append(
        f"through api.recommend, {agreement['users']:,} test users: NDCG@10 {agreement['ndcg@10_sql']:.4f}, batch"
        f" {agreement['ndcg@10_batch']:.4f}; {agreement['same_lists']:,} lists alike, {agreement['missed']:,} products"
        f" missed, scores differ by {agreement['largest_difference']:.1e} at most; with the default diversity and"
        f" exploration NDCG@10 {agreement['ndcg@10_defaults']:.4f}"
    )
    return "\n".join(lines)
