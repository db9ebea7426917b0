"""Refining a shop's descriptions: find the poor ones, train, generate, settle which new texts are in force.

Whatever fails on the way keeps the originals, with the reason in the ledger: no text is worth a red run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from ml.encoder import load_encoder
from ml.refiner import Product, Refiner, RefinerSettings
from ml.refiner.quality import Assessment, TextQuality, select_poor
from ml.refiner.verdict import verify
from souk import refinement_ledger as ledger
from souk.postgres import connect
from souk.refinement_catalogue import read_catalogue
from souk.refinement_effect import fewer_clicks, helps_vector, hurts, measure, read_clicks, read_queries
from souk.refinement_generator import find_base, train_refiner
from souk.refinement_vectors import move
from souk.settings import Settings
from spark_jobs.refine_descriptions import POOR, RefineReport, from_json, refine_descriptions, to_json

log = logging.getLogger(__name__)
# Fewer distinct ones among this many texts: the generator says the same of everything.
COLLAPSED = (10, 0.5)
SEED = 0
# Vectors of products that keep their text.
MOVED = "moved.parquet"
# Without a flag, a text is poor only where the judge holds it for more likely poor than good.
DOUBTFUL = 0.5
IN_FORCE = pa.schema(
    [
        ("item_id", pa.string()),
        ("text_hash", pa.string()),
        ("text", pa.string()),
        ("original", pa.string()),
        ("product", pa.string()),
        ("is_in_vector", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Place:
    """Where the refiner's files of a shop and release lie."""

    shop: Path
    release: str

    @property
    def poor(self) -> Path:
        """Return the file of poor descriptions."""
        return self.shop / "refiner" / "poor.parquet"

    @property
    def results(self) -> Path:
        """Return the data set of generated texts."""
        return self.shop / "refinements"

    @property
    def settled(self) -> Path:
        """Return the folder of the texts in force in the release."""
        return self.shop / "refined" / self.release


def is_settled(dsn: str, place: Place, run_id: str) -> bool:
    """Tell whether the texts of this release are decided and have passed their gate."""
    with closing(connect(dsn)) as connection:
        row = connection.execute(
            "select is_passed from ops.gate_result where shop = %s and run_id = %s and gate = 'refined'",
            [place.shop.name, run_id],
        ).fetchone()
    return bool(row and row[0]) and (place.settled / "manifest.json").exists()


def fit(
    products: Sequence[Product],
    hashes: Mapping[str, str],
    place: Place,
    settings: Settings,
    share: float,
    below: float,
    rewards: Mapping[str, float],
) -> dict[str, Any]:
    """Find the poor descriptions and train on the good ones, unless the same was trained before.

    Returns:
        folder and version of the refiner, or the reason why there is none; how many descriptions are poor.

    Raises:
        SoukError: The language model of the settings cannot be used.
    """
    find_base(settings.refiner_generator)
    reason, version, folder = "", None, None
    try:
        poor = _poor(products, share, below)
    except ValueError as error:
        log.warning("no refiner: %s", error)
        empty = [p.item_id for p in products if not p.description.strip()][: int(share * len(products))]
        poor, reason = [Assessment(item, 0.0, ("missing",)) for item in empty], "too_few_good_texts"
    by_id = {product.item_id: product for product in products}
    rows = [{"item_id": p.item_id, "text_hash": hashes[p.item_id], "product": to_json(by_id[p.item_id]),
             "quality": p.score, "flags": list(p.flags)} for p in poor]  # fmt: skip
    schema = POOR.append(pa.field("quality", pa.float64())).append(pa.field("flags", pa.list_(pa.string())))
    place.poor.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), place.poor)
    if rows and not reason:
        steps = settings.refiner_steps
        options = RefinerSettings()
        if steps:
            options = replace(options, mle_steps=steps, adversarial_steps=steps, discriminator_steps=steps)
        ids = {one.item_id for one in poor}
        good = [product for product in products if product.item_id not in ids]
        made_of = [
            asdict(options),
            settings.refiner_generator,
            SEED,
            sorted(rewards.items()),
            [to_json(product) for product in good],
        ]
        folder = place.poor.parent / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
        try:
            refiner = _load(folder) or _fit(good, options, rewards, settings, folder)
            version = refiner.version
            log.info("refiner %s: arm %s", version, refiner.arm)
        except (ValueError, RuntimeError, ArithmeticError, LookupError) as error:
            log.warning("no refiner: %s", error)
            reason = "too_few_good_texts" if isinstance(error, ValueError) else "training_failed"
    return {"version": version, "folder": str(folder), "reason": reason, "poor": len(rows)}


