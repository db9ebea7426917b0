"""The stages of the recommendations run, as its DAG calls them.

Each takes and returns a small JSON object: names, counts and hashes, never rows. A run is named by the release that it
makes, and the release by what it is made from: the shop's landings, the encoder and the recipe.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from souk import landing, refinement_ledger, release
from souk.comparison import compare_with_champion
from souk.errors import SoukError
from souk.landing_live import land_live
from souk.postgres import connect, connect_server
from souk.settings import Settings
from souk.sources import open_dataset
from sql.migrate import MigrationError, migrate

Stage = dict[str, Any]
# Part of a release's name: raise it with any change to training or to what is served.
RECIPE = 5
# Params of refining and their defaults, as in the DAG.
REFINE: Stage = {"refine": True, "refine_share": 0.1, "refine_below": 1.0, "approve_above": 0.2}


def database(settings: Settings) -> str:
    """Return the DSN of the souk database, started and migrated.

    Raises:
        SoukError: The server cannot be used, or a migration was edited.
    """
    dsn = connect_server(settings)
    try:
        migrate(dsn)
    except MigrationError as error:
        raise SoukError(str(error), "Restore the migration file.") from None
    except psycopg.Error as error:
        raise SoukError(f"Migration failed: {error}", "Check the rights of the login: docs/own-postgres.md.") from error
    return dsn


def land(params: Stage) -> Stage:
    """Land the input, and the events that applications logged; name the run."""
    settings = Settings.from_env()
    dsn = database(settings)
    path = Path(params["path"]) if params.get("path") else None
    dataset = open_dataset(
        params["source"], path, float(params.get("scale") or 1), int(params.get("seed") or 0), settings.home
    )
    landed = landing.land(dsn, settings, dataset)
    land_live(dsn, landed.shop)
    encoder = params.get("model") or settings.encoder
    with closing(connect(dsn)) as connection:
        landings = connection.execute(
            # Lists that were only looked at change nothing that is served.
            "select manifest_hash from raw.landing where shop = %s and state = 'complete' and not (source = 'live'"
            " and coalesce((row_counts ->> 'product')::int, 0) + coalesce((row_counts ->> 'event')::int, 0) = 0)"
            " order by landing_no",
            [landed.shop],
        ).fetchall()
        counted = connection.execute(
            "select max(watermark), bool_or(is_generated), bool_and(has_clock), max(landing_no) from raw.landing"
            " where shop = %s and state = 'complete'",
            [landed.shop],
        ).fetchone()
        decisions = refinement_ledger.decisions_hash(connection, landed.shop)
    watermark, is_generated, has_clock, landing_no = counted or (None, False, True, None)
    refine = {name: params.get(name, default) for name, default in REFINE.items()}
    parts = [RECIPE, encoder, settings.encoder_precision, settings.encoder_max_tokens, *(row[0] for row in landings)]
    parts += [refine, settings.refiner_steps, settings.refiner_generator, decisions] if refine["refine"] else []
    content_hash = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return {
        "shop": landed.shop,
        "run_id": f"{landed.shop}-{content_hash[:12]}",
        "release_id": f"{landed.shop}-{content_hash[:12]}",
        "content_hash": content_hash,
        "landing_no": landing_no,
        "interval_end": watermark.isoformat() if isinstance(watermark, datetime) else None,
        "encoder": encoder,
        "is_generated": bool(is_generated),
        "has_clock": bool(has_clock),
        "rows": (rows := landing.count_rows(dsn, landed.shop)),
        "events": rows["event"],
        "rejected": landed.rejected,
        "is_new": landed.is_new,
        "accept_worse": bool(params.get("accept_worse")),
        **refine,
    }


def build_profiles(landed: Stage) -> Stage:
    """Build the marts with dbt, and hand the products to the lake."""
    from souk.profiles import build_profiles as build

    settings = Settings.from_env()
    dsn = database(settings)
    report = build(dsn, settings, landed["shop"])
    with closing(connect(dsn)) as connection:
        rows = connection.execute(
            "select item_id, title, description, brand, categories, text_hash from marts.dim_items"
            " where shop = %s order by item_id",
            [landed["shop"]],
        ).fetchall()
    names = ("item_id", "title", "description", "brand", "categories", "text_hash")
    schema = pa.schema([(n, pa.list_(pa.string()) if n == "categories" else pa.string()) for n in names])
    target = settings.lake / landed["shop"] / "items.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema), partial)
    partial.replace(target)
    return {**_names(landed), "rows": report.rows, "models": report.models, "tests": report.tests}


def encode(landed: Stage) -> Stage:
    """Encode the descriptions that changed: many of them with Spark."""
    from spark_jobs.encode_items import encode_items, item_model
    from spark_jobs.session import session

    settings = Settings.from_env()
    folder = settings.lake / landed["shop"]
    model = item_model(settings, landed["encoder"])
    report = encode_items(folder / "items.parquet", folder / "vectors", model, lambda: session("souk encode", settings))
    return {
        **_names(landed),
        "rows": {"vectors": report.rows},
        "encoded": report.encoded,
        "reused": report.reused,
        "quarantined": len(report.quarantined),
    }


def fit_refiner(landed: Stage) -> Stage:
    """Find the poor descriptions and train the refiner on the good ones."""
    from souk import refinement
    from souk.refinement_catalogue import read_catalogue
    from souk.refinement_effect import read_clicks

    settings = Settings.from_env()
    dsn = database(settings)
    place = refinement.Place(settings.lake / landed["shop"], landed["release_id"])
    if refinement.is_settled(dsn, place, landed["run_id"]):
        return {**_names(landed), "version": None, "folder": "", "reason": "settled", "poor": 0}
    if not landed["refine"]:
        share, rewards = 0.0, {}
    else:
        share = landed["refine_share"]
        with closing(connect(dsn)) as connection:
            rewards = {item: clicks.reward for item, clicks in read_clicks(connection, landed["shop"]).items()}
    products, hashes = read_catalogue(dsn, landed["shop"])
    fitted = refinement.fit(products, hashes, place, settings, share, landed["refine_below"], rewards)
    return {**_names(landed), **fitted, "catalogue": len(products)}


def generate(landed: Stage, fitted: Stage) -> Stage:
    """Generate new texts for the poor descriptions; say whether a person has to approve them."""
    from souk import refinement

    settings = Settings.from_env()
    if not fitted["version"]:
        return {**fitted, "report": None, "share": 0.0, "must_ask": False}
    place = refinement.Place(settings.lake / landed["shop"], landed["release_id"])
    report = refinement.generate(settings, place, fitted)
    share = report.refined / fitted["catalogue"]
    with closing(connect(database(settings))) as connection:
        said = refinement_ledger.answer(connection, landed["shop"], report.content_hash)
    must_ask = said is None and share > landed["approve_above"]
    question = f"{report.refined:,} descriptions, {share:.1%} of the catalogue, would change. Texts: {place.results}."
    return {**fitted, "report": asdict(report), "share": share, "must_ask": must_ask, "question": question}


def settle(landed: Stage, generated: Stage, asked: Stage | None = None) -> Stage:
    """Decide which texts are in force, with the answer of a person where one was asked."""
    from souk import refinement
    from spark_jobs.refine_descriptions import RefineReport

    settings = Settings.from_env()
    dsn = database(settings)
    place = refinement.Place(settings.lake / landed["shop"], landed["release_id"])
    if refinement.is_settled(dsn, place, landed["run_id"]):
        rows = json.loads((place.settled / "manifest.json").read_text())
    else:
        report = RefineReport(**generated["report"]) if generated["report"] else None
        refused = generated["reason"]
        if report:
            with closing(connect(dsn, autocommit=True)) as connection:
                if asked:
                    who = (asked.get("responded_by_user") or {}).get("name") or "nobody in time"
                    told = (landed["shop"], report.content_hash, generated["share"])
                    yes = asked["chosen_options"] == ["Publish"]
                    refinement_ledger.record_answer(connection, *told, yes, landed["release_id"], who)
                if refinement_ledger.answer(connection, landed["shop"], report.content_hash) is False:
                    refused = "not_approved"
        rows = refinement.settle(dsn, settings, place, landed, generated, report, refused)
    return {**_names(landed), "rows": rows, "refine_share": landed["refine_share"] if landed["refine"] else 0.0}


def train(landed: Stage) -> Stage:
    """Fit the recommender, the inverted index and the query encoder; write the release's files."""
    from souk.training import train_release

    settings = Settings.from_env()
    dsn = database(settings)
    folder = settings.lake / landed["shop"] / "releases" / landed["release_id"]
    manifest = folder / "manifest.json"
    if manifest.exists():
        counts = json.loads(manifest.read_text())
    else:
        try:
            counts = train_release(dsn, settings, landed["shop"], landed["encoder"], folder, _settled(settings, landed))
        except ValueError as error:
            raise SoukError(
                f"Training failed: {error}", "Check SOUK_ENCODER and the gate of the stage before."
            ) from error
        manifest.write_text(json.dumps(counts))
    return {**_names(landed), "rows": counts}


