"""From marts and vectors to the files of a release."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ml.champion import Trial, hold_trial
from ml.encoder import QUERY_TOKENS
from ml.recommender import Catalogue, Recommender, distinct, fit_with_trial
from ml.recommender.category import (
    Category,
    fit_category,
    fit_query_category,
    leaf_categories,
    user_examples,
)
from ml.recommender.pq import train
from ml.recommender.train import Learn
from ml.search import Document, Judged, SearchIndex, build_index
from ml.search.personal import fit_personal
from souk.artefacts import write_release
from souk.comparison import summary, trial_key, write_trial
from souk.errors import SoukError
from souk.interactions import read_interactions
from souk.personal_search import read_choices
from souk.postgres import connect
from souk.refinement import MOVED, in_force
from souk.settings import Settings
from souk.shoppers import (
    Behaviour,
    Connection,
    item_days,
    place_items,
    read_opinions,
    read_profiles,
    repeat_gaps,
    shoppers,
)

log = logging.getLogger(__name__)

MAX_JUDGED = 5_000
SEED = 0


@dataclass(frozen=True)
class Products:
    """The products that have a vector, in the order of their ids.

    Attributes:
        catalogue: Ids, terms and vectors.
        items: The other columns of each, as a release stores them.
    """

    catalogue: Catalogue
    items: list[dict[str, Any]]

    def documents(self) -> list[Document]:
        """Return the texts that search reads."""
        return [
            Document(item["title"], item["description"], item["brand"] or "", item["categories"]) for item in self.items
        ]


def train_release(
    dsn: str, settings: Settings, shop: str, encoder: str, folder: Path, refined: Path | None = None
) -> dict[str, int]:
    """Fit everything that a release of a shop serves, and write it.

    Args:
        dsn: A database with the marts of the shop.
        settings: Where vectors and models lie.
        shop: The shop.
        encoder: The model that made the vectors; it encodes the terms of queries.
        folder: Where the files go.
        refined: Folder of the refiner's texts in force; None where nothing was refined.

    Returns:
        Rows of each table, and the number of events.

    Raises:
        SoukError: No product has a vector, or there is no such encoder.
    """
    with closing(connect(dsn, autocommit=True)) as connection:
        products = read_products(connection, shop, sorted((settings.lake / shop / "vectors").glob("*.parquet")))
        texts = in_force(refined) if refined else {}
        if refined:
            products = with_texts(products, texts, refined / "vectors.parquet")
        catalogue = products.catalogue
        place_items(connection, catalogue.item_ids)
        gaps = repeat_gaps(connection, shop)
        log.info(
            "bought again: %s", ", ".join(f"{name} after {gap:.0f} days" for name, gap in gaps.items()) or "nothing"
        )
        behaviour, transition = read_interactions(
            connection, settings, shop, catalogue.item_ids, gaps_of_items(products, gaps)
        )
        log.info("training on %s products and %s events", f"{len(catalogue.item_ids):,}", f"{behaviour.events:,}")
        with learner(settings, shop) as learn:
            fitted = fit_with_trial(catalogue, behaviour.liked, behaviour.bought, SEED, transition, learn)
        recommender = fitted.served
        for (term, first), weight in recommender.weights.items():
            log.debug("weight of %s from %s products of history: %.3f", term, first, weight)
        judged = read_judged(connection, shop)
        encode_queries = query_encoder(settings, shop, encoder)
        index = build_index(products.documents(), catalogue.vectors, encode_queries, judged, seed=SEED)
        log.info("search: %s terms, %s judged queries", f"{len(index.terms):,}", f"{len(judged):,}")
        personal = fit_personal(index, recommender.text_vectors, read_choices(connection, shop))
        log.info(
            "a shopper's interest in search: weight %.2f, from %s choices, told better by %.4f nats",
            *(personal.weight, f"{personal.choices:,}", personal.gain),
        )
        index = replace(index, weights={**index.weights, "search_personal": personal.weight})
        categories = fit_categories(products, index, judged, behaviour.liked, recommender.text_vectors)
        counts = write_release(
            folder,
            shop,
            products.items,
            catalogue,
            recommender,
            index,
            shoppers(
                behaviour.pasts,
                read_profiles(connection, shop),
                read_opinions(connection, shop, recommender.text_vectors, index.encode),
            ),
            categories,
            item_days(connection, shop),
            {item: texts[item]["original"] for item in catalogue.item_ids if item in texts},
        )
    write_trial(folder, _trial(fitted.tried, behaviour))
    return {**counts, "events": behaviour.events}


def _trial(tried: Recommender, behaviour: Behaviour) -> Trial:
    """Return how the model does on the last new product of each shopper, which it has not seen."""
    histories, targets, keys = [], [], []
    for user, taken in zip(behaviour.pasts, behaviour.liked, strict=True):
        items = distinct(taken)
        if len(items) >= 2:
            histories.append(items[:-1])
            targets.append(items[-1])
            keys.append(trial_key(user, tried.item_ids[items[-1]]))
    trial = hold_trial(tried, histories, targets, keys)
    log.info("held out: %s", ", ".join(f"{name} {value}" for name, value in summary(trial).items()))
    return trial


@contextmanager
def learner(settings: Settings, shop: str) -> Iterator[Learn]:
    """Give what trains the sequence model: this process, or the processes on Spark that the settings ask for."""
    if not settings.trainers:
        yield train
        return
    from spark_jobs.session import session
    from spark_jobs.train_recommender import train_recommender

    with session("souk train", settings) as spark:
        yield lambda features, sequences, seed: train_recommender(
            spark, features, sequences, seed, settings.trainers, settings.lake / shop
        )


def query_encoder(settings: Settings, shop: str, encoder: str) -> Callable[[list[str]], NDArray[np.float32]]:
    """Return what gives the vectors of short texts: from the lake, where they were encoded before."""
    from spark_jobs.encode_texts import encode_texts
    from spark_jobs.session import session
    from spark_jobs.text_vectors import TextModel

    model = TextModel(encoder, settings.encoder_precision, QUERY_TOKENS, settings.models, "query")
    vectors = settings.lake / shop / "query-vectors"
    return lambda texts: encode_texts(texts, vectors, model, lambda: session("souk train", settings))


def read_products(connection: Connection, shop: str, files: Sequence[Path]) -> Products:
    """Return the products of the marts that have a vector in one of the files.

    Raises:
        SoukError: None has.
    """
    table = pq.read_table(files, columns=["item_id", "lang", "key_terms", "terms", "vector"])
    place = {item: number for number, item in enumerate(table["item_id"].to_pylist())}
    columns = ("title", "description", "brand", "categories", "price", "attributes")
    rows = connection.execute(
        f'select item_id, {", ".join(columns)} from marts.dim_items where shop = %s order by item_id collate "C"',
        [shop],
    ).fetchall()
    rows = [row for row in rows if row[0] in place]
    if not rows:
        raise SoukError(f"No product of {shop} has a vector", "Look at the manifest of the encode stage.")
    places = [place[row[0]] for row in rows]
    table = table.take(places)
    langs, key_terms = table["lang"].to_pylist(), table["key_terms"].to_pylist()
    items = [
        {**dict(zip(columns, row[1:], strict=True)), "lang": lang, "key_terms": terms}
        for row, lang, terms in zip(rows, langs, key_terms, strict=True)
    ]
    catalogue = Catalogue([row[0] for row in rows], table["terms"].to_pylist(), _matrix(table["vector"]))
    return Products(catalogue, items)


def with_texts(products: Products, texts: Mapping[str, Mapping[str, Any]], vectors: Path) -> Products:
    """Return the products with the descriptions in force, and with the vectors of those that serve better.

    Args:
        products: With the shop's own descriptions.
        texts: New ones by product: `text`.
        vectors: Those of the new texts that may be used; there need not be such a file. Beside it may lie vectors of
            products that keep their text.
    """
    catalogue = products.catalogue
    place = {item: number for number, item in enumerate(catalogue.item_ids)}
    items = [
        {**item, "description": texts[name]["text"]} if name in texts else item
        for name, item in zip(catalogue.item_ids, products.items, strict=True)
    ]
    terms, matrix = list(catalogue.terms), catalogue.vectors.copy()
    for row in pq.read_table(vectors).to_pylist() if vectors.exists() else []:
        if (number := place.get(row["item_id"])) is not None:
            terms[number], matrix[number] = row["terms"], row["vector"]
            items[number] = {**items[number], "key_terms": row["key_terms"], "lang": row["lang"]}
    moved = vectors.with_name(MOVED)
    for row in pq.read_table(moved).to_pylist() if moved.exists() else []:
        if (number := place.get(row["item_id"])) is not None:
            matrix[number] = row["vector"]
    return Products(replace(catalogue, terms=terms, vectors=matrix), items)


def gaps_of_items(products: Products, gaps: dict[str, float]) -> NDArray[np.float64]:
    """Return after how many days each product is bought again: its leaf category's gap, infinite for never."""
    return np.array(
        [gaps.get(item["categories"][-1], np.inf) if item["categories"] else np.inf for item in products.items]
    )