def settle(
    dsn: str,
    settings: Settings,
    place: Place,
    stage: Mapping[str, Any],
    fitted: Mapping[str, Any],
    generated: RefineReport | None,
    refused: str,
) -> dict[str, int]:
    """Decide which texts are in force, keep the ledger, encode them, and write the files that training reads.

    Args:
        dsn: The database.
        settings: Where vectors and models lie.
        place: The files.
        stage: `shop`, `release_id`, `encoder`.
        fitted: What `fit` returned.
        generated: What was generated; None if there was no refiner.
        refused: A reason that keeps all originals: that of `fit`, or that a person declined.

    Returns:
        Rows: `catalogue`, `ledger`, `refined`, `moved`.
    """
    shop, release = stage["shop"], stage["release_id"]
    products, _ = read_catalogue(dsn, shop)
    poor = {row["item_id"]: row for row in pq.read_table(place.poor).to_pylist()}
    results = pq.read_table(place.results / "part-0.parquet").to_pylist() if generated else []
    made = {row["item_id"]: row for row in results if row["item_id"] in poor}
    refused = refused or _collapse([row["text"] for row in made.values() if row["text"]])
    with closing(connect(dsn, autocommit=True)) as connection:
        bars = ledger.barred(connection, shop)
        fewer = fewer_clicks(read_clicks(connection, shop))
        asked = read_queries(connection, shop, held_out=True)
    rows = [_row(row, made.get(item), fitted["version"] or "none", refused, bars, fewer) for item, row in poor.items()]
    for row in rows:
        if row["state"] == "proposed":
            fault, _ = verify(row["new_text"], from_json(poor[row["item_id"]]["product"]))
            row |= {"state": "kept_original", "reason": fault} if fault else {}
    moved: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
    left = {row["item_id"]: row for row in rows if row["state"] == "kept_original"}
    if left and not refused:
        model = load_encoder(stage["encoder"], settings.models, settings.encoder_precision)
        made_better = move(products, set(poor), sorted(left), asked, _old_vectors(place, products), model, SEED)
        moved = made_better.vectors
        for item, measured in made_better.effects.items():
            left[item] |= {"effect": {**measured, "vector": made_better.arm if item in moved else "none"}}
    open_rows = {row["item_id"]: row for row in rows if row["state"] == "proposed"}
    if open_rows:
        texts = {item: row["new_text"] for item, row in open_rows.items()}
        vectors = _encode(settings, place, products, texts, stage["encoder"])
        old = _old_vectors(place, products)
        model = load_encoder(stage["encoder"], settings.models, settings.encoder_precision)
        effects = measure(products, texts, asked, old, vectors, lambda queries: model.encode_queries(list(queries)))
        for item, row in open_rows.items():
            effect = effects.get(item)
            row["effect"] = effect or {}
            row["is_in_vector"] = item in vectors and helps_vector(effect)
            if effect and hurts(effect):
                row |= {"state": "reverted", "reason": "hurts_rank", "is_in_vector": False}
    in_force = [row for row in rows if row["state"] == "proposed"]
    with closing(connect(dsn)) as connection, connection.transaction():
        ledger.write(connection, shop, rows, release)
    counts = {"catalogue": len(products), "ledger": len(in_force), "refined": len(in_force), "moved": len(moved)}
    _write_settled(place, in_force, poor, moved, counts)
    log.info("refined: %d of %d poor descriptions, of %d", len(in_force), len(poor), len(products))
    return counts


