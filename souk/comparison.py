"""Champion and challenger: what a candidate is against the release that readers see, on record and on one page."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg.types.json import Jsonb

from ml.champion import Comparison, Trial, compare
from souk.errors import SoukError
from souk.postgres import connect
from souk.shoppers import Connection

log = logging.getLogger(__name__)
FILE = "trial.parquet"
PAGE = "comparison.png"
TIMED_SHOPPERS = 30
K = 10


def trial_key(user_key: str, item_id: str) -> int:
    """Return the name of a shopper and a product in trials: neither is spelled out, but who has both can make it."""
    digest = hashlib.sha256(f"{user_key}\0{item_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def write_trial(folder: Path, trial: Trial) -> None:
    """Write a trial beside the files of its release."""
    columns = {"key": trial.keys, "ndcg": trial.ndcg, "recall": trial.recall}
    facts = {"coverage": repr(trial.coverage), "popularity": repr(trial.popularity)}
    pq.write_table(pa.table(columns).replace_schema_metadata(facts), folder / FILE)


def read_trial(folder: Path) -> Trial | None:
    """Return the trial of a release; None if it was made before there were trials."""
    if not (folder / FILE).exists():
        return None
    table = pq.read_table(folder / FILE)
    facts = table.schema.metadata
    keys, ndcg, recall = (table[name].to_numpy() for name in ("key", "ndcg", "recall"))
    return Trial(keys, ndcg, recall, float(facts[b"coverage"]), float(facts[b"popularity"]))


def compare_with_champion(dsn: str, folder: Path, stage: Mapping[str, Any], accept_worse: bool = False) -> str:
    """Compare a loaded candidate with the release that is shown, keep the result and draw it.

    Args:
        dsn: The database, with both releases.
        folder: Where the shop's releases lie.
        stage: `shop`, `release_id` and `is_generated` of the candidate.
        accept_worse: Let a worse candidate pass; the record says so.

    Returns:
        The verdict, in one sentence.

    Raises:
        SoukError: The candidate is worse.
    """
    name = stage["release_id"]
    challenger = read_trial(folder / name)
    with closing(connect(dsn, autocommit=True)) as connection:
        if challenger is not None:
            connection.execute(
                "update serving.release set trial = %s where release_id = %s", [Jsonb(summary(challenger)), name]
            )
        shown = connection.execute("select release_id from serving.pointer where shop = %s", [stage["shop"]]).fetchone()
        if not shown or shown[0] == name:
            return "Passed: there is no other release to compare with"
        champion = read_trial(folder / shown[0])
        if champion is None or challenger is None:
            return f"Passed: {shown[0] if champion is None else name} was not tried, so there is nothing to compare"
        times = _median_times(connection, stage["shop"], [shown[0], name])
        outcome = compare(champion, challenger, times[0], times[1])
        verdict = _sentence(outcome, shown[0], accept_worse)
        is_passed = accept_worse or not outcome.faults
        figures = {
            "champion": {**summary(champion), "median_ms": times[0]},
            "challenger": {**summary(challenger), "median_ms": times[1]},
            "difference": {
                "shoppers": outcome.shoppers,
                "is_paired": outcome.is_paired,
                "low": outcome.low,
                "high": outcome.high,
            },
        }
        connection.execute(
            "insert into ops.comparison (release_id, champion_id, is_passed, verdict, figures)"
            " values (%s, %s, %s, %s, %s) on conflict (release_id, champion_id) do update set"
            " is_passed = excluded.is_passed, verdict = excluded.verdict, figures = excluded.figures,"
            " decided_at = now()",
            [name, shown[0], is_passed, verdict, Jsonb(figures)],
        )
    draw(folder / name / PAGE, (shown[0], champion, times[0]), (name, challenger, times[1]), outcome, stage)
    log.info("%s; drawn in %s", verdict, folder / name / PAGE)
    if not is_passed:
        raise SoukError(
            verdict,
            f"Release {shown[0]} keeps serving. Correct the data, or run again with the parameter accept_worse"
            " (souk run --accept-worse).",
        )
    return verdict


def summary(trial: Trial) -> dict[str, float | int]:
    """Return the figures of a trial."""
    if not len(trial.keys):
        return {"shoppers": 0}
    return {
        "shoppers": len(trial.keys),
        "ndcg@10": round(float(trial.ndcg.mean()), 5),
        "recall@10": round(float(trial.recall.mean()), 5),
        "coverage": round(trial.coverage, 5),
        "popularity": round(trial.popularity, 5),
    }


def draw(
    page: Path,
    champion: tuple[str, Trial, float],
    challenger: tuple[str, Trial, float],
    outcome: Comparison,
    stage: Mapping[str, Any],
) -> None:
    """Draw what was compared as one page of plots (PNG)."""
    from matplotlib.figure import Figure

    both = (champion, challenger)
    names = ["champion", "challenger"]
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(
        f"{challenger[0]} after {champion[0]}{' (generated data)' if stage['is_generated'] else ''}", fontsize=11
    )
    quality, difference, guard, speed = figure.subplots(2, 2).ravel()
    for place, (_, trial, _) in enumerate(both):
        error = 1.96 * trial.ndcg.std() / max(len(trial.ndcg), 1) ** 0.5 if len(trial.ndcg) else 0.0
        quality.bar(place, trial.ndcg.mean() if len(trial.ndcg) else 0.0, yerr=error, capsize=6, color=f"C{place}")
    quality.set_xticks([0, 1], names)
    quality.set_title("NDCG@10 of what was held out, 95 %")
    difference.plot([outcome.low, outcome.high], [0, 0], marker="|", markersize=12)
    difference.plot(outcome.challenger - outcome.champion, 0, marker="o", color="C0")
    difference.axvline(0, color="grey", linewidth=1)
    difference.set_yticks([])
    kind = "the same shoppers" if outcome.is_paired else "shoppers of their own"
    difference.set_title(f"challenger − champion, {outcome.shoppers:,} shoppers ({kind})")
    for place, (_, trial, _) in enumerate(both):
        guard.bar(np.arange(2) + 0.4 * place, [trial.coverage, trial.popularity], width=0.4, label=names[place])
    guard.set_xticks(np.arange(2) + 0.2, ["catalogue listed", "places of the popular fifth"])
    guard.set_ylim(0, 1)
    guard.legend()
    guard.set_title("guard-rails")
    speed.bar([0, 1], [champion[2], challenger[2]], color=["C0", "C1"])
    speed.set_xticks([0, 1], names)
    speed.set_title("median ms of a list")
    figure.savefig(page, dpi=100)


def _sentence(outcome: Comparison, champion: str, accept_worse: bool) -> str:
    if outcome.faults:
        return f"{'Accepted although it' if accept_worse else 'Blocked: it'} {'; '.join(outcome.faults)}"
    return (
        f"Passed: NDCG@10 {outcome.challenger:.4f} after {outcome.champion:.4f} of {champion}"
        f" (difference {outcome.low:.4f} to {outcome.high:.4f}, {outcome.shoppers:,} shoppers)"
    )


def _median_times(connection: Connection, shop: str, releases: Sequence[str]) -> list[float]:
    """Return the median time of a list from each release in milliseconds, in turns for the same shoppers."""
    users = connection.execute(
        "select p.user_key from serving.user_profile as p where p.release_id = %s order by md5(p.user_key) limit %s",
        [releases[0], TIMED_SHOPPERS],
    ).fetchall()
    spent: dict[str, list[float]] = {release: [] for release in releases}
    for (user,) in [*users[:5], *users]:  # the first ones warm up
        for release in releases:
            start = time.perf_counter()
            connection.execute(
                "select r.* from internal.shopper(%(shop)s, %(release)s, %(user)s) as s cross join lateral"
                " internal.recommend_rows(%(release)s, %(user)s, s.history, s.seen, s.disliked, %(k)s, '{}', 0.1, 0.1,"
                " null) as r",
                {"shop": shop, "release": release, "user": user, "k": K},
            ).fetchall()
            spent[release].append(1000 * (time.perf_counter() - start))
    return [round(float(np.median(spent[release][5:])), 2) if spent[release][5:] else 0.0 for release in releases]
