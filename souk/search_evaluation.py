"""`souk evaluate --search`: the quality of search through SQL, next to BM25 and the transformer."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo

from ml.encoder import Encoder, load_encoder, locate
from ml.recommender import Catalogue, fit
from ml.recommender.train import centre
from ml.search import Document, Judged, SearchIndex, build_index
from ml.search.fusion import RELEVANT
from ml.search.measure import DEPTH, METRICS, Ranking, bm25, intervals, measures, rank, with_typo
from ml.search.terms import is_cjk
from ml.text import detect_language, lexical_terms, passage
from souk import release
from souk.artefacts import write_release
from souk.errors import SoukError
from souk.postgres import connect, connect_server, create_database
from souk.settings import Settings
from souk.sources.demo_shop import DemoShop, open_demo_shop
from sql.migrate import migrate

log = logging.getLogger(__name__)
DATABASE = "souk_search_evaluation"
ARMS = ("BM25", "transformer", "BM25 + transformer", "souk")
FIELDS = {"product_uid", "product_title", "search_term", "relevance"}
# What the fused baseline is tried with: weight of the cosine beside BM25 divided by the best product's.
FUSION_GRID = np.geomspace(0.1, 30, 26)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Collection:
    """Products, and queries with their relevant ones.

    Attributes:
        name: The data.
        note: What is measured, and what the reader must know of it.
        ids: Product ids.
        documents: Their texts.
        taught: Queries that `build_index` learns from.
        validation: Queries that the fused baseline is fitted on.
        test: Queries that are measured, once.
    """

    name: str
    note: str
    ids: list[str]
    documents: list[Document]
    taught: list[Judged]
    validation: list[Judged]
    test: list[Judged]


def read_judgements(path: Path, test_path: Path | None = None) -> Collection:
    """Read judged pairs; the corpus is every title of the files.

    A query's hash decides: three fifths train, a fifth validates, a fifth tests. With a test file its queries are the
    test, and the first file trains (four fifths) and validates. The relevance, 1 to 3, becomes a grade from 0 to 1.

    Args:
        path: CSV, gzipped or not, with product_uid, product_title, search_term and relevance.
        test_path: Another such file.

    Raises:
        SoukError: A file is missing, lacks a column, or has nothing to measure.
    """
    titles: dict[str, str] = {}
    judged = _grades(path, titles)
    asked = _grades(test_path, titles) if test_path else {}
    place = {item: number for number, item in enumerate(titles)}
    queries = [Judged(text, {place[item]: grade for item, grade in grades.items()}) for text, grades in judged.items()]
    fifth = [int(hashlib.sha256(query.query.encode()).hexdigest(), 16) % 5 for query in queries]
    own_test = [query for query, part in zip(queries, fifth, strict=True) if part == 0]
    others = [Judged(text, {place[item]: grade for item, grade in grades.items()}) for text, grades in asked.items()]
    rest = [
        (query, part)
        for query, part in zip(queries, fifth, strict=True)
        if query.query not in asked and (test_path or part)
    ]
    test = others if test_path else own_test
    if not any(grade >= RELEVANT for query in test for grade in query.grades.values()):
        raise SoukError(f"{test_path or path} has no query with a relevant product", "Pass judged queries.")
    return Collection(
        name=", ".join(file.name for file in (path, test_path) if file),
        note="relevant: grade 2.33 of 3 and above; corpus: all titles of the files; unjudged products count as 0",
        ids=list(titles),
        documents=[Document(title, "", "", ()) for title in titles.values()],
        # The weights are fitted inside, on queries that the encoder does not learn from.
        taught=[query for query, _ in rest],
        validation=[query for query, part in rest if part == 1],
        test=test,
    )


def read_demo_shop(shop: DemoShop) -> Collection:
    """Return the demo shop's Chinese searches: those clicked teach, the products of the type that is asked for count.

    The clicks are what a shop would have; the types are what the simulation knows, and only measure.
    """
    rows = [row for chunk in shop.products() for row in chunk]
    ids = [str(row["item_id"]) for row in rows]
    place = {item: number for number, item in enumerate(ids)}
    truth = shop.truth()["items"]
    of_type: dict[str, list[int]] = {}
    for item in ids:
        of_type.setdefault(str(truth[item]["type"]), []).append(place[item])
    kinds = shop.catalogue.words.types
    names = sorted(((name, kind.name[0]) for kind in kinds for name in kind.name), key=lambda pair: -len(pair[0]))
    text_of = {str(row["query_id"]): str(row["query_text"]) for chunk in shop.queries() for row in chunk}
    clicked: dict[str, dict[int, float]] = {text: {} for text in text_of.values() if any(map(is_cjk, text))}
    for event in (row for chunk in shop.events() for row in chunk):
        text = text_of.get(str(event.get("query_id")))
        if text in clicked:
            clicked[text][place[str(event["item_id"])]] = 1.0
    taught, validation, test = [], [], []
    for text, grades in clicked.items():
        part = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 5
        kind = next((kind for name, kind in names if name.lower() in text.lower()), None)
        meant = Judged(text, dict.fromkeys(range(len(ids)), 0.0) | dict.fromkeys(of_type.get(kind or "", []), 1.0))
        if part == 0 and kind in of_type:
            test.append(meant)
        elif part == 1 and kind in of_type:
            validation.append(meant)
        if part and grades:
            taught.append(Judged(text, grades))
    return Collection(
        name=f"{shop.shop}, Chinese searches (generated data)",
        note="generated data; relevant: products of the type that the query names, of either language",
        ids=ids,
        documents=[
            Document(
                str(row["title"] or ""),
                str(row["description"] or ""),
                str(row["brand"] or ""),
                [str(name) for name in row["categories"]] if isinstance(row["categories"], list) else [],
            )
            for row in rows
        ],
        taught=taught,
        validation=validation,
        test=test,
    )


def evaluate_search(settings: Settings, collection: Collection, target: Path | None = None) -> str:
    """Measure every arm on the test queries, as typed and with one typo each, and return the figures as a table.

    Args:
        settings: The server, the encoder and the cache of vectors.
        collection: What to search and what to ask.
        target: Where the figures go as JSON; None for nowhere.
    """
    encoder = load_encoder(settings.encoder, settings.models)
    raw = _vectors(settings, encoder, collection.documents)
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
        target.write_text(json.dumps(report, indent=2, ensure_ascii=False))
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
            np.nanmean(
                [
                    measures(query, rank(_fused(lexical, cosine, weight), query))
                    for (lexical, cosine), query in zip(scores, queries, strict=True)
                ],
                axis=0,
            ).sum()
            if queries
            else 0.0
            for weight in FUSION_GRID
        ]
        return float(FUSION_GRID[int(np.argmax(quality))])


def _fused(lexical: Floats, cosine: Floats, weight: float) -> Floats:
    return lexical / max(float(lexical.max()), 1e-9) + weight * cosine


def _search(connection: Connection[Any], place: dict[str, int], ids: list[str], text: str, query: Judged) -> Ranking:
    """Return what api.search lists, and the scores that the same formula gives to the judged products."""
    rows = connection.execute("select item_id from api.search(%s, %s) order by rank", [text, DEPTH]).fetchall()
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


def _figures(values: Floats) -> dict[str, dict[str, float]]:
    low, high = intervals(values)
    return {
        metric: {"mean": float(np.nanmean(values[:, at])), "low": float(low[at]), "high": float(high[at])}
        for at, metric in enumerate(METRICS)
    }


def _targets(report: dict[str, Any]) -> dict[str, bool]:
    typed, misspelt = report["as_typed"], report["one_typo"]
    return {
        "every metric at least BM25 + transformer's": all(
            typed["souk"][metric]["mean"] >= typed["BM25 + transformer"][metric]["mean"] for metric in METRICS
        ),
        "recall@10 at least .05 over BM25's": typed["souk - BM25"]["recall@10"]["mean"] >= 0.05,
        "one typo costs at most .03 recall@10": typed["souk"]["recall@10"]["mean"]
        - misspelt["souk"]["recall@10"]["mean"]
        <= 0.03,
    }


def _vectors(settings: Settings, encoder: Encoder, documents: Sequence[Document]) -> NDArray[np.float32]:
    """Return the encoder's vectors of the products, which are kept for the next evaluation of the same texts."""
    texts = [passage(doc.title, doc.brand, doc.categories, doc.description) for doc in documents]
    _, encoder_id = locate(settings.encoder, settings.models)
    name = hashlib.sha256(json.dumps([encoder_id, settings.encoder_max_tokens, texts]).encode()).hexdigest()[:20]
    cache = settings.lake / "evaluation" / f"{name}.npy"
    if cache.exists():
        return np.asarray(np.load(cache), np.float32)
    log.info("encoding %s texts", f"{len(texts):,}")
    vectors = encoder.encode_passages(texts, settings.encoder_max_tokens)
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, vectors)
    return vectors


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
    server = connect_server(settings)
    with closing(connect(server, autocommit=True)) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(DATABASE)))
    create_database(server, DATABASE)
    dsn = make_conninfo(server, dbname=DATABASE)
    migrate(dsn)
    entry = release.Release("evaluation", "evaluation", "evaluation", None, settings.encoder, False, False)
    release.load(dsn, entry, folder, 0)
    release.mark_audited(dsn, entry.release_id)
    release.publish(dsn, entry.release_id)
    return dsn


