"""The figures of `souk evaluate` as PNG: arms with intervals, recall by length of the history, coverage and novelty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_plots(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write one PNG for each plot.

    Args:
        report: As of `ml.evaluate.evaluate`.
        folder: Made if it is not there.

    Returns:
        The files.
    """
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    plots: dict[str, Callable[[dict[str, Any], Axes], None]] = {
        "arms": _arms,
        "history": _history,
        "coverage_novelty": _coverage_novelty,
    }
    files: list[Path] = []
    for name, draw in plots.items():
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        draw(report["arms"], axes)
        axes.set_title(f"{report['data']}: leave-one-out, test")
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=120)
    return files


def _arms(arms: dict[str, Any], axes: Axes) -> None:
    """Draw NDCG@10 and recall@10 of each arm with 95 % intervals."""
    for place, metric in enumerate(("recall@10", "ndcg@10")):
        means = [arm["test"][metric] for arm in arms.values()]
        bounds = [arm["ci95"][metric] for arm in arms.values()]
        errors = [
            [mean - low for mean, (low, _) in zip(means, bounds, strict=True)],
            [high - mean for mean, (_, high) in zip(means, bounds, strict=True)],
        ]
        heights = [number + 0.2 - 0.4 * place for number in range(len(arms))]
        axes.barh(heights, means, height=0.36, xerr=errors, capsize=3, label=metric)
    axes.set_yticks(range(len(arms)), list(arms))
    axes.invert_yaxis()
    axes.set_xlabel("mean over shoppers, 95 % bootstrap interval")
    axes.legend()


def _history(arms: dict[str, Any], axes: Axes) -> None:
    """Draw recall@10 of each arm by the length of the history."""
    groups = [
        name
        for name, figures in next(iter(arms.values()))["groups"].items()
        if name.startswith("history") and figures["users"]
    ]
    for name, arm in arms.items():
        means = [arm["groups"][group]["recall@10"] for group in groups]
        bounds = [arm["groups"][group]["ci95"]["recall@10"] for group in groups]
        errors = [
            [mean - low for mean, (low, _) in zip(means, bounds, strict=True)],
            [high - mean for mean, (_, high) in zip(means, bounds, strict=True)],
        ]
        axes.errorbar(range(len(groups)), means, yerr=errors, marker="o", capsize=3, label=name)
    users = next(iter(arms.values()))["groups"]
    labels = [f"{group.removeprefix('history ')}\n{users[group]['users']:,} shoppers" for group in groups]
    axes.set_xticks(range(len(groups)), labels)
    axes.set_xlabel("items in the history")
    axes.set_ylabel("recall@10, 95 %")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _coverage_novelty(arms: dict[str, Any], axes: Axes) -> None:
    """Draw how much of the catalogue the lists of each arm reach, and how new it is."""
    for name, arm in arms.items():
        beyond = arm["beyond"]
        axes.scatter(beyond["coverage"], beyond["novelty"], s=60, label=name)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of the catalogue in at least one list")
    axes.set_ylabel("novelty of the lists, bits")
