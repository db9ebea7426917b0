"""The figures of `souk refine evaluate` as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

COLUMNS = {
    "unsupported": "lies",
    "precision": "words",
    "coverage": "facts",
    "distinct_1": "dist-1",
    "distinct_2": "dist-2",
    "self_bleu": "s-BLEU",
    "perplexity": "perpl",
    "bleu4": "BLEU-4",
    "ndcg@10": "nDCG",
}
LEGEND = (
    "lies: share of texts with a claim that nothing supports; words: share of content words that are supported;",
    "facts: share of the product's facts that are said; s-BLEU: self-BLEU, less is more various; perpl: per character,",
    "under a model of other products' texts; nDCG: @10, of queries from the true descriptions. AUC: how well a judge",
    "that saw neither generator nor products tells texts from real ones, .5 is best: a network with its 95 % interval,",
    "and character n-grams; steps: at which the network was best on texts held out from it.",
)


def table(report: dict[str, Any], published_bleu4: float) -> str:
    """Return the report of `souk.refiner_evaluation` as text.

    Args:
        report: The figures.
        published_bleu4: What is printed beside the BLEU-4 of zh-adcopy.
    """
    lines = [*LEGEND]
    for found in report["data"].values():
        lines += ["", *_data(found, published_bleu4)]
    reached = sum(figure["met"] for figure in report["met"]["figures"].values())
    lines += ["", f"{reached} of {len(report['met']['figures'])} figures are reached"]
    return "\n".join(lines)


def _data(found: dict[str, Any], published_bleu4: float) -> Iterator[str]:
    sizes = found["sizes"]
    yield (
        f"== {found['name']}: {sizes['catalogue']:,} products; {sizes['learned']:,} good descriptions to learn from,"
        f" {sizes['validation']:,} to choose by, {sizes['test']:,} to test on; mean of {found['seeds']} seeds =="
    )
    yield from _arms(found)
    chosen = ", ".join(f"{each['arm']} at {each['temperature']}" for each in found["gan"])
    yield f"GAN: what validation chose of all arms with a part of the adversary: {chosen}."
    if found["source"] == "zh-adcopy":
        yield (
            f"BLEU-4 as published of a 6B model, fine-tuned on the set's 114,599 training texts: {published_bleu4};"
            f" here {sizes['learned']:,} texts are learned from."
        )
    yield ""
    yield "AUC over temperatures, difference to MLE at the same one (* interval without 0), self-BLEU:"
    yield from _curves(found["curves"])
    yield ""
    yield "Which part earned it: AUC, less is better, paired over products; network, n-grams:"
    yield from _parts(found)
    yield ""
    yield from _search(found)
    yield from _texts(found)
    yield ""
    for name, figure in found["met"].items():
        value = figure["value"]
        shown = "-" if value is None else f"{value:.4g}"
        yield f"{'reached' if figure['met'] else 'MISSED ':7}  {name}: {shown} (target {figure['target']})"


def _arms(found: dict[str, Any]) -> Iterator[str]:
    yield f"{'arm':26} " + " ".join(f"{name:>6}" for name in COLUMNS.values()) + "   AUC               n-gram steps"
    for name, arm in found["arms"].items():
        values = " ".join(f"{'-':>6}" if arm[key] is None else _shown(arm[key]) for key in COLUMNS)
        network, ngrams = arm["network"], arm["ngrams"]
        low, high = network["ci95"]
        judged = f"{network['auc']:.3f} [{low:.3f}, {high:.3f}]  {ngrams['auc']:.3f}"
        yield f"{name:26} {values}  {judged} {network['steps']:5.0f}"


def _shown(value: float) -> str:
    return f"{value:6.1f}" if value >= 10 else f"{value:6.2f}" if value >= 1.05 else f"{value:6.3f}"


def _curves(curves: dict[str, Any]) -> Iterator[str]:
    for name, points in curves.items():
        shown = []
        for temperature, point in points.items():
            against = point["against"]["MLE"]
            sure = "*" if against["ci95"][1] < 0 or against["ci95"][0] > 0 else " "
            shown.append(
                f"{temperature}: {point['auc']:.3f} {against['difference']:+.3f}{sure} {point['self_bleu']:.2f}"
            )
        yield f"{name:26} " + " | ".join(shown)


def _parts(found: dict[str, Any]) -> Iterator[str]:
    for (part, kinds), said in zip(found["parts"].items(), found["earned"], strict=True):
        figures = ", ".join(_interval(one) for one in kinds.values())
        yield f"{part:44} {figures}: {said.removeprefix(part + ': ')}"


def _interval(one: dict[str, Any]) -> str:
    return f"{one['difference']:+.3f} [{one['ci95'][0]:+.3f}, {one['ci95'][1]:+.3f}]"


def _search(found: dict[str, Any]) -> Iterator[str]:
    for which, what in (("retrieval", "touched products"), ("untouched", "untouched products")):
        retrieval = found[which]
        yield f"nDCG@10 of {what}, {retrieval['queries']:,} queries: " + ", ".join(
            f"{name} {mean:.3f}" for name, mean in retrieval["ndcg@10"].items()
        )
        for pair, one in retrieval["pairs"].items():
            relative = "" if one["relative"] is None else f" ({one['relative']:+.1%})"
            yield f"  {pair}: {_interval(one)}{relative}"


def _texts(found: dict[str, Any]) -> Iterator[str]:
    for which, what in (("published", "spoilt test descriptions"), ("poor", "the data's own poor descriptions")):
        outcome = found[which]
        if outcome["asked"]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in outcome["reasons"].items())
            yield (
                f"{what}, all seeds: {outcome['published']:.0f} of {outcome['asked']:.0f} get a text"
                f" ({outcome['share']:.1%}); originals kept: {reasons or 'none'}"
            )
    planted = found["planted"]
    yield "planted false claims, caught of planted: " + ", ".join(
        f"{kind} {count['caught']}/{count['planted']}" for kind, count in planted.items()
    )