def open_collection(judgements: Path | None, test_judgements: Path | None, source: str | None) -> Collection:
    """Open what the command names: judged pairs, or the demo shop.

    Raises:
        SoukError: Neither is named, or the source has no ground truth.
    """
    if judgements:
        return read_judgements(judgements, test_judgements)
    if source != "demo-shop":
        raise SoukError("There is nothing to measure search with", "Pass --judgements FILE or --source demo-shop.")
    return read_demo_shop(open_demo_shop(scale=1, seed=0))


def _grades(path: Path, titles: dict[str, str]) -> dict[str, dict[str, float]]:
    """Return the grade of each product by query, and note the titles."""
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    grades: dict[str, dict[str, float]] = {}
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if missing := FIELDS - set(rows.fieldnames or ()):
                raise SoukError(f"{path} has no column {', '.join(sorted(missing))}", "Pass judged pairs.")
            for row in rows:
                titles.setdefault(row["product_uid"], row["product_title"])
                grades.setdefault(row["search_term"], {})[row["product_uid"]] = (float(row["relevance"]) - 1) / 2
    except (OSError, ValueError, EOFError) as error:
        raise SoukError(f"{path} cannot be read: {error}", "Correct the path or the file.") from None
    return grades


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['data']}: {report['products']:,} products, {report['queries']['test']:,} test queries",
        report["note"],
    ]
    for key, title in (("as_typed", "as typed"), ("one_typo", "with one typo")):
        lines.append(f"{title:26}" + "".join(f"{metric:>26}" for metric in METRICS))
        for arm, figures in report[key].items():
            cells = (f"{f['mean']:8.3f} ({f['low']:.3f} to {f['high']:.3f})" for f in figures.values())
            lines.append(f"{arm:26}" + "".join(f"{cell:>26}" for cell in cells))
    lines.extend(f"{'met' if is_met else 'NOT MET'}: {target}" for target, is_met in report["targets"].items())
    return "\n".join(lines)
