"""What search is measured with: products, queries, and which product answers which query."""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ml.search import Document, Judged
from ml.search.fusion import RELEVANT
from ml.search.terms import is_cjk
from souk.errors import SoukError
from souk.sources.contract import Dataset
from souk.sources.demo_shop import DemoShop

# What a choice says of a product, as in `souk.training.read_judged`.
GRADES = {"view": 0.5, "click": 0.5, "cart": 1.0, "purchase": 1.0}
FIELDS = {"product_uid", "product_title", "search_term", "relevance"}


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
    fifth = [_fifth(query.query) for query in queries]
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
    ids, documents = _products(shop)
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
        part = _fifth(text)
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
        documents=documents,
        taught=taught,
        validation=validation,
        test=test,
    )


def read_clicks(dataset: Dataset) -> Collection:
    """Return a shop's searches, judged by what was chosen in them.

    The grades are those that training reads (`souk.training.read_judged`). A query's hash decides: three fifths train,
    a fifth validates, a fifth tests; the same words never do two of these.

    Raises:
        SoukError: Nothing was chosen in any search of the shop.
    """
    ids, documents = _products(dataset)
    place = {item: number for number, item in enumerate(ids)}
    searches = {str(row["query_id"]): row for chunk in dataset.queries() for row in chunk if "_unreadable" not in row}
    chosen: dict[str, dict[str, float]] = {}
    for event in (row for chunk in dataset.events() for row in chunk):
        name, item, kind = (str(event.get(key)) for key in ("query_id", "item_id", "kind"))
        if name in searches and item in place and kind in GRADES:
            grades = chosen.setdefault(name, {})
            grades[item] = max(grades.get(item, 0.0), GRADES[kind])
    offered: dict[str, dict[int, list[float]]] = {}
    for name, grades in chosen.items():
        shown = searches[name]["shown_item_ids"]
        seen = [str(item) for item in shown] if isinstance(shown, list) else []
        of_text = offered.setdefault(str(searches[name]["query_text"]).strip().lower(), {})
        for item in dict.fromkeys([*seen, *grades]):
            if item in place:
                of_text.setdefault(place[item], []).append(grades.get(item, 0.0))
    offered.pop("", None)
    judged = []
    for text, of_text in offered.items():
        means = {item: fmean(grades) for item, grades in of_text.items()}
        judged.append(Judged(text, {item: mean / max(means.values()) for item, mean in means.items()}))
    part = [_fifth(query.query) for query in judged]
    taught, validation, test = (
        [query for query, own in zip(judged, part, strict=True) if own in parts] for parts in ((2, 3, 4), (1,), (0,))
    )
    if not test:
        raise SoukError(f"Nothing was chosen in the searches of {dataset.shop}", "Pass a source with searches.")
    made_up = " (generated data)" if dataset.is_generated else ""
    return Collection(
        name=f"{dataset.shop}, clicks{made_up}",
        note="relevant: what was chosen in a search with these words; what nobody chose counts as 0",
        ids=ids,
        documents=documents,
        taught=taught,
        validation=[_any_choice(query) for query in validation],
        test=[_any_choice(query) for query in test],
    )


def open_collection(
    judgements: Path | None, test_judgements: Path | None, dataset: Dataset | None, by_clicks: bool = False
) -> Collection:
    """Open what the command names: judged pairs, a shop's clicks, or what was meant in the demo shop.

    Raises:
        SoukError: Neither is named, or the source has no ground truth.
    """
    if judgements:
        return read_judgements(judgements, test_judgements)
    if dataset and by_clicks:
        return read_clicks(dataset)
    if not isinstance(dataset, DemoShop):
        raise SoukError(
            "There is nothing to measure search with",
            "Pass --judgements FILE, --source demo-shop, or --clicks with a source that has searches.",
        )
    return read_demo_shop(dataset)


def _products(dataset: Dataset) -> tuple[list[str], list[Document]]:
    """Return the ids of the products and their texts."""
    rows = [row for chunk in dataset.products() for row in chunk if row.get("item_id")]
    return [str(row["item_id"]) for row in rows], [
        Document(
            str(row["title"] or ""),
            str(row["description"] or ""),
            str(row["brand"] or ""),
            [str(name) for name in row["categories"]] if isinstance(row["categories"], list) else [],
        )
        for row in rows
    ]


def _fifth(query: str) -> int:
    return int(hashlib.sha256(query.encode()).hexdigest(), 16) % 5


def _any_choice(query: Judged) -> Judged:
    """Return the query with every choice as relevant: rare and frequent queries count alike."""
    return Judged(query.query, {item: float(grade > 0) for item, grade in query.grades.items()})


def _grades(path: Path, titles: dict[str, str]) -> dict[str, dict[str, float]]:
    """Return the grade of each product by query, and note the titles."""
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    grades: dict[str, dict[str, float]] = {}
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := FIELDS - set(rows.fieldnames or ()):
                raise SoukError(f"{path} has no column {', '.join(sorted(missing))}", "Pass judged pairs.")
            for row in rows:
                relevance = float(row["relevance"])
                if not 1 <= relevance <= 3:
                    raise ValueError(f"line {rows.line_num} has a relevance outside 1 to 3")
                titles.setdefault(row["product_uid"], row["product_title"])
                grades.setdefault(row["search_term"], {})[row["product_uid"]] = (relevance - 1) / 2
    except (OSError, ValueError, TypeError, EOFError, csv.Error, zlib.error) as error:
        raise SoukError(f"{path} cannot be read: {error}", "Correct the path or the file.") from None
    return grades
