"""The proof that the served thing is the measured thing: a measured model, published, asked by SQL."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np

from ml.encoder import load_encoder
from ml.evaluation.protocol import leave_one_out
from ml.recommender import Catalogue, Recommender, score
from ml.recommender.fusion import recent
from ml.search import Document, build_index
from ml.text import detect_language, key_terms
from souk.artefacts import Shopper, write_release
from souk.postgres import connect
from souk.settings import Settings
from souk.shoppers import Connection
from souk.trial import publish_trial

DATABASE = "souk_evaluation"
# Vectors are halves: a component of the taste may be rounded to its other neighbour.
SAME_SCORE = 2e-3
SAME_NDCG = 5e-4
TOP = 10

Fields = tuple[str, str, list[str], str]


def through_sql(
    settings: Settings,
    shop: str,
    products: Sequence[Fields],
    catalogue: Catalogue,
    model: Recommender,
    histories: Sequence[Sequence[int]],
    sample: int,
) -> dict[str, float | int]:
    """Publish the measured model in a database of its own, and compare `api.recommend` with the batch scorer.

    A shopper's history is everything before the test.

    Args:
        settings: The server, the encoder and the lake.
        shop: Name of the data.
        products: Title, brand, categories and description of each product of the catalogue.
        catalogue: The products.
        model: What was measured: `ml.evaluate.Evaluation.served`.
        histories: Items of all shoppers in time order.
        sample: Number of shoppers that are asked for, at most.

    Returns:
        users; same_lists: how many lists are those of the batch scorer; missed: how many of its products are not in the
        lists of SQL, for the vector index may miss some; shifted: how many lists have another zero, for it missed the
        likeliest product of all, that the sequence term is measured against; largest_difference of scores, apart from
        that; ndcg@10 of the test items from the batch scorer, through SQL, and with the default diversity and
        exploration; agrees: whether the scores are the same, and the NDCG within .0005.
    """
    split = leave_one_out(histories)
    pasts = split.test_histories
    chosen = np.sort(np.random.default_rng(0).choice(len(pasts), min(sample, len(pasts)), replace=False)).tolist()
    users = {place: f"u1_{hashlib.sha256(str(place).encode()).hexdigest()[:32]}" for place in chosen}
    shoppers = {
        user: Shopper(recent(pasts[place]), list(dict.fromkeys(pasts[place])), [], None, None, {})
        for place, user in users.items()
    }
    dsn = _publish(settings, shop, products, catalogue, model, shoppers)
    gains = {"batch": 0.0, "sql": 0.0, "defaults": 0.0}
    worst, missed, same, shifted = 0.0, 0, 0, 0
    number = {item: place for place, item in enumerate(catalogue.item_ids)}
    with closing(connect(dsn)) as connection:
        for place, user in users.items():
            scores = score(model, pasts[place])
            best = np.argsort(-scores, kind="stable")[:TOP].tolist()
            listed = _list(connection, user, number, "diversity => 0, exploration => 0")
            gains["batch"] += _gain(best, split.test[place])
            gains["sql"] += _gain(list(listed), split.test[place])
            gains["defaults"] += _gain(list(_list(connection, user, number)), split.test[place])
            differences = np.array([value - scores[item] for item, value in listed.items()])
            zero = float(np.median(differences))
            shifted += abs(zero) > SAME_SCORE
            worst = max(worst, float(np.abs(differences - (zero if abs(zero) > SAME_SCORE else 0)).max()))
            lost = int((scores[best] > scores[list(listed)].min() + SAME_SCORE).sum()) - sum(
                int(scores[item] > scores[list(listed)].min() + SAME_SCORE) for item in listed
            )
            missed += lost
            same += not lost
    ndcg = {f"ndcg@10_{name}": gain / len(users) for name, gain in gains.items()}
    return {
        "users": len(users),
        "same_lists": same,
        "missed": missed,
        "shifted": shifted,
        "largest_difference": worst,
        **ndcg,
        "agrees": worst <= SAME_SCORE
        and shifted <= missed
        and abs(ndcg["ndcg@10_sql"] - ndcg["ndcg@10_batch"]) <= SAME_NDCG,
    }


def _publish(
    settings: Settings,
    shop: str,
    products: Sequence[Fields],
    catalogue: Catalogue,
    model: Recommender,
    shoppers: dict[str, Shopper],
) -> str:
    """Publish a model and its shoppers, and return the DSN of the database."""
    items: list[dict[str, Any]] = [
        {
            "title": title,
            "description": description,
            "brand": brand or None,
            "categories": categories,
            "price": None,
            "attributes": {},
            "lang": detect_language(f"{title} {description}"),
            "key_terms": key_terms(title),
        }
        for title, brand, categories, description in products
    ]
    documents = [Document(title, text, brand, categories) for title, brand, categories, text in products]
    folder = settings.lake / "evaluation" / "release"
    encoder = load_encoder(settings.encoder, settings.models, settings.encoder_precision)
    index = build_index(documents, catalogue.vectors, encoder.encode_queries)
    write_release(folder, shop, items, catalogue, model, index, shoppers)
    return publish_trial(settings, DATABASE, shop, folder, sum(len(shopper.seen) for shopper in shoppers.values()))


def _list(connection: Connection, user: str, number: dict[str, int], options: str = "") -> dict[int, float]:
    """Return a shopper's list, best first: product -> score."""
    rows = connection.execute(
        f"select item_id, score from api.recommend(%s, %s{', ' if options else ''}{options})", [user, TOP]
    ).fetchall()
    return {number[item]: float(value) for item, value in rows}


def _gain(best: Sequence[int], target: int) -> float:
    """Return the NDCG@10 of a list with one relevant product."""
    return 1 / math.log2(best.index(target) + 2) if target in best else 0.0