def read_judged(connection: Connection, shop: str) -> list[Judged]:
    """Return what was chosen in searches: the queries in which anything was, the newest first, at most 5,000.

    A product that went to the cart or was bought counts 1, one that was only looked at 0.5, one that was shown beside
    them 0. The grade is the mean over the searches with the same words, relative to the query's best: what is looked at
    most teaches search even where nothing is bought, and where many people ask and each takes something else.
    """
    rows = connection.execute(
        "with chosen as ("
        "select e.query_id, e.item_id,"
        " max(case when e.kind in ('cart', 'purchase') then 1 else 0.5 end)::float8 as grade"
        " from marts.fct_interactions as e where e.shop = %(shop)s and e.query_id is not null and e.strength > 0"
        " group by e.query_id, e.item_id),"
        " searched as (select lower(btrim(s.query_text)) as query, s.query_id, s.searched_at, s.shown_item_ids"
        " from marts.fct_searches as s where s.shop = %(shop)s and btrim(s.query_text) <> ''"
        " and exists (select from chosen as c where c.query_id = s.query_id)),"
        " newest as (select query, max(searched_at) as searched_at from searched group by query"
        " order by 2 desc, 1 limit %(limit)s),"
        " offered as (select s.query, s.query_id, l.item_id from searched as s"
        " cross join lateral unnest(s.shown_item_ids) as l (item_id)"
        " union select s.query, s.query_id, c.item_id from searched as s"
        " inner join chosen as c on c.query_id = s.query_id),"
        " graded as (select o.query, n.place, avg(coalesce(c.grade, 0)) as grade"
        " from offered as o inner join item_place as n on n.item_id = o.item_id"
        " left join chosen as c on c.query_id = o.query_id and c.item_id = o.item_id group by o.query, n.place),"
        " best as (select query, max(grade) as grade from graded group by query having max(grade) > 0)"
        " select w.query, array_agg(g.place order by g.place), array_agg(g.grade / b.grade order by g.place)"
        " from newest as w inner join graded as g on g.query = w.query inner join best as b on b.query = w.query"
        " group by w.query, w.searched_at order by w.searched_at desc, w.query",
        {"shop": shop, "limit": MAX_JUDGED},
    ).fetchall()
    return [Judged(query, dict(zip(items, grades, strict=True))) for query, items, grades in rows]


