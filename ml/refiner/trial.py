"""The refiner against plainer texts, and against itself without its adversary, on products that it never saw.

Products are cut by the hash of their ids: what the generator and its discriminator learn from, what chooses between
arms and temperatures, and what is reported, once. Every composed arm draws the same number of texts and takes one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.refiner.arms import Arms, described, real_texts
from ml.refiner.corpus import join
from ml.refiner.degrade import degrade
from ml.refiner.fitting import Composer, RefinerSettings, fit_composer, good_texts
from ml.refiner.ground import compose, ground
from ml.refiner.judge import LEAST_PRODUCTS, Judgement, draw, judge
from ml.refiner.measure import CharacterModel, bleu4, distinct, self_bleu
from ml.refiner.phrasebook import Phrasebook
from ml.refiner.planted import planted
from ml.refiner.product import Product
from ml.refiner.quality import TextQuality, select_poor
from ml.refiner.refiner import Refiner
from ml.refiner.retrieval import by_words, pseudo_queries
from ml.refiner.support import check
from ml.search.lexicon import Document

log = logging.getLogger(__name__)
LEARNED, VALIDATION = 0.5, 0.15
PLAIN = ("original", "title + attributes", "template")
PUBLISHED = "published"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TrialSettings:
    """How much is measured.

    Attributes:
        refiner: How much is trained.
        samples: Texts that each composed arm draws of a product.
        most: The most test products.
        checked: The most of them whose texts are checked word by word.
        compared: Texts that self-BLEU compares.
        poor: The most poor descriptions that are refined.
        planted: The most published texts that false claims are planted into.
    """

    refiner: RefinerSettings = field(default_factory=RefinerSettings)
    samples: int = 6
    most: int = 400
    checked: int = 150
    compared: int = 20
    poor: int = 200
    planted: int = 80


@dataclass(frozen=True)
class Measured:
    """An arm on the test products.

    Attributes:
        network: What the fresh network made of it.
        ngrams: What the n-gram judge made of it.
        figures: `unsupported`, `precision`, `coverage`, `distinct_1`, `distinct_2`, `self_bleu`, `perplexity`, `bleu4`.
    """

    network: Judgement
    ngrams: Judgement
    figures: dict[str, float]


@dataclass(frozen=True)
class Trial:
    """What one seed gave.

    Attributes:
        sizes: Products learned from, validated and tested on.
        arms: By name.
        curves: By arm and temperature: the judgement, `distinct_2` and `self_bleu`.
        validation: AUC of each arm and temperature on the validation products.
        gan: The arm that validation chose among those that a discriminator had a part in.
        temperature: That validation chose, of all arms that are drawn.
        retrieval: By arm, float64 (queries,) nDCG@10 of touched products, in one order.
        untouched: The same of products whose texts stay.
        published: `asked`, `published`, reasons, and `unsupported`, `coverage`, `precision` of published texts.
        poor: The same of the data's own poor descriptions.
        planted: By kind, how many false claims were planted and caught.
        report: Of the training.
    """

    sizes: dict[str, int]
    arms: dict[str, Measured]
    curves: dict[str, dict[float, tuple[Judgement, float, float]]]
    validation: dict[str, dict[float, float]]
    gan: str
    temperature: float
    retrieval: dict[str, Floats]
    untouched: dict[str, Floats]
    published: dict[str, Any]
    poor: dict[str, Any]
    planted: dict[str, tuple[int, int]]
    report: dict[str, Any]


def cut(products: Sequence[Product]) -> tuple[list[Product], list[Product], list[Product]]:
    """Return products with good descriptions to learn from, to validate and to test on; each text once."""
    parts: tuple[list[Product], list[Product], list[Product]] = ([], [], [])
    for product in good_texts(products):
        place = draw(product.item_id, "trial")
        parts[(place >= LEARNED) + (place >= LEARNED + VALIDATION)].append(product)
    return parts


def run_trial(products: Sequence[Product], seed: int, settings: TrialSettings | None = None) -> Trial:
    """Train and measure on one catalogue.

    Args:
        products: All of it; poor descriptions are not learned from.
        seed: Of the training and everything drawn; the test products are always the same.
        settings: How much is trained and measured.

    Raises:
        ValueError: The catalogue has too few good descriptions.
    """
    settings = settings or TrialSettings()
    learned, validation, test = cut(products)
    test = sorted(test, key=lambda product: draw(product.item_id, "most"))[: settings.most]
    validation = validation[: settings.most]
    if min(len(validation), len(test)) < LEAST_PRODUCTS:
        raise ValueError(f"{len(validation)} and {len(test)} good descriptions are too few to choose and to test on")
    log.info(
        "seed %d: %d to learn from, %d to choose by, %d to test on", seed, len(learned), len(validation), len(test)
    )
    composer = fit_composer(learned, settings.refiner, seed)
    arms = Arms(composer, settings.samples, settings.compared, seed)
    scored = arms.validate(validation)
    gan, temperature = min(
        ((name, t) for name, aucs in scored.items() for t in aucs), key=lambda each: abs(scored[each[0]][each[1]] - 0.5)
    )
    log.info("seed %d: validation chose %s at temperature %s", seed, gan, temperature)
    texts, curves = arms.draw_test(test, gan, temperature)
    spoilt, _ = degrade(test, seed=seed)
    refiner = _refiner(composer, products, learned, settings.refiner)
    texts |= _plain_texts(spoilt, Phrasebook.learn(learned))
    refined = refiner.refine(spoilt, seed=seed)
    texts[PUBLISHED] = [one.text or product.description for one, product in zip(refined, spoilt, strict=True)]
    known = {name: points[temperature][0] for name, points in curves.items()}
    measured = _measure(texts, known, spoilt, test, validation, composer, settings, seed)
    touched, untouched = _search(products, test, texts, gan, seed)
    new = [(product, one.text) for product, one in zip(spoilt, refined, strict=True) if one.text]
    return Trial(
        {"learned": len(learned), "validation": len(validation), "test": len(test), "catalogue": len(products)},
        measured,
        curves,
        scored,
        gan,
        temperature,
        touched,
        untouched,
        _outcome(refined, spoilt),
        _own_poor(refiner, products, settings, seed),
        plant(new[: settings.planted], seed),
        composer.report,
    )


def _refiner(
    composer: Composer, products: Sequence[Product], learned: Sequence[Product], settings: RefinerSettings
) -> Refiner:
    """Return the pipeline's refiner around a composer; nothing in it has read the descriptions of other good texts."""
    kept = {product.item_id for product in good_texts(products)} - composer.seen
    known = [product for product in products if product.item_id not in kept]
    selector = composer.generators["mle"]
    book, quality = Phrasebook.learn(learned), TextQuality.fit(known)
    return Refiner(settings, "mle", composer.report, composer.bank, book, quality, selector, composer.ensemble)


