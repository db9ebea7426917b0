"""The figures of `souk evaluate` as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

BEYOND = {
    "coverage": "coverage",
    "novelty": "bits",
    "diversity": "diverse",
    "popular_share": "popular",
    "popular_share_own": "own",
    "calibration": "KL",
}


def table(report: dict[str, Any]) -> str:
    """Return the report of `ml.evaluate.evaluate`, and what `souk.evaluation` adds to it, as text."""
    lines = [
        f"{report['data']}: {report['items']:,} items, {report['users']:,} users, {report['events']:,} events",
        report["protocol"],
        *_accuracy(report["arms"]),
        "",
        *_beyond(report["arms"]),
        "",
        *_groups(report["arms"]),
        "",
        *_by_time(report["time_split"]),
        *_extras(report),
    ]
    if "against" in report:
        lines += ["", *_against(report["against"])]
    if "through_sql" in report:
        lines += ["", _through_sql(report["through_sql"])]
    return "\n".join(lines)


def _accuracy(arms: dict[str, Any]) -> Iterator[str]:
    yield f"{'arm':12} {'val R@10':>9} {'N@10':>7} {'test R@10':>10} {'N@10':>7}  {'95 % of R@10':>18} {'train s':>8}"
    for arm, figures in arms.items():
        validation, test, (low, high) = figures.get("validation"), figures["test"], figures["ci95"]["recall@10"]
        before = f"{validation['recall@10']:9.4f} {validation['ndcg@10']:7.4f}" if validation else f"{'-':>9} {'-':>7}"
        yield (
            f"{arm:12} {before} {test['recall@10']:10.4f}"
            f" {test['ndcg@10']:7.4f}  {low:8.4f} to {high:.4f} {figures['train_seconds']:8.1f}"
        )


def _beyond(arms: dict[str, Any]) -> Iterator[str]:
    """Yield the measures beyond accuracy; the header says what each is."""
    yield "lists of ten: share of the catalogue; novelty; diversity; places of the popular fifth; its share of the"
    yield "shoppers' own; divergence of the categories from the history (0 is best)"
    yield f"{'arm':12} " + " ".join(f"{name:>9}" for name in BEYOND.values())
    for arm, figures in arms.items():
        values = (figures["beyond"].get(name) for name in BEYOND)
        yield f"{arm:12} " + " ".join(f"{'-':>9}" if value is None else f"{value:9.3f}" for value in values)


def _groups(arms: dict[str, Any]) -> Iterator[str]:
    """Yield recall and NDCG of each group of shoppers that is not empty."""
    first = next(iter(arms.values()))["groups"]
    names = [name for name, figures in first.items() if figures["users"]]
    yield "test R@10/N@10 of shoppers who took a cold item (under 5 events in training), or had so many items before"
    yield f"{'arm':12} " + " ".join(f"{name:>16}" for name in names)
    yield f"{'users':12} " + " ".join(f"{first[name]['users']:16,}" for name in names)
    for arm, figures in arms.items():
        parts = (f"{group['recall@10']:.4f}/{group['ndcg@10']:.4f}" for group in map(figures["groups"].get, names))
        yield f"{arm:12} " + " ".join(f"{part:>16}" for part in parts)


def _by_time(report: dict[str, Any]) -> Iterator[str]:
    if "skipped" in report:
        yield f"no global time split: {report['skipped']}"
        return
    moments = [datetime.fromtimestamp(report[name], UTC) for name in ("validation_from", "test_from")]
    yield report["protocol"]
    yield (
        f"validation from {moments[0]:%Y-%m-%d %H:%M} ({report['users_validation']:,} users),"
        f" test from {moments[1]:%Y-%m-%d %H:%M} ({report['users_test']:,} users)"
    )
    yield from _accuracy(report["arms"])


def _extras(report: dict[str, Any]) -> Iterator[str]:
    """Yield the spread over seeds, the refit and the ablation, where they were measured."""
    seeds = report["arms"].get("souk", {}).get("seeds")
    if seeds:
        yield ""
        parts = (
            f"{figure} {mean:.4f} ± {seeds['test']['spread'][figure]:.4f}"
            for figure, mean in seeds["test"]["mean"].items()
        )
        yield f"souk, {seeds['seeds']} seeds, test (± standard deviation): " + ", ".join(parts)
    if "refit" in report:
        yield ""
        yield f"{report['refit']['note']}"
        yield from _accuracy(report["refit"]["arms"])
    if "ablation" in report:
        yield ""
        yield f"{'souk without':12} {'val R@10':>9} {'N@10':>7} {'test R@10':>10} {'N@10':>7} {'earns N@10 on val':>18}"
        for term, figures in report["ablation"].items():
            validation, test = figures["validation"], figures["test"]
            yield (
                f"{term:12} {validation['recall@10']:9.4f} {validation['ndcg@10']:7.4f} {test['recall@10']:10.4f}"
                f" {test['ndcg@10']:7.4f} {figures['earns']['ndcg@10']:18.4f}"
            )


def _against(report: dict[str, Any]) -> Iterator[str]:
    yield f"difference from {report['run']}, paired by shopper, 95 %"
    for name, figures in report["differences"].items():
        parts = (
            f"{figure} {found['difference']:+.4f} ({found['ci95'][0]:+.4f} to {found['ci95'][1]:+.4f})"
            for figure, found in figures.items()
        )
        yield f"{name:18} " + ", ".join(parts)


def _through_sql(agreement: dict[str, Any]) -> str:
    return (
        f"through api.recommend, {agreement['users']:,} test users: NDCG@10 {agreement['ndcg@10_sql']:.4f}, batch"
        f" {agreement['ndcg@10_batch']:.4f}; {agreement['same_lists']:,} lists alike, {agreement['missed']:,} products"
        f" missed ({agreement['shifted']:,} times the likeliest); scores differ by"
        f" {agreement['largest_difference']:.1e} at most; with the default diversity and exploration NDCG@10"
        f" {agreement['ndcg@10_defaults']:.4f}"
    )