def in_force(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of a release's texts in force, by product."""
    return {row["item_id"]: row for row in pq.read_table(folder / "texts.parquet").to_pylist()}


def _poor(products: Sequence[Product], share: float, below: float) -> list[Assessment]:
    if not share:
        return []
    assessed = {one.item_id: one for one in TextQuality.fit(products, seed=SEED).assess(products)}
    worst = select_poor(list(assessed.values()), share=share)
    # A shop of sound texts has a worst tenth, too.
    return [
        one for one in map(assessed.__getitem__, worst) if one.score < below and (one.flags or one.score < DOUBTFUL)
    ]


def _load(folder: Path) -> Refiner | None:
    """Return the refiner of a folder; one that is damaged is thrown away."""
    if not folder.exists():
        return None
    try:
        return Refiner.load(folder)
    except (OSError, ValueError, LookupError, SafetensorError) as error:
        log.warning("the refiner in %s is damaged and trained anew: %s", folder.name, error)
        shutil.rmtree(folder)
        return None


def _fit(
    good: Sequence[Product], options: RefinerSettings, rewards: Mapping[str, float], settings: Settings, folder: Path
) -> Refiner:
    refiner = train_refiner(good, options, rewards, settings, folder.parent, SEED)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    refiner.save(partial)
    partial.rename(folder)
    return refiner


def _row(
    poor: Mapping[str, Any],
    made: Mapping[str, Any] | None,
    version: str,
    refused: str,
    bars: Mapping[tuple[str, str, str], tuple[str, str]],
    fewer: set[str],
) -> dict[str, Any]:
    """Return a row of the ledger, before its effect is measured."""
    item, text_hash = poor["item_id"], poor["text_hash"]
    text = made["text"] if made else None
    state, reason = ("proposed", "") if text else ("kept_original", (made or {}).get("reason") or "not_generated")
    if text and (bar := next(filter(None, (bars.get((item, text_hash, key)) for key in ("", version, text))), None)):
        state, reason = bar
    elif refused:
        state, reason = "kept_original", refused
    elif text and item in fewer:
        state, reason = "reverted", "fewer_clicks"
    return {
        "item_id": item,
        "text_hash": text_hash,
        "model_version": version,
        "old_text": from_json(poor["product"]).description,
        "new_text": text,
        "spans": json.loads(made["spans"]) if made else [],
        "scores": {**(json.loads(made["scores"]) if made else {}), "quality": round(poor["quality"], 5)},
        "reason": reason,
        "state": state,
        "effect": {},
        "is_in_vector": False,
    }


def _collapse(texts: Sequence[str]) -> str:
    least, share = COLLAPSED
    return "collapsed" if len(texts) >= least and len(set(texts)) < share * len(texts) else ""


def _encode(
    settings: Settings, place: Place, products: Sequence[Product], texts: Mapping[str, str], encoder: str
) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Encode the new texts by the same incremental job as the old ones; return the vectors."""
    from spark_jobs.encode_items import encode_items, item_model
    from spark_jobs.session import session

    rows: list[dict[str, Any]] = []
    for product in products:
        if text := texts.get(product.item_id):
            parts = [product.title, text, product.brand, *product.categories]
            text_hash = hashlib.md5("\x1f".join(parts).encode()).hexdigest()
            known = {"item_id": product.item_id, "title": product.title, "brand": product.brand}
            rows.append({**known, "description": text, "categories": list(product.categories), "text_hash": text_hash})
    names = ("item_id", "title", "description", "brand", "categories", "text_hash")
    schema = pa.schema([(n, pa.list_(pa.string()) if n == "categories" else pa.string()) for n in names])
    items, vectors = place.shop / "refined-items.parquet", place.shop / "refined-vectors"
    pq.write_table(pa.Table.from_pylist(rows, schema), items)
    encode_items(items, vectors, item_model(settings, encoder), lambda: session("souk refine", settings))
    table = pq.read_table(sorted(vectors.glob("*.parquet")), columns=["item_id", "vector"]).to_pylist()
    return {row["item_id"]: np.array(row["vector"], np.float32) for row in table}


def _old_vectors(place: Place, products: Sequence[Product]) -> np.ndarray[Any, np.dtype[np.float32]]:
    table = pq.read_table(sorted((place.shop / "vectors").glob("*.parquet")), columns=["item_id", "vector"])
    known = dict(zip(table["item_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    nothing = [0.0] * len(next(iter(known.values())))
    return np.array([known.get(product.item_id, nothing) for product in products], np.float32)


def _write_settled(
    place: Place,
    rows: Sequence[Mapping[str, Any]],
    poor: Mapping[str, Any],
    moved: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]],
    counts: Mapping[str, int],
) -> None:
    partial = place.settled.with_name(f".{place.settled.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(place.settled, ignore_errors=True)
    partial.mkdir(parents=True)
    texts = [
        {"item_id": row["item_id"], "text_hash": row["text_hash"], "text": row["new_text"], "original": row["old_text"],
         "product": poor[row["item_id"]]["product"], "is_in_vector": row["is_in_vector"]}
        for row in sorted(rows, key=lambda row: str(row["item_id"]))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(texts, IN_FORCE), partial / "texts.parquet")
    vectors = sorted((place.shop / "refined-vectors").glob("*.parquet"))
    used = pa.array([row["item_id"] for row in texts if row["is_in_vector"]], pa.string())
    if len(used) and vectors:
        table = pq.read_table(vectors)
        pq.write_table(table.filter(pa.compute.is_in(table["item_id"], used)), partial / "vectors.parquet")
    lists = pa.array([moved[item].tolist() for item in sorted(moved)], pa.list_(pa.float32()))
    pq.write_table(pa.table({"item_id": pa.array(sorted(moved), pa.string()), "vector": lists}), partial / MOVED)
    (partial / "manifest.json").write_text(json.dumps(dict(counts)))
    partial.rename(place.settled)


def generate(settings: Settings, place: Place, fitted: Mapping[str, Any]) -> RefineReport:
    """Generate new texts for the poor descriptions, with Spark."""
    from spark_jobs.session import session

    with session("souk refine", settings) as spark:
        return refine_descriptions(
            spark, place.poor, place.results, Path(fitted["folder"]), str(fitted["version"]), SEED
        )
