"""`souk evaluate`: the ranking figures of any items.jsonl and sequences.txt, and the proof that SQL serves them."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ml.encoder import load_encoder, locate
from ml.evaluate import evaluate as measure
from ml.recommender import Catalogue, fit, score
from ml.search import postings, token_table
from ml.text import detect_language, key_terms, lexical_terms, normalise
from souk import release
from souk.artefacts import write_release
from souk.errors import SoukError
from souk.postgres import connect, connect_server, create_database
from souk.settings import Settings
from souk.sources import open_dataset
from sql.migrate import migrate

log = logging.getLogger(__name__)
DATABASE = "souk_evaluation"
TOLERANCE = 1e-6
TOP = 10


def evaluate(settings: Settings, items: Path, sequences: Path, sample: int, target: Path | None) -> str:
    """Measure ranking on a data set, and compare SQL with the batch scorer.

    Args:
        settings: The server, the encoder and the cache of vectors.
        items: items.jsonl.
        sequences: sequences.txt of the same folder.
        sample: Users that are scored through the published SQL function, too.
        target: Where the figures go as JSON; None for nowhere.

    Returns:
        The figures as a table.

    Raises:
        SoukError: A file is missing, or SQL and the batch scorer disagree.
    """
    for file in (items, sequences):
        if not file.is_file():
            raise SoukError(f"{file} does not exist", "Correct --items or --sequences.")
    if items.parent.resolve() != sequences.parent.resolve():
        raise SoukError("--items and --sequences lie in different folders", "Put them side by side.")
    dataset = open_dataset("amazon", items.parent, 1.0, 0, settings.home)
    products = [row for chunk in dataset.products() for row in chunk]
    events = [row for chunk in dataset.events() for row in chunk]
    catalogue = _catalogue(settings, products)
    number = {item: place for place, item in enumerate(catalogue.item_ids)}
    histories: dict[str, list[int]] = {}
    for event in events:
        histories.setdefault(str(event["user_id"]), []).append(number[str(event["item_id"])])
    report: dict[str, Any] = measure(catalogue, list(histories.values()), dataset.shop)
    report["through_sql"] = _through_sql(settings, products, catalogue, histories, sample)
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, indent=2))
    return _table(report)


def _catalogue(settings: Settings, products: list[dict[str, object]]) -> Catalogue:
    """Return the items with their vectors, which are kept for the next evaluation of the same texts."""
    texts = [_text(*_fields(product)) for product in products]
    _, encoder_id = locate(settings.encoder, settings.models)
    name = hashlib.sha256(json.dumps([encoder_id, settings.encoder_max_tokens, texts]).encode()).hexdigest()[:20]
    cache = settings.lake / "evaluation" / f"{name}.npy"
    if cache.exists():
        vectors = np.load(cache)
    else:
        log.info("encoding %s texts", f"{len(texts):,}")
        vectors = load_encoder(settings.encoder, settings.models).encode_passages(texts, settings.encoder_max_tokens)
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, vectors)
    return Catalogue([str(row["item_id"]) for row in products], [lexical_terms(text) for text in texts], vectors)


def _fields(product: dict[str, object]) -> tuple[str, str, list[str], str]:
    categories = product.get("categories")
    return (
        str(product.get("title") or ""),
        str(product.get("brand") or ""),
        [str(name) for name in categories] if isinstance(categories, list) else [],
        str(product.get("description") or ""),
    )


def _text(title: str, brand: str, categories: list[str], description: str) -> str:
    """Return what is encoded, in the order of the encode stage."""
    return normalise(". ".join(part for part in (title, brand, " ".join(categories), description) if part))


def _through_sql(
    settings: Settings,
    products: list[dict[str, object]],
    catalogue: Catalogue,
    histories: dict[str, list[int]],
    sample: int,
) -> dict[str, float | int]:
    """Publish the model in a database of its own, and return how far `api.recommend` is from the batch scorer."""
    model = fit(catalogue, list(histories.values()))
    encoder = load_encoder(settings.encoder, settings.models)
    users = {f"u1_{hashlib.sha256(user.encode()).hexdigest()[:32]}": taken for user, taken in histories.items()}
    items = [
        {
            "title": title,
            "description": description,
            "brand": brand or None,
            "categories": categories,
            "price": None,
            "lang": detect_language(f"{title} {description}"),
            "key_terms": key_terms(title),
        }
        for title, brand, categories, description in map(_fields, products)
    ]
    folder = settings.lake / "evaluation" / "release"
    write_release(
        folder,
        items,
        catalogue,
        model,
        postings(catalogue.terms),
        token_table(catalogue.terms, catalogue.vectors, encoder.encode_queries, seed=0),
        users,
        {user: [catalogue.item_ids[i] for i in dict.fromkeys(taken)] for user, taken in users.items()},
        {},
    )
    dsn = _fresh_database(settings)
    entry = release.Release("evaluation", "evaluation", "evaluation", None, settings.encoder, False, False)
    release.load(dsn, entry, folder, sum(map(len, histories.values())))
    release.mark_audited(dsn, entry.release_id)
    release.publish(dsn, entry.release_id)
    chosen = np.random.default_rng(0).choice(sorted(users), min(sample, len(users)), replace=False)
    worst, same = 0.0, 0
    with closing(connect(dsn)) as connection:
        for user in chosen:
            rows = connection.execute("select item_id, score from api.recommend(%s, %s)", [str(user), TOP]).fetchall()
            scores = score(model, users[str(user)])
            best = np.sort(scores)[::-1][: len(rows)]
            served = np.array([float(str(row[1])) for row in rows])
            worst = max(worst, float(np.abs(served - best).max()))
            own = {item: value for item, value in zip(catalogue.item_ids, scores, strict=True)}
            same += all(abs(own[str(item)] - float(str(value))) <= TOLERANCE for item, value in rows)
    if worst > TOLERANCE or same < len(chosen):
        raise SoukError(
            f"SQL and the batch scorer differ by {worst:.2g}; {len(chosen) - same} of {len(chosen)} users disagree",
            "Compare sql/internal/020_scoring.sql with ml/recommender/fusion.py.",
        )
    return {"users": len(chosen), "largest_difference": worst}


def _fresh_database(settings: Settings) -> str:
    server = connect_server(settings)
    with closing(connect(server, autocommit=True)) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(DATABASE)))
    create_database(server, DATABASE)
    dsn = make_conninfo(server, dbname=DATABASE)
    migrate(dsn)
    return dsn


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
        f"through api.recommend: {agreement['users']:,} users, largest difference {agreement['largest_difference']:.1e}"
    )
    return "\n".join(lines)