def load(landed: Stage, trained: Stage) -> Stage:
    """Copy the release into Postgres as a hidden candidate."""
    settings = Settings.from_env()
    dsn = database(settings)
    name = landed["release_id"]
    if release.is_kept(dsn, name):
        release.measure(dsn, name)
        return {**_names(landed), "rows": {**trained["rows"], "release": 1}, "is_new": False}
    entry = release.Release(
        release_id=name,
        shop=landed["shop"],
        content_hash=landed["content_hash"],
        interval_end=datetime.fromisoformat(landed["interval_end"]) if landed["interval_end"] else None,
        encoder=landed["encoder"],
        is_generated=landed["is_generated"],
        has_clock=landed["has_clock"],
        landing_no=landed["landing_no"],
    )
    folder = settings.lake / landed["shop"] / "releases" / name
    counts = release.load(dsn, entry, folder, trained["rows"]["events"])
    return {**_names(landed), "rows": counts, "is_new": True}


def compare(landed: Stage, loaded: Stage) -> Stage:
    """Compare the candidate with the release that readers see; a worse one goes no further."""
    settings = Settings.from_env()
    dsn = database(settings)
    folder = settings.lake / loaded["shop"] / "releases"
    verdict = compare_with_champion(dsn, folder, loaded, landed["accept_worse"])
    return {**loaded, "comparison": verdict}


