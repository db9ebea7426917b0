"""From marts and vectors to the files of a release."""

from __future__ import annotations

import logging
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ml.encoder import load_encoder
from ml.recommender import Catalogue, fit
from ml.search import postings, token_table
from souk.artefacts import write_release
from souk.errors import SoukError
from souk.postgres import connect
from souk.settings import Settings

log = logging.getLogger(__name__)


def train_release(dsn: str, settings: Settings, shop: str, encoder: str, folder: Path) -> dict[str, int]:
    """Fit everything that a release of a shop serves, and write it.

    Args:
        dsn: A database with the marts of the shop.
        settings: Where vectors and models lie.
        shop: The shop.
        encoder: The model that made the vectors; it encodes the tokens of queries.
        folder: Where the files go.

    Returns:
        Rows of each table, and the number of events.

    Raises:
        SoukError: No product has a vector.
    """
    vectors = pq.read_table(sorted((settings.lake / shop / "vectors").glob("*.parquet"))).to_pylist()
    by_item = {row["item_id"]: row for row in vectors}
    with closing(connect(dsn)) as connection:
        products = connection.execute(
            "select item_id, title, description, brand, categories, price from marts.dim_items"
            " where shop = %s order by item_id",
            [shop],
        ).fetchall()
        events = connection.execute(
            "select user_key, item_id, strength > 0 from marts.fct_interactions where shop = %s"
            " order by user_key, event_at, event_id",
            [shop],
        ).fetchall()
        profiles: dict[str, object] = dict(
            connection.execute(
                "select user_key, to_jsonb(p) - 'shop' - 'user_key' from marts.dim_user_profiles as p where shop = %s",
                [shop],
            ).fetchall()
        )
    items = [
        {
            "title": title,
            "description": description,
            "brand": brand,
            "categories": categories,
            "price": price,
            "lang": by_item[item_id]["lang"],
            "key_terms": by_item[item_id]["key_terms"],
        }
        for item_id, title, description, brand, categories, price in products
        if item_id in by_item
    ]
    ids = [str(product[0]) for product in products if product[0] in by_item]
    if not ids:
        raise SoukError(f"No product of {shop} has a vector", "Look at the manifest of the encode stage.")
    terms = [by_item[item]["terms"] for item in ids]
    catalogue = Catalogue(ids, terms, np.array([by_item[item]["vector"] for item in ids], dtype=np.float32))
    sequences, seen = _histories(events, {item: number for number, item in enumerate(ids)})
    log.info("training on %s products and %s events", f"{len(ids):,}", f"{len(events):,}")
    recommender = fit(catalogue, list(sequences.values()))
    for (term, first), weight in recommender.weights.items():
        log.debug("weight of %s from %s products of history: %.3f", term, first, weight)
    model = load_encoder(encoder, settings.models)
    tokens = token_table(terms, catalogue.vectors, model.encode_queries, seed=0)
    log.info("query encoder: %s tokens", f"{len(tokens.tokens):,}")
    counts = write_release(
        folder,
        items,
        catalogue,
        recommender,
        postings(terms),
        tokens,
        sequences,
        seen,
        profiles,
    )
    return {**counts, "events": len(events)}


def _histories(
    events: list[tuple[Any, ...]], number: dict[str, int]
) -> tuple[dict[str, list[int]], dict[str, list[str]]]:
    """Return what each user took, in time order, and everything that each has dealt with."""
    sequences: dict[str, list[int]] = defaultdict(list)
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    for user, item, is_liked in events:
        if item in number:
            seen[user][item] = None
            if is_liked:
                sequences[user].append(number[item])
    return dict(sequences), {user: list(items) for user, items in seen.items()}
