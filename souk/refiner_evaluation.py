"""`souk refine evaluate`: does the refiner earn its place? Its arms, side by side, on products that it never saw."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml.refiner.findings import findings
from ml.refiner.product import Product
from ml.refiner.trial import TrialSettings, run_trial
from souk.errors import SoukError
from souk.refinement_catalogue import REVIEWS, named_attributes
from souk.refiner_evaluation_plots import write_plots
from souk.refiner_evaluation_table import table
from souk.settings import Settings
from souk.sources import open_dataset
from souk.sources.contract import Dataset

log = logging.getLogger(__name__)
ADCOPY = "zh-adcopy"
# ChatGLM-6B with P-tuning v2 on AdvertiseGen, from its repository; by characters, Chen and Cherry's smoothing 3.
PUBLISHED_BLEU4 = 7.97
LEAST_POOR, LEAST_COVERAGE, LEAST_PRECISION, LEAST_GAIN = 0.6, 0.95, 0.98, 0.10
MOST_AUC = {ADCOPY: 0.65}
MOST_AUC_OTHERS = 0.70
# nDCG@10 of products whose texts stay: the length of others is in the ranking, too.
MOST_MOVED = 0.005


@dataclass(frozen=True)
class Source:
    """What is evaluated: one of `SOURCES` or `ADCOPY`, and where its data lie; None where none are needed."""

    name: str
    path: Path | None


def pair(names: Sequence[str], paths: Sequence[Path]) -> list[Source]:
    """Return the sources with their paths, in order; those that need none take none.

    Raises:
        SoukError: There are more or fewer paths than sources that need one.
    """
    pathless = {"demo-shop", "complete-journey"}
    if len([name for name in names if name not in pathless]) != len(paths):
        raise SoukError(
            f"{len(paths)} paths for {', '.join(names) or 'no source'}", "Pass --path for each source but demo-shop."
        )
    given = iter(paths)
    return [Source(name, None if name in pathless else next(given)) for name in names or ("demo-shop",)]


def evaluate_refiner(
    settings: Settings,
    sources: Sequence[Source],
    seeds: int,
    json_file: Path | None = None,
    plots: Path | None = None,
    options: TrialSettings | None = None,
) -> str:
    """Run the trial on each source, with each seed.

    Args:
        settings: Where the demo shop's truth is left.
        sources: At least one.
        seeds: How often everything is trained and drawn.
        json_file: The figures go there, too.
        plots: A folder for curves.
        options: How much is trained and measured.

    Returns:
        The figures as a table.

    Raises:
        SoukError: Data is missing, or has too few good descriptions.
    """
    report: dict[str, Any] = {"settings": asdict(options or TrialSettings()), "data": {}}
    for source in sources:
        name, is_generated, products = read_source(settings, source)
        log.info("%s: %d products", name, len(products))
        try:
            found = findings([run_trial(products, seed, options) for seed in range(seeds)])
        except ValueError as error:
            raise SoukError(f"{name} cannot be evaluated: {error}", "Pass a catalogue with more texts.") from None
        # Two folders of one source are two data sets.
        key = source.name if source.path is None or source.name == ADCOPY else source.path.name
        shown = f"{name} (generated data)" if is_generated else name
        report["data"][key] = {"name": shown, "is_generated": is_generated, "source": source.name, **found}
        report["data"][key]["met"] = met(found, source.name)
        report["data"][key]["earned"] = earned(found)
    figures = {
        f"{data}: {figure}": value for data, found in report["data"].items() for figure, value in found["met"].items()
    }
    report["met"] = {"all": all(value["met"] for value in figures.values()), "figures": figures}
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
    if plots:
        write_plots(report, plots)
    return table(report, PUBLISHED_BLEU4)


def read_source(settings: Settings, source: Source) -> tuple[str, bool, list[Product]]:
    """Return the name of a data set, whether it is generated, and its products with their newest reviews.

    Raises:
        SoukError: A file is missing or unreadable.
    """
    if source.name == ADCOPY:
        return ADCOPY, False, _adcopy(source.path or Path())
    dataset = open_dataset(source.name, source.path, 1.0, 0, settings.home)
    return dataset.shop, dataset.is_generated, _products(dataset)


def _products(dataset: Dataset) -> list[Product]:
    reviews: dict[str, list[str]] = defaultdict(list)
    for row in (row for chunk in dataset.reviews() for row in chunk):
        if row.get("body"):
            reviews[str(row["item_id"])].append(str(row["body"]))
    found = {}
    for row in (row for chunk in dataset.products() for row in chunk):
        if item := row.get("item_id"):
            categories, given = row.get("categories"), row.get("attributes")
            found[str(item)] = Product(
                str(item),
                str(row.get("title") or ""),
                str(row.get("description") or ""),
                str(row.get("brand") or ""),
                tuple(map(str, categories)) if isinstance(categories, list) else (),
                named_attributes(given) if isinstance(given, dict) else (),
                tuple(reviews[str(item)][-REVIEWS:]),
            )
    return list(found.values())


def _adcopy(folder: Path) -> list[Product]:
    """Read AdvertiseGen: attributes and an advertisement; its first three values are the only title there is."""
    file = folder / "dev.jsonl"
    products = []
    try:
        for place, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            pairs = [pair.partition("#") for pair in row["content"].split("*")]
            attributes = tuple((name, value) for name, _, value in pairs if value)
            title = "".join(value for _, value in attributes[:3])
            products.append(Product(f"ad-{place}", title, row["summary"], "", (), attributes, ()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SoukError(f"{file} cannot be read: {error}", "Pass --path with the folder of dev.jsonl.") from None
    return products


def met(found: Mapping[str, Any], source: str) -> dict[str, dict[str, Any]]:
    """Return each figure of the proof with its target, and whether it is reached.

    Args:
        found: Of `findings`.
        source: Name of the source; the judge's target depends on it.
    """
    published, pairs = found["published"], found["retrieval"]["pairs"]
    over_original = pairs["published against original"]
    over_attributes = pairs["published against title + attributes"]
    gan_search, moved = pairs["the GAN system against MLE"], found["untouched"]["pairs"]["published against original"]
    planted = sum(kind["planted"] for kind in found["planted"].values())
    caught = sum(kind["caught"] for kind in found["planted"].values())
    most = MOST_AUC.get(source, MOST_AUC_OTHERS)
    auc = found["arms"]["GAN"]["network"]["auc"]
    lies, poor = published["unsupported"] + found["poor"]["unsupported"], found["poor"]
    figures: dict[str, tuple[Any, str, bool]] = {
        "published texts with an unsupported fact": (lies, "0", published["published"] > 0 and not lies),
        "slot coverage of published texts": (
            published["coverage"], f">= {LEAST_COVERAGE}", published["coverage"] >= LEAST_COVERAGE
        ),
        "content-word precision of published texts": (
            published["precision"], f">= {LEAST_PRECISION}", published["precision"] >= LEAST_PRECISION
        ),
        "planted false claims that are caught": (caught / planted if planted else 0.0, "1", 0 < planted == caught),
        "nDCG@10 of published texts over the original, relative": (
            over_original["relative"], f">= {LEAST_GAIN}", _above(over_original, LEAST_GAIN)
        ),
        "nDCG@10 of published texts over title + attributes, relative": (
            over_attributes["relative"], "> 0, interval above 0", _above(over_attributes, 0.0)
        ),
        "nDCG@10 of untouched products, difference": (
            moved["difference"], f"within {MOST_MOVED}", abs(moved["difference"]) <= MOST_MOVED
        ),
        "AUC of a fresh judge, GAN system": (auc, f"<= {most}", auc <= most),
        "AUC of the GAN system below MLE at every temperature, largest difference": _on_curve(found, "MLE"),
        "AUC of the GAN system below best by likelihood at every temperature, largest difference": _on_curve(
            found, "MLE, likelihood"
        ),
        "nDCG@10 of the GAN system over MLE, relative": (
            gan_search["relative"], "> 0, interval above 0", _above(gan_search, 0.0)
        ),
    }  # fmt: skip
    if poor["asked"]:
        figures["poor descriptions that get a text"] = (poor["share"], f">= {LEAST_POOR}", poor["share"] >= LEAST_POOR)
    return {
        name: {"value": value, "target": target, "met": bool(is_met)}
        for name, (value, target, is_met) in figures.items()
    }


def _above(difference: Mapping[str, Any], least: float) -> bool:
    relative = difference["relative"]
    return difference["ci95"][0] > 0 and (relative is None or relative >= least)


def _on_curve(found: Mapping[str, Any], other: str) -> tuple[float, str, bool]:
    points = [point["against"][other] for point in found["curves"]["GAN"].values()]
    return (
        max(point["difference"] for point in points),
        "< 0 at each, intervals below 0",
        all(point["ci95"][1] < 0 for point in points),
    )


def earned(found: Mapping[str, Any]) -> list[str]:
    """Say which part brought texts nearer to real ones: each where both judges' intervals are below 0."""
    said = []
    for part, kinds in found["parts"].items():
        better = [kind for kind, one in kinds.items() if one["ci95"][1] < 0]
        worse = [kind for kind, one in kinds.items() if one["ci95"][0] > 0]
        if len(better) == len(kinds):
            verdict = "helps, by both judges"
        elif better:
            verdict = f"helps by the {' and '.join(better)} judge alone"
        elif worse:
            verdict = f"hurts, by the {' and '.join(worse)} judge"
        else:
            verdict = "adds nothing that is more than chance"
        said.append(f"{part}: {verdict}")
    return said
