"""The quality–diversity curves of `souk refine evaluate` as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VARIETY = {"self_bleu": "self-BLEU: less is more various", "distinct_2": "share of different pairs of words"}


def write_plots(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write two PNGs for each data set: the fresh judge's AUC against self-BLEU, and against distinct-2.

    Args:
        report: As of `souk.refiner_evaluation`.
        folder: Made if it is not there.

    Returns:
        The files.
    """
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for name, found in report["data"].items():
        for variety, label in VARIETY.items():
            figure = Figure(figsize=(8, 5), layout="constrained")
            axes = figure.add_subplot()
            for arm, points in found["curves"].items():
                values = list(points.values())
                x, y = [point[variety] for point in values], [point["auc"] for point in values]
                axes.plot(x, y, marker="o", label=arm, linewidth=2.5 if arm == "GAN" else 1)
                for temperature, at, auc in zip(points, x, y, strict=True):
                    axes.annotate(temperature, (at, auc), fontsize=7)
            axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
            axes.set_xlabel(label)
            axes.set_ylabel("AUC of a fresh judge: .5 is real")
            axes.set_title(f"{found['name']}: temperatures, {found['seeds']} seeds, test products")
            axes.legend()
            files.append(folder / f"refiner-{name}-{variety}.png")
            figure.savefig(files[-1], dpi=120)
    return files