def _plain_texts(spoilt: Sequence[Product], book: Phrasebook) -> dict[str, list[str]]:
    """Return the arms that learn nothing: the original, title and attributes, and the facts in fixed phrases."""
    attributes, templates = [], []
    for product in spoilt:
        values = ", ".join(value for _, value in product.attributes)
        attributes.append(join(filter(None, (product.title, product.brand, *product.categories, values))))
        bare = Product(product.item_id, product.title, "", product.brand, product.categories, product.attributes, ())
        templates.append(compose(ground(bare, book)) or product.title)
    return dict(zip(PLAIN, ([product.description for product in spoilt], attributes, templates), strict=True))


def _measure(
    texts: dict[str, list[str]],
    known: dict[str, Judgement],
    spoilt: Sequence[Product],
    test: Sequence[Product],
    apart: Sequence[Product],
    composer: Composer,
    settings: TrialSettings,
    seed: int,
) -> dict[str, Measured]:
    """Judge and check every arm."""
    real, ids = real_texts(test), [product.item_id for product in test]
    model = CharacterModel([product.description for product in apart])
    checked = {name: Counter[str]() for name in texts}
    n = min(len(test), settings.checked)
    for place in range(n):
        # Product by product: what is read of one serves all arms.
        for name, said in texts.items():
            support = check(said[place], spoilt[place])
            checked[name].update(
                {"lies": int(bool(support.unsupported)), "wrong": len(support.unsupported), "words": support.words}
            )
            checked[name]["coverage"] += support.coverage  # type: ignore[assignment]
    arms = {}
    for name, said in texts.items():
        made, counts = described(test, said), checked[name]
        figures = {
            "unsupported": counts["lies"] / n,
            "precision": 1 - counts["wrong"] / max(1, counts["words"]),
            "coverage": counts["coverage"] / n,
            "distinct_1": distinct(said, 1),
            "distinct_2": distinct(said, 2),
            "self_bleu": self_bleu(said, most=settings.compared),
            "perplexity": model.perplexity(said),
            "bleu4": bleu4(said, [product.description for product in test]),
        }
        network = known.get(name) or judge(real, made, ids, composer.seen, seed)
        arms[name] = Measured(network, judge(real, made, ids, composer.seen, seed, "ngrams"), figures)
    return arms


