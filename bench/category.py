"""How well the category of a query is told, next to the reference model: `make bench-category`.

`--data FOLDER` measures on real products: fragments of their titles stand for queries.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.reference_category import Outcome, Texts, train_reference
from ml.encoder import load_encoder
from ml.recommender.category import Encode, Examples, fit_category, fragment_examples, leaf_categories
from ml.recommender.tfidf import tfidf
from ml.recommender.train import centre
from ml.search import Document, build_index
from ml.text import lexical_terms, passage
from souk.evaluation import product_fields
from souk.settings import Settings
from souk.sources import Dataset, open_dataset

SEED = 0
TEST_SHARE = 0.2
CHOSEN = ("click", "cart", "purchase")


@dataclass(frozen=True)
class Data:
    """Queries, the product that each led to, and what is known of the products.

    Attributes:
        name: Of the data set.
        is_generated: Whether it was made up.
        queries: m texts.
        items: int64 (m,), the product that was chosen.
        groups: int64 (m,), queries of one group are on the same side of the split.
        descriptions: Of the n products.
        terms: Lexical terms of the products.
        vectors: float32 (n, d), of the products, centred.
        leaf: int64 (n,), category of each product.
        categories: Names.
        encode: The query encoder.
    """

    name: str
    is_generated: bool
    queries: list[str]
    items: NDArray[np.int64]
    groups: NDArray[np.int64]
    descriptions: list[str]
    terms: list[list[str]]
    vectors: NDArray[np.float32]
    leaf: NDArray[np.int64]
    categories: list[str]
    encode: Encode


def read(dataset: Dataset, settings: Settings) -> Data:
    """Encode the products, and take the searches of a source or, without any, fragments of titles."""
    products = list({str(row["item_id"]): row for rows in dataset.products() for row in rows}.values())
    fields = [product_fields(row) for row in products]
    texts = [passage(*field) for field in fields]
    print(f"encoding {len(texts):,} products of {dataset.shop}", flush=True)
    encoder = load_encoder(settings.encoder, settings.models, settings.encoder_precision)
    vectors = encoder.encode_passages(texts, settings.encoder_max_tokens)
    documents = [Document(title, said, brand, categories) for title, brand, categories, said in fields]
    index = build_index(documents, vectors, encoder.encode_queries, seed=SEED)
    categories, leaf = leaf_categories([field[2] for field in fields])
    queries, items, groups = _searches(dataset, {str(row["item_id"]): n for n, row in enumerate(products)}, leaf)
    if not queries:
        queries, items, groups = _fragments([field[0] for field in fields], leaf)
    return Data(
        name=dataset.shop,
        is_generated=dataset.is_generated,
        queries=queries,
        items=items,
        groups=groups,
        descriptions=[field[3] for field in fields],
        terms=[lexical_terms(text) for text in texts],
        vectors=centre(vectors),
        leaf=leaf,
        categories=categories,
        encode=index.encode,
    )


def _searches(
    dataset: Dataset, number: dict[str, int], leaf: NDArray[np.int64]
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Return each query with each product that was chosen in it; searches with the same words are one group."""
    typed = {str(row["query_id"]): str(row["query_text"]) for rows in dataset.queries() for row in rows}
    pairs = {
        (typed[str(row["query_id"])], number[str(row["item_id"])])
        for rows in dataset.events()
        for row in rows
        if row.get("query_id") and row["kind"] in CHOSEN
    }
    chosen = [(query, item) for query, item in sorted(pairs) if leaf[item] >= 0]
    group = {query: place for place, query in enumerate(dict.fromkeys(query for query, _ in chosen))}
    return (
        [query for query, _ in chosen],
        np.array([item for _, item in chosen], dtype=np.int64),
        np.array([group[query] for query, _ in chosen], dtype=np.int64),
    )