def publish(loaded: Stage) -> Stage:
    """Show the audited release to readers."""
    dsn = database(Settings.from_env())
    with closing(connect(dsn)) as connection:
        passed = connection.execute(
            "select is_passed from ops.gate_result where shop = %s and run_id = %s and gate = 'candidate'",
            [loaded["shop"], loaded["run_id"]],
        ).fetchone()
    if not passed or not passed[0]:
        raise SoukError(f"Release {loaded['release_id']} has not passed its gate", "Run the gate of the publish group.")
    if not loaded.get("comparison"):
        raise SoukError(f"Release {loaded['release_id']} was not compared with what is shown", "Run that task first.")
    release.mark_audited(dsn, loaded["release_id"])
    outcome = release.publish(dsn, loaded["release_id"])
    if outcome == "refused":
        raise SoukError(
            f"Release {loaded['release_id']} ends before the one that is shown", "Land newer data, or roll back first."
        )
    refinement_ledger.mark_published(dsn, loaded["release_id"])
    return {**_names(loaded), "rows": loaded["rows"], "outcome": outcome}


def _settled(settings: Settings, landed: Stage) -> Path:
    return settings.lake / landed["shop"] / "refined" / landed["release_id"]


def _names(stage: Stage) -> Stage:
    kept = ("shop", "run_id", "release_id", "content_hash", "is_generated", "events")
    return {name: stage[name] for name in kept}
