"""What new descriptions do: to the rank of their products on queries that nothing learned from, and to clicks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from ml.refiner.product import Product
from ml.refiner.retrieval import PseudoQuery, by_vectors, by_words, pseudo_queries
from ml.search import Document

Connection = psycopg.Connection[Any]
MOST_QUERIES = 2_000
# A fall of the mean reciprocal rank that is more than a tie broken otherwise.
TOLERANCE = 0.02
FALSE_DISCOVERIES = 0.05
PRIOR_CLICKS = 5.0


@dataclass(frozen=True)
class Clicks:
    """Clicks on a product, and those that its places in the lists let expect, with either description."""

    clicked: int
    expected: float
    clicked_before: int
    expected_before: float

    @property
    def reward(self) -> float:
        """Return the log-ratio of the two rates, shrunken towards 0."""
        after = (self.clicked + PRIOR_CLICKS) / (self.expected + PRIOR_CLICKS)
        return math.log(after * (self.expected_before + PRIOR_CLICKS) / (self.clicked_before + PRIOR_CLICKS))

    @property
    def p_worse(self) -> float:
        """Return the probability of so few clicks if the text makes no difference (exact, conditional binomial)."""
        from scipy.stats import binomtest

        total = self.clicked + self.clicked_before
        if not total or not self.expected or not self.expected_before:
            return 1.0
        share = self.expected / (self.expected + self.expected_before)
        return float(binomtest(self.clicked, total, share, alternative="less").pvalue)


def read_clicks(connection: Connection, shop: str) -> dict[str, Clicks]:
    """Return the clicks of every product that was shown with both descriptions, from the exposure log."""
    rows = connection.execute(
        "with usual as (select surface, position, avg(is_clicked::int)::float8 as rate from marts.fct_impressions"
        " where shop = %(shop)s group by surface, position),"
        " told as (select i.item_id, exists (select from ops.refinement as r where r.shop = i.shop"
        " and r.item_id = i.item_id and i.release_id = any(r.releases)) as is_refined, i.is_clicked, u.rate"
        " from marts.fct_impressions as i inner join usual as u using (surface, position) where i.shop = %(shop)s"
        " and exists (select from ops.refinement as r where r.shop = i.shop and r.item_id = i.item_id"
        " and r.releases <> '{}'))"
        " select item_id, count(*) filter (where is_refined and is_clicked),"
        " coalesce(sum(rate) filter (where is_refined), 0), count(*) filter (where not is_refined and is_clicked),"
        " coalesce(sum(rate) filter (where not is_refined), 0) from told group by item_id"
        " having bool_or(is_refined) and bool_or(not is_refined) order by item_id",
        {"shop": shop},
    ).fetchall()
    return {str(item): Clicks(*counts) for item, *counts in rows}


def fewer_clicks(clicks: Mapping[str, Clicks]) -> set[str]:
    """Return the products whose new text is clicked less, with confidence (Benjamini and Hochberg, 1995)."""
    ordered = sorted((one.p_worse, item) for item, one in clicks.items())
    passed = [n for n, (p, _) in enumerate(ordered, 1) if p <= FALSE_DISCOVERIES * n / len(ordered)]
    return {item for _, item in ordered[: max(passed, default=0)]}


def read_queries(connection: Connection, shop: str, *, held_out: bool) -> list[tuple[str, str]]:
    """Return searches and what was chosen in them: a fifth by the hash of the words is held out, the rest teaches."""
    return connection.execute(
        "select distinct lower(btrim(s.query_text)), e.item_id from marts.fct_searches as s"
        " inner join marts.fct_interactions as e on e.shop = s.shop and e.query_id = s.query_id and e.strength > 0"
        " where s.shop = %s and btrim(s.query_text) <> ''"
        " and (get_byte(sha256(convert_to(lower(btrim(s.query_text)), 'UTF8')), 0) %% 5 = 0) = %s order by 1, 2",
        [shop, held_out],
    ).fetchall()


def measure(
    products: Sequence[Product],
    texts: Mapping[str, str],
    asked: Sequence[tuple[str, str]],
    vectors: NDArray[np.float32],
    new_vectors: Mapping[str, NDArray[np.float32]],
    encode: Callable[[Sequence[str]], NDArray[np.float32]],
) -> dict[str, dict[str, float]]:
    """Return what each new text does to its product's mean reciprocal rank, all others keeping theirs.

    Args:
        products: The catalogue.
        texts: New text by product.
        asked: Held-out searches: words, and the product that was chosen.
        vectors: float32 (n, d), the catalogue's; a row of zeros where there is none.
        new_vectors: Those of the new texts.
        encode: Queries to vectors.

    Returns:
        By product: queries, is_real, and words_before, words_after, vector_before, vector_after. A product without a
        real query is asked for by what its title, categories and attributes say; one without even that is left out.
    """
    place = {product.item_id: number for number, product in enumerate(products)}
    queries: dict[str, list[str]] = defaultdict(list)
    for words, item in asked:
        if item in texts and item in place and len(queries[item]) < 5:
            queries[item].append(words)
    real = {item for item, found in queries.items() if found}
    known = [_structured(product) for product in products]
    references = {place[item]: known[place[item]] for item in sorted(texts) if item in place and item not in real}
    for query in pseudo_queries(references, known):
        queries[products[query.product].item_id].append(query.text)
    # The first query of each product, then the second of each: none goes unmeasured.
    in_turns = sorted((nth, item, words) for item, asking in queries.items() for nth, words in enumerate(asking))
    flat = [PseudoQuery(words, place[item]) for _, item, words in in_turns[: max(MOST_QUERIES, len(queries))]]
    if not flat:
        return {}
    before = [_document(product) for product in products]
    after = [_document(replace(p, description=texts.get(p.item_id, p.description))) for p in products]
    moved = vectors.copy()
    for item, vector in new_vectors.items():
        if item in place:
            moved[place[item]] = vector
    asking, owners = encode([query.text for query in flat]), [query.product for query in flat]
    columns = {
        "words_before": by_words(flat, before)[:, 1],
        "words_after": by_words(flat, after)[:, 1],
        "vector_before": by_vectors(asking, owners, vectors)[:, 1],
        "vector_after": by_vectors(asking, owners, moved)[:, 1],
    }
    found = {}
    for owner in sorted(set(owners)):
        own = np.array(owners) == owner
        item = products[owner].item_id
        found[item] = {"queries": float(own.sum()), "is_real": float(item in real)} | {
            name: round(float(values[own].mean()), 5) for name, values in columns.items()
        }
    return found


def hurts(effect: Mapping[str, float]) -> bool:
    """Tell whether a text costs its product rank by words."""
    return effect["words_after"] < effect["words_before"] - TOLERANCE


def helps_vector(effect: Mapping[str, float] | None) -> bool:
    """Tell whether the vector of a text may stand for its product: measured, and not worse."""
    return effect is not None and effect["vector_after"] >= effect["vector_before"]


def _structured(product: Product) -> str:
    return " ".join([product.title, *product.categories, product.brand, *(value for _, value in product.attributes)])


def _document(product: Product) -> Document:
    return Document(product.title, product.description, product.brand, product.categories)