def _fragments(titles: list[str], leaf: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Return fragments of titles; those of one product are one group."""
    texts: list[str] = []

    def keep(given: list[str]) -> NDArray[np.float32]:
        texts.extend(given)
        return np.zeros((len(given), 1), dtype=np.float32)

    examples = fragment_examples(titles, leaf, keep, SEED)
    return texts, examples.groups, examples.groups


def found_first(data: Data) -> NDArray[np.int64]:
    """Return the product that the words of each query find first (cosine of tf-idf)."""
    matrix = tfidf([*data.terms, *map(lexical_terms, data.queries)])
    documents = matrix[: len(data.terms)].T.tocsr()
    queries = matrix[len(data.terms) :]
    return np.concatenate(
        [
            np.asarray((queries[start : start + 1024] @ documents).toarray().argmax(axis=1))
            for start in range(0, len(data.queries), 1024)
        ]
    )


def measure(data: Data) -> list[dict[str, object]]:
    """Train both models on the same examples, with and without the description of the chosen product."""
    groups = np.unique(data.groups)
    drawn = np.random.default_rng(SEED).permutation(groups)[: round(TEST_SHARE * len(groups))]
    is_test = np.isin(data.groups, drawn)
    labels, queries = data.leaf[data.items], data.encode(data.queries)
    shares = np.bincount(labels[~is_test], minlength=len(data.categories)) + 1.0
    prior = np.log(shares / shares.sum())
    majority = Outcome(float((labels[is_test] == shares.argmax()).mean()), float(-prior[labels[is_test]].mean()), 0.0)
    both = queries + data.vectors[data.items]
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-8)
    inputs = {
        "query alone": (queries, found_first(data)),
        "query and chosen description": (both, data.items),
    }
    rows: list[dict[str, object]] = []
    for name, (vectors, described) in inputs.items():
        examples = Examples(vectors.astype(np.float32), labels, data.groups)
        ours = _ours(examples, is_test, len(data.categories))
        texts = [_texts(data, described, labels, part) for part in (~is_test, is_test)]
        reference = train_reference(*texts, len(data.categories), SEED, name)
        rows += _rows(name, ours, reference, "reference") + _rows(name, ours, majority, "majority")[:2]
    return rows


def _ours(examples: Examples, is_test: NDArray[np.bool_], n_categories: int) -> Outcome:
    start = time.perf_counter()
    model = fit_category(examples.where(~is_test), n_categories, SEED)
    seconds = time.perf_counter() - start
    if model is None:
        raise SystemExit("souk: there are not two categories to tell apart")
    test = examples.where(is_test)
    told = model.log_probabilities(test.vectors)
    right = told[np.arange(len(test)), test.labels]
    return Outcome(float((told.argmax(axis=1) == test.labels).mean()), float(-right.mean()), seconds)


def _texts(data: Data, described: NDArray[np.int64], labels: NDArray[np.int64], part: NDArray[np.bool_]) -> Texts:
    places = np.flatnonzero(part).tolist()
    return Texts(
        [data.queries[place] for place in places],
        [data.descriptions[described[place]] for place in places],
        labels[part],
    )


def _rows(name: str, ours: Outcome, peer: Outcome, peer_name: str) -> list[dict[str, object]]:
    figures = [
        ("accuracy", ours.accuracy, peer.accuracy, "share of queries", ours.accuracy > peer.accuracy),
        ("log loss", ours.log_loss, peer.log_loss, "nats", ours.log_loss < peer.log_loss),
        ("training", ours.seconds, peer.seconds, "s", ours.seconds < peer.seconds),
    ]
    return [
        {
            "metric": f"{metric}, {name}",
            "ours": round(mine, 4),
            "peer": round(theirs, 4),
            "peer_name": peer_name,
            "ratio": round(mine / theirs, 3) if theirs else None,
            "unit": unit,
            "target": 1.0,
            "met": is_met,
        }
        for metric, mine, theirs, unit, is_met in figures
    ]


def main() -> None:
    """Measure, print the table and write var/bench/category.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with items.jsonl and sequences.txt; the demo shop if absent")
    path = parser.parse_args().data
    settings = Settings.from_env()
    data = read(open_dataset("amazon" if path else "demo-shop", path, 1, 0, settings.home), settings)
    rows = measure(data)
    report = {
        "name": "category",
        "data": data.name,
        "generated": data.is_generated,
        "queries": len(data.queries),
        "categories": len(data.categories),
        "rows": rows,
    }
    target = settings.home / "bench" / "category.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"category on {data.name}{' (generated data)' if data.is_generated else ''}, held-out queries")
    print(f"{'metric':<40} {'ours':>8} {'peer':>8} {'ratio':>6}  peer")
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "-"
        print(f"{row['metric']:<40} {row['ours']:>8.4f} {row['peer']:>8.4f} {ratio:>6}  {row['peer_name']}")


if __name__ == "__main__":
    main()
