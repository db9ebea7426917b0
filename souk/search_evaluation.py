"""`souk evaluate --search`: the quality of search through SQL, next to BM25 and the transformer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ml.encoder import Encoder, load_encoder
from ml.evaluation.protocol import intervals
from ml.recommender import Catalogue, fit
from ml.recommender.train import centre
from ml.search import Judged, SearchIndex, build_index
from ml.search.measure import DEPTH, METRICS, Ranking, bm25, measures, rank, with_typo
from ml.text import detect_language, lexical_terms, passage
from souk.artefacts import write_release
from souk.postgres import connect
from souk.search_collections import Collection
from souk.settings import Settings
from souk.trial import encode_texts, publish_trial

log = logging.getLogger(__name__)
DATABASE = "souk_search_evaluation"
ARMS = ("BM25", "transformer", "BM25 + transformer", "souk")
# What the fused baseline is tried with: weight of the cosine beside BM25 divided by the best product's.
FUSION_GRID = np.geomspace(0.1, 30, 26)

Floats = NDArray[np.float64]


def evaluate_search(settings: Settings, collection: Collection, target: Path | None = None) -> str:
    """Measure every arm on the test queries, as typed and with one typo each, and return the figures as a table.

    Args:
        settings: The server, the encoder and the cache of vectors.
        collection: What to search and what to ask.
        target: Where the figures go as JSON; None for nowhere.
    """
    encoder = load_encoder(settings.encoder, settings.models, settings.encoder_precision)
    texts = [passage(doc.title, doc.brand, doc.categories, doc.description) for doc in collection.documents]
    raw = encode_texts(settings, encoder, texts)
    index = build_index(collection.documents, raw, encoder.encode_queries, collection.taught)
    log.info("built %s terms; weights %s", f"{len(index.terms):,}", {k: round(v, 3) for k, v in index.weights.items()})
    baselines = _Baselines(collection, centre(raw), encoder)
    report: dict[str, Any] = {
        "data": collection.name,
        "note": collection.note,
        "products": len(collection.documents),
        "queries": {
            "taught": len(collection.taught),
            "validation": len(collection.validation),
            "test": len(collection.test),
        },
        "encoder": encoder.model_id,
        "weights": index.weights,
        "baseline_weight": baselines.weight,
    }
    dsn = _publish(settings, collection, raw, index)
    misspelt = [with_typo(query.query) for query in collection.test]
    with closing(connect(dsn, autocommit=True)) as connection:
        place = {item: number for number, item in enumerate(collection.ids)}
        for key, texts in (("as_typed", [query.query for query in collection.test]), ("one_typo", misspelt)):
            values = baselines.measure(texts, collection.test)
            through_sql = (_search(connection, place, collection.ids, *pair) for pair in _pairs(texts, collection.test))
            values["souk"] = _measured(through_sql, collection.test)
            report[key] = {arm: _figures(values[arm]) for arm in ARMS}
            report[key]["souk - BM25"] = _figures(values["souk"] - values["BM25"])
            report[key]["souk - BM25 + transformer"] = _figures(values["souk"] - values["BM25 + transformer"])
    report["targets"] = _targets(report)
    report["met"] = all(report["targets"].values())
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
    return _table(report)


class _Baselines:
    """BM25, the transformer, and both, fused with the weight that did best on validation."""

    def __init__(self, collection: Collection, vectors: NDArray[np.float32], encoder: Encoder) -> None:
        self._bm25 = bm25(collection.documents)
        self._vectors = vectors
        self._encoder = encoder
        # Queries of this encoder share a direction, as products do; training queries tell it.
        sample = [query.query for query in collection.taught[:2000]]
        self._mean = encoder.encode_queries(sample).mean(axis=0) if sample else 0.0
        self.weight = self._fit(collection.validation)

    def measure(self, texts: Sequence[str], queries: Sequence[Judged]) -> dict[str, Floats]:
        """Return the (queries, metrics) values of each arm."""
        rankings: dict[str, list[Ranking]] = {arm: [] for arm in ARMS[:3]}
        for (lexical, cosine), query in zip(self._scores(texts), queries, strict=True):
            rankings["BM25"].append(rank(lexical, query))
            rankings["transformer"].append(rank(cosine, query))
            rankings["BM25 + transformer"].append(rank(_fused(lexical, cosine, self.weight), query))
        return {arm: _measured(found, queries) for arm, found in rankings.items()}

    def _scores(self, texts: Sequence[str]) -> Iterable[tuple[Floats, Floats]]:
        encoded = self._encoder.encode_queries(list(texts)) - self._mean
        encoded /= np.maximum(np.linalg.norm(encoded, axis=1, keepdims=True), 1e-9)
        for text, vector in zip(texts, encoded, strict=True):
            yield self._bm25(text), np.asarray(self._vectors @ vector, np.float64)

    def _fit(self, queries: Sequence[Judged]) -> float:
        """Return the weight with the best sum of all metrics."""
        scores = list(self._scores([query.query for query in queries])) if queries else []
        quality = [
            _sum_of_means(
                _measured(
                    (rank(_fused(*score, weight), query) for score, query in zip(scores, queries, strict=True)), queries
                )
            )
            if queries
            else 0.0
            for weight in FUSION_GRID
        ]
        return float(FUSION_GRID[int(np.argmax(quality))])


def _fused(lexical: Floats, cosine: Floats, weight: float) -> Floats:
    return lexical / max(float(lexical.max()), 1e-9) + weight * cosine


def _search(connection: Connection[Any], place: dict[str, int], ids: list[str], text: str, query: Judged) -> Ranking:
    """Return what api.search lists, and the scores that the same formula gives to the judged products.

    The first ten are those of a list of ten: search looks at more products for a longer one.
    """
    short, long = (
        connection.execute("select item_id from api.search(%s, %s) order by rank", [text, k]).fetchall()
        for k in (10, DEPTH)
    )
    rows = [*short, *(row for row in long if row not in short)][:DEPTH]
    judged = connection.execute(
        "with shown as (select release_id from serving.pointer limit 1),"
        " weight as (select w.val from serving.weight as w inner join shown using (release_id)"
        " where w.term = 'search_semantic'),"
        " read as materialized (select r.* from shown, internal.read_query(release_id, %s) as r)"
        " select i.item_id, coalesce(-(i.lexical <#> r.lexical), 0)"
        " - (select val from weight) * coalesce(i.text_vector <#> r.vector, 0)"
        " from serving.item as i inner join shown using (release_id) cross join read as r where i.item_id = any(%s)",
        [text, [ids[item] for item in query.grades]],
    ).fetchall()
    return Ranking([place[str(row[0])] for row in rows], {place[str(item)]: float(score) for item, score in judged})


def _pairs(texts: Sequence[str], queries: Sequence[Judged]) -> Iterable[tuple[str, Judged]]:
    return zip(texts, queries, strict=True)


def _measured(rankings: Iterable[Ranking], queries: Sequence[Judged]) -> Floats:
    return np.array([measures(query, found) for query, found in zip(queries, rankings, strict=True)])


def _known(values: Floats) -> list[int]:
    """Return the columns of metrics that some query has."""
    return np.flatnonzero(~np.isnan(values).all(axis=0)).tolist()


def _sum_of_means(values: Floats) -> float:
    return float(np.nanmean(values[:, _known(values)], axis=0).sum())


def _figures(values: Floats) -> dict[str, dict[str, float]]:
    """Return mean and 95 % interval of each metric; one that no query has, as pairs of unlike grades, is left out."""
    known = _known(values)
    low, high = intervals(values[:, known])
    return {
        METRICS[at]: {"mean": float(np.nanmean(values[:, at])), "low": float(low[place]), "high": float(high[place])}
        for place, at in enumerate(known)
    }


def _targets(report: dict[str, Any]) -> dict[str, bool]:
    typed, misspelt = report["as_typed"], report["one_typo"]
    return {
        "every metric at least BM25 + transformer's": all(
            typed["souk"][metric]["mean"] >= typed["BM25 + transformer"][metric]["mean"] for metric in typed["souk"]
        ),
        "recall@10 at least .05 over BM25's": typed["souk - BM25"]["recall@10"]["mean"] >= 0.05,
        "one typo costs at most .03 recall@10": typed["souk"]["recall@10"]["mean"]
        - misspelt["souk"]["recall@10"]["mean"]
        <= 0.03,
    }


def _publish(settings: Settings, collection: Collection, vectors: NDArray[np.float32], index: SearchIndex) -> str:
    """Publish the products in a database of its own, and return where."""
    documents = collection.documents
    catalogue = Catalogue(collection.ids, [lexical_terms(document.title) for document in documents], vectors)
    items: Iterable[dict[str, Any]] = (
        {
            "title": document.title,
            "description": document.description,
            "brand": document.brand or None,
            "categories": list(document.categories),
            "price": None,
            "attributes": {},
            "lang": detect_language(document.title),
            "key_terms": [],
        }
        for document in documents
    )
    folder = settings.lake / "evaluation" / "search-release"
    write_release(folder, "evaluation", items, catalogue, fit(catalogue, []), index, {})
    return publish_trial(settings, DATABASE, "evaluation", folder)


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['data']}: {report['products']:,} products, {report['queries']['test']:,} test queries",
        report["note"],
    ]
    for key, title in (("as_typed", "as typed"), ("one_typo", "with one typo")):
        lines.append(f"{title:26}" + "".join(f"{metric:>26}" for metric in METRICS))
        for arm, figures in report[key].items():
            found = (figures.get(metric) for metric in METRICS)
            cells = (f"{f['mean']:8.3f} ({f['low']:.3f} to {f['high']:.3f})" if f else "-" for f in found)
            lines.append(f"{arm:26}" + "".join(f"{cell:>26}" for cell in cells))
    lines.extend(f"{'met' if is_met else 'NOT MET'}: {target}" for target, is_met in report["targets"].items())
    return "\n".join(lines)