def fit_categories(
    products: Products,
    index: SearchIndex,
    judged: Sequence[Judged],
    liked: Sequence[Sequence[int]],
    text_vectors: NDArray[np.float16],
) -> list[Category]:
    """Return the category models of queries and of shoppers, as far as there is something to learn from."""
    names, leaf = leaf_categories([item["categories"] for item in products.items])
    searches = [(one.query, item) for one in judged for item, grade in one.grades.items() if grade > 0]
    titles = [item["title"] for item in products.items]

    models = {
        "query": fit_query_category(searches, titles, leaf, len(names), index.encode, SEED),
        "user": fit_category(user_examples(liked, leaf, text_vectors, SEED), len(names), SEED),
    }
    rows: list[Category] = []
    for source, model in models.items():
        if model is None:
            log.info("nothing tells the category of the %s", source)
            continue
        quality = model.quality
        log.info(
            "category of the %s: %.1f %% of %s right (the most frequent: %.1f %%), log loss %.2f (shares: %.2f)",
            *(source, 100 * quality.accuracy, f"{quality.held_out:,}", 100 * quality.majority_accuracy),
            *(quality.log_loss, quality.majority_log_loss),
        )
        rows += model.rows(source, names)
    return rows


def _matrix(vectors: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return a column of lists of equal length as float32 (n, d).

    Raises:
        ValueError: The lists differ in length.
    """
    lists = vectors.combine_chunks()
    return lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(len(lists), -1)