def _search(
    products: Sequence[Product], test: Sequence[Product], texts: dict[str, list[str]], gan: str, seed: int
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return nDCG@10 of queries from true descriptions under each arm: of the touched products, and of the others."""
    place = {product.item_id: at for at, product in enumerate(products)}
    whole = [" ".join((product.title, product.description)) for product in products]
    touched = {place[product.item_id]: product.description for product in test}
    others = {
        at: product.description
        for product in good_texts(products)
        if (at := place[product.item_id]) not in touched and draw(product.item_id, "others") < 0.3
    }
    queries = [pseudo_queries(asked, whole, seed=seed) for asked in (touched, others)]
    found: tuple[dict[str, Floats], dict[str, Floats]] = ({}, {})
    true = [product.description for product in test]
    arms = {name: texts[name] for name in (*PLAIN, "MLE", "MLE, coverage", gan, PUBLISHED)} | {"true text": true}
    for name, said in arms.items():
        new = dict(zip((product.item_id for product in test), said, strict=True))
        documents = [
            Document(product.title, new.get(product.item_id, product.description), product.brand, product.categories)
            for product in products
        ]
        for gains, asked in zip(found, queries, strict=True):
            gains[name] = by_words(asked, documents)[:, 0]
    return found


def _outcome(refined: Sequence[Any], products: Sequence[Product]) -> dict[str, Any]:
    """Return how many products got a text, why others did not, and what the checker finds in the texts."""
    new = [(product, one.text) for product, one in zip(products, refined, strict=True) if one.text]
    found = [check(text, product) for product, text in new]
    words = sum(support.words for support in found)
    return {
        "asked": len(products),
        "published": len(new),
        "reasons": dict(Counter(one.reason for one in refined if not one.text).most_common()),
        "unsupported": sum(bool(support.unsupported) for support in found),
        "precision": 1 - sum(len(support.unsupported) for support in found) / max(1, words),
        "coverage": float(np.mean([support.coverage for support in found])) if found else 0.0,
    }


def _own_poor(refiner: Refiner, products: Sequence[Product], settings: TrialSettings, seed: int) -> dict[str, Any]:
    """Refine the data's own poor descriptions."""
    assessed = {one.item_id: one for one in TextQuality.fit(products).assess(products)}
    ids = set(select_poor(list(assessed.values()), below=0.5)) | {i for i, one in assessed.items() if one.flags}
    poor = sorted((product for product in products if product.item_id in ids), key=lambda p: draw(p.item_id, "poor"))
    poor = poor[: settings.poor]
    return _outcome(refiner.refine(poor, seed=seed), poor) | {"found": len(ids)}


def plant(texts: Sequence[tuple[Product, str]], seed: int) -> dict[str, tuple[int, int]]:
    """Plant false claims into true texts; return by kind how many there were, and how many the checker caught."""
    chance = np.random.default_rng([seed, 5])
    were, caught = Counter[str](), Counter[str]()
    for product, text in texts:
        for kind, false in planted(product, text, chance):
            were[kind] += 1
            caught[kind] += bool(check(false, product).unsupported)
    return {kind: (count, caught[kind]) for kind, count in sorted(were.items())}
