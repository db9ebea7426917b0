"""`souk precisions`: what the precision of the encoder gains in speed and loses in search, next to fp32."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.encoder import PRECISIONS, load_encoder
from ml.evaluation.protocol import intervals
from ml.recommender.train import centre
from ml.search import Judged
from ml.search.measure import METRICS, measures, rank
from ml.text import passage
from souk.errors import SoukError
from souk.search_collections import Collection
from souk.settings import Settings

log = logging.getLogger(__name__)
# So many queries, and the products that are judged for them: fp32 takes minutes for more.
MOST_QUERIES = 2_000
# Of the nDCG@10 of fp32: a precision that loses more is not allowed.
MOST_LOST = 0.005
NDCG = METRICS.index("ndcg@10")

Floats = NDArray[np.float64]


def measure_precisions(settings: Settings, collection: Collection, target: Path | None = None) -> str:
    """Search with the transformer alone, in each precision, and return the figures as a table.

    Products and queries are encoded in the same precision and ranked by the cosine of the centred vectors, as released
    vectors are. The queries are those that search would learn from: those of the test choose nothing.

    Args:
        settings: The encoder and its cache.
        collection: What to search and what to ask.
        target: Where the figures go as JSON; None for nowhere.

    Raises:
        SoukError: There is no query with a judged product; or the encoder cannot be loaded in a precision.
    """
    if not collection.taught:
        raise SoukError(f"{collection.name} has no query to measure with", "Pass --judgements, or another source.")
    queries, places = _sample(collection.taught)
    chosen = [collection.documents[place] for place in places]
    texts = [passage(doc.title, doc.brand, doc.categories, doc.description) for doc in chosen]
    quality: dict[str, Floats] = {}
    rows: dict[str, dict[str, Any]] = {}
    for precision in PRECISIONS:
        log.info("%s: encoding %s products", precision, f"{len(texts):,}")
        quality[precision], rate = _measure(settings, queries, texts, precision)
        lost = quality["fp32"] - quality[precision]
        mean = float(np.nanmean(quality["fp32"]))
        low, high = intervals(lost[:, None])
        loss = float(np.nanmean(lost)) / mean
        rows[precision] = {
            "texts_per_core_second": round(rate, 2),
            "ndcg@10": float(np.nanmean(quality[precision])),
            "loss": loss,
            "loss_low": float(low[0]) / mean,
            "loss_high": float(high[0]) / mean,
            "is_allowed": loss <= MOST_LOST,
        }
    fastest = max((name for name in PRECISIONS if rows[name]["is_allowed"]), key=lambda name: _rate(rows[name]))
    report = {
        "data": collection.name,
        "products": len(texts),
        "queries": len(queries),
        "encoder": settings.encoder,
        "max_tokens": settings.encoder_max_tokens,
        "most_lost": MOST_LOST,
        "precisions": rows,
        "fastest_allowed": fastest,
    }
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return _table(report)


def _measure(settings: Settings, asked: Sequence[Judged], texts: list[str], precision: str) -> tuple[Floats, float]:
    """Return the nDCG@10 of each query, and the products that were encoded in a second of one core."""
    try:
        encoder = load_encoder(settings.encoder, settings.models, precision, 1)
    except ValueError as error:
        raise SoukError(str(error), "Correct SOUK_ENCODER.") from error
    encoder.encode_passages(texts[:20], settings.encoder_max_tokens)
    start = time.process_time()
    vectors = centre(encoder.encode_passages(texts, settings.encoder_max_tokens))
    rate = len(texts) / (time.process_time() - start)
    queries = centre(encoder.encode_queries([query.query for query in asked]))
    rankings = (rank(vectors @ vector, query) for vector, query in zip(queries, asked, strict=True))
    return np.array([measures(*pair)[NDCG] for pair in zip(asked, rankings, strict=True)]), rate


def _sample(judged: Sequence[Judged]) -> tuple[list[Judged], list[int]]:
    """Return some queries, and the places of their products, to which the grades of the queries then refer."""
    chosen = sorted(judged, key=lambda query: hashlib.sha256(query.query.encode()).digest())[:MOST_QUERIES]
    places = sorted({item for query in chosen for item in query.grades})
    number = {place: rank for rank, place in enumerate(places)}
    return [Judged(one.query, {number[item]: grade for item, grade in one.grades.items()}) for one in chosen], places


def _rate(row: dict[str, Any]) -> float:
    return float(row["texts_per_core_second"])


def _table(report: dict[str, Any]) -> str:
    rows = report["precisions"]
    lines = [
        f"{report['encoder']}, {report['data']}: {report['products']:,} products, {report['queries']:,} queries",
        f"{'':6}{'texts/core-s':>14}{'× fp32':>8}{'nDCG@10':>10}{'loss, % of fp32 (95 % interval)':>36}  allowed",
    ]
    for name, row in rows.items():
        loss = f"{100 * row['loss']:.2f} ({100 * row['loss_low']:.2f} to {100 * row['loss_high']:.2f})"
        lines.append(
            f"{name:6}{row['texts_per_core_second']:14.1f}{_rate(row) / _rate(rows['fp32']):8.2f}{row['ndcg@10']:10.4f}"
            f"{loss:>36}  {'yes' if row['is_allowed'] else 'NO'}"
        )
    lines.append(
        f"at most {100 * report['most_lost']:g} % may be lost: SOUK_ENCODER_PRECISION={report['fastest_allowed']}"
    )
    return "\n".join(lines)
