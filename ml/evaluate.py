"""Offline evaluation of the served model next to its baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.beyond_accuracy import OF_SHOPPERS, Items, coverage, describe, groups, of_shoppers
from ml.evaluation.compare import Gains, data_key
from ml.evaluation.protocol import CUT, Arm, Split, gains, intervals, leave_one_out, ranked, time_split
from ml.recommender.edges import Edges, cooccurrences, transitions
from ml.recommender.fusion import DECAYS, MIN_USERS, TERMS, Recommender, edge_scores, fit_weights, score_batch
from ml.recommender.train import Catalogue, check, from_texts, popularity, with_events

PROTOCOL = (
    "leave-one-out: a shopper's last new item is the test, the one before it validation, the rest trains; "
    "full ranking, history masked, mean rank for ties; weights learned on validation, whose figures are cross-fitted"
)
TIME_PROTOCOL = (
    "global time split: what happened before the validation window trains; each shopper with a history is asked for "
    "the first new item of a window; full ranking, history masked, mean rank for ties"
)
REFIT_NOTE = "fitted again with the validation item, weights as before: not comparable with published figures"
USERS_PER_BLOCK = 256
# The best of 0.7 to 1 on validation, for both baselines.
BASELINE_DECAY = 0.7
FIGURES = (f"recall@{CUT}", f"ndcg@{CUT}")

Report = dict[str, Any]
Builder = Callable[[Catalogue, Split, int], Arm]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        report: The figures, as JSON takes them.
        gains: Recall and NDCG at 10 of each test shopper, float64 (users, 2), by `PROTOCOL/ARM`, the protocol being
            `loo` or `time`.
        served: The model of the arm `souk`, which has seen neither validation nor test; None if it was not measured.
    """

    report: Report
    gains: Gains
    served: Recommender | None


@dataclass(frozen=True)
class Extras:
    """What is measured on top of the arms.

    Attributes:
        refit: Fit once more with the validation item.
        seeds: Train the served model with so many seeds.
        ablate: Leave out each of its terms, the weights refitted without it.
    """

    refit: bool = False
    seeds: int = 1
    ablate: bool = False


def evaluate(
    catalogue: Catalogue,
    sequences: Sequence[Sequence[int]],
    data: str,
    seed: int = 0,
    arms: Sequence[str] = (),
    times: Sequence[Sequence[float]] | None = None,
    categories: Sequence[str | None] = (),
    extras: Extras | None = None,
    peers: Mapping[str, Builder] | None = None,
) -> Evaluation:
    """Measure the served model next to its baselines.

    Args:
        catalogue: The items.
        sequences: Item indices in time order, one sequence per shopper.
        data: Name of the data, repeated in the report.
        seed: Of the models, the bootstrap and the two halves of the cross-fit.
        arms: Names to measure; all of popularity, item-knn, transition, souk and the peers if empty.
        times: Seconds of each event, ascending in each sequence; None where only the order is known.
        categories: Leaf category of each item, None for none; empty where nothing is known of them.
        extras: What else is measured.
        peers: Further models by name.

    Returns:
        The report: `{"data", "data_key", "protocol", "items", "users", "users_skipped", "events", "arms",
        "time_split"}` and what the extras add: "refit", "ablation". An arm is `{"validation", "test", "ci95",
        "train_seconds", "beyond", "groups"}`; `ci95` holds the 95 % bootstrap intervals of the test figures.
        `time_split` is `{"skipped": why}`, or has the two moments in Unix seconds, the numbers of shoppers, and arms
        of its own.

    Raises:
        ValueError: The catalogue or the sequences are malformed, or no shopper has three distinct items.
    """
    check(catalogue, sequences)
    split = leave_one_out(sequences)
    if not split.train:
        raise ValueError("no shopper has three distinct items: there is nothing to hold out")
    extras = extras or Extras()
    known = {**ARMS, **(peers or {})}
    chosen = {name: known[name] for name in arms or known}
    run = _Run(catalogue, split, describe(catalogue, [*split.train, *split.skipped], categories), seed)
    built = {name: build(catalogue, split, seed) for name, build in chosen.items()}
    measured = {name: run.measure(arm) for name, arm in built.items()}
    report: Report = {
        "data": data,
        "data_key": data_key(catalogue.item_ids, sequences, times or ()),
        "protocol": PROTOCOL,
        "items": len(catalogue.item_ids),
        "users": len(split.train),
        "users_skipped": len(split.skipped),
        "events": sum(len(sequence) for sequence in sequences),
        "arms": {name: figures for name, (figures, _) in measured.items()},
    }
    of_users = {f"loo/{name}": found for name, (_, found) in measured.items()}
    if "souk" in built:
        if extras.seeds > 1:
            others = [_souk(catalogue, split, other) for other in range(seed + 1, seed + extras.seeds)]
            report["arms"]["souk"]["seeds"] = _spread([built["souk"], *others], run)
        if extras.ablate:
            report["ablation"] = _ablation(built["souk"], run)
    if extras.refit:
        report["refit"] = {
            "note": REFIT_NOTE,
            "arms": {name: run.test(_refit(chosen[name], arm, run))[0] for name, arm in built.items()},
        }
    report["time_split"], later = _by_time(catalogue, sequences, times, categories, chosen, seed)
    return Evaluation(report, of_users | later, built["souk"].model if "souk" in built else None)


@dataclass(frozen=True)
class _Run:
    """What arms are measured on, and with which seed."""

    catalogue: Catalogue
    split: Split
    items: Items
    seed: int

    def measure(self, arm: Arm) -> tuple[Report, NDArray[np.float64]]:
        """Return the figures of one arm, and the gains of each test shopper."""
        report, found = self.test(arm)
        return {"validation": self.validate(arm), **report}, found

    def validate(self, arm: Arm) -> dict[str, float]:
        """Return the validation figures of one arm."""
        found = gains(ranked(arm.validation, self.split.train, self.split.validation)[0])
        return _named(FIGURES, found.mean(axis=0))

    def test(self, arm: Arm) -> tuple[Report, NDArray[np.float64]]:
        """Return the test figures of one arm, and the gains of each test shopper."""
        split = self.split
        positions, lists = ranked(arm.test, split.test_histories, split.test)
        found = gains(positions)
        beyond = of_shoppers(self.items, lists, split.test_histories)
        # A measure that is undefined for most is left out; where it is undefined for some, the others are its mean.
        defined = np.isfinite(beyond).mean(axis=0) > 0.5
        names = [name for name, is_defined in zip(OF_SHOPPERS, defined, strict=True) if is_defined]
        beyond = beyond[:, defined]
        low, high = intervals(np.concatenate([found, beyond], axis=1), self.seed)
        report = {
            "test": _named(FIGURES, found.mean(axis=0)),
            "ci95": {
                name: [float(low_), float(high_)]
                for name, low_, high_ in zip((*FIGURES, *names), low, high, strict=True)
            },
            "train_seconds": round(arm.train_seconds, 3),
            "beyond": {
                "coverage": coverage(lists, len(self.catalogue.item_ids)),
                **_named(names, np.nanmean(beyond, axis=0)),
            },
            "groups": {
                name: _of_group(found[is_in], self.seed)
                for name, is_in in groups(self.items, split.test_histories, split.test).items()
            },
        }
        return report, found


def _of_group(found: NDArray[np.float64], seed: int) -> Report:
    """Return the figures of some shoppers; of nobody, only that there are none."""
    if not len(found):
        return {"users": 0}
    low, high = intervals(found, seed)
    return {
        "users": len(found),
        **_named(FIGURES, found.mean(axis=0)),
        "ci95": {name: [float(low[at]), float(high[at])] for at, name in enumerate(FIGURES)},
    }


def _named(names: Sequence[str], figures: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(names, figures.tolist(), strict=True))


def _spread(arms: Sequence[Arm], run: _Run) -> Report:
    """Return validation and test of the same model with several seeds: mean, and standard deviation as spread."""
    split = run.split
    report: Report = {"seeds": len(arms)}
    test = [gains(ranked(arm.test, split.test_histories, split.test)[0]).mean(axis=0) for arm in arms]
    validation = [list(run.validate(arm).values()) for arm in arms]
    for name, figures in (("validation", np.array(validation)), ("test", np.array(test))):
        report[name] = {
            "mean": _named(FIGURES, figures.mean(axis=0)),
            "spread": _named(FIGURES, figures.std(axis=0, ddof=1)),
        }
    return report


def _ablation(arm: Arm, run: _Run) -> Report:
    """Return validation and test figures without each term, and what the term is worth on validation."""
    assert arm.model is not None
    split = run.split
    whole = run.validate(arm)
    report: Report = {}
    for term in TERMS:
        without = _weighed(_without(arm.model, term), split, run.seed, time.perf_counter())
        validation = run.validate(without)
        test = gains(ranked(without.test, split.test_histories, split.test)[0])
        report[term] = {
            "validation": validation,
            "test": _named(FIGURES, test.mean(axis=0)),
            "earns": {name: whole[name] - validation[name] for name in FIGURES},
        }
    return report


def _without(model: Recommender, term: str) -> Recommender:
    """Return the model with one term the same for all items: it says nothing, whatever its weight."""
    if term in DECAYS:
        none = np.zeros(0, np.int32)
        return replace(model, edges={**model.edges, term: Edges(none, none, np.zeros(0, np.float32))})
    if term == "popularity":
        return replace(model, popularity=np.zeros_like(model.popularity))
    return replace(model, outputs=np.zeros_like(model.outputs))


def _refit(build: Builder, arm: Arm, run: _Run) -> Arm:
    """Return an arm that has trained on everything before the test; the served model keeps its weights."""
    if arm.model is None:
        return build(run.catalogue, replace(run.split, train=[], validation=[], skipped=run.split.known), run.seed)
    started = time.perf_counter()
    fitted = with_events(from_texts(run.catalogue), run.split.known, run.seed)
    served = replace(fitted, weights=arm.model.weights)
    return replace(
        arm,
        test=lambda histories: score_batch(served, histories),
        model=served,
        train_seconds=time.perf_counter() - started,
    )


def _by_time(
    catalogue: Catalogue,
    sequences: Sequence[Sequence[int]],
    times: Sequence[Sequence[float]] | None,
    categories: Sequence[str | None],
    arms: Mapping[str, Builder],
    seed: int,
) -> tuple[Report, Gains]:
    """Return the figures of the time split, or why there are none, and the gains of its test shoppers."""
    if times is None:
        return {"skipped": "the data has no times, only an order"}, {}
    try:
        split, start, middle = time_split(sequences, times)
    except ValueError as reason:
        return {"skipped": str(reason)}, {}
    run = _Run(catalogue, split, describe(catalogue, [*split.train, *split.skipped], categories), seed)
    measured = {name: run.measure(build(catalogue, split, seed)) for name, build in arms.items()}
    report: Report = {
        "protocol": TIME_PROTOCOL,
        "validation_from": start,
        "test_from": middle,
        "users_validation": len(split.validation),
        "users_test": len(split.test),
        "arms": {name: figures for name, (figures, _) in measured.items()},
    }
    return report, {f"time/{name}": found for name, (_, found) in measured.items()}


def _popularity(catalogue: Catalogue, split: Split, seed: int) -> Arm:
    started = time.perf_counter()
    heat = popularity([*split.train, *split.skipped], len(catalogue.item_ids)).astype(np.float64)

    def scorer(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(histories), USERS_PER_BLOCK):
            yield np.tile(heat, (len(histories[start : start + USERS_PER_BLOCK]), 1))

    return Arm(scorer, scorer, time.perf_counter() - started)


def _graph(build: Callable[[Sequence[Sequence[int]], int, int], Edges]) -> Builder:
    """Return an arm that scores by one kind of edges alone, all of them: a baseline is not cut to what fits a table."""

    def arm(catalogue: Catalogue, split: Split, seed: int) -> Arm:
        started = time.perf_counter()
        n_items = len(catalogue.item_ids)
        matrix = build([*split.train, *split.skipped], n_items, n_items).matrix(n_items)

        def scorer(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
            for start in range(0, len(histories), USERS_PER_BLOCK):
                yield edge_scores(matrix, histories[start : start + USERS_PER_BLOCK], BASELINE_DECAY)

        return Arm(scorer, scorer, time.perf_counter() - started)

    return arm


def _souk(catalogue: Catalogue, split: Split, seed: int) -> Arm:
    started = time.perf_counter()
    model = with_events(from_texts(catalogue), [*split.train, *split.skipped], seed)
    return _weighed(model, split, seed, started)


def _weighed(model: Recommender, split: Split, seed: int, started: float) -> Arm:
    """Return the model with weights of the validation, whose own figures are cross-fitted."""
    served = replace(model, weights=fit_weights(model, split.train, split.validation))
    seconds = time.perf_counter() - started
    is_first = np.random.default_rng(seed).random(len(split.train)) < 0.5
    halves = [_fit_on(model, split, is_first), _fit_on(model, split, ~is_first)]

    def cross_fitted(histories: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float64]]:
        """Score each validation user by the weights of the other half."""
        done = 0
        for by_first, by_second in zip(*(score_batch(half, histories) for half in halves), strict=True):
            yield np.where(is_first[done : done + len(by_first), None], by_second, by_first)
            done += len(by_first)

    return Arm(cross_fitted, lambda histories: score_batch(served, histories), seconds, served)


def _fit_on(model: Recommender, split: Split, is_in: NDArray[np.bool_]) -> Recommender:
    users = np.flatnonzero(is_in)
    histories, targets = [split.train[user] for user in users], [split.validation[user] for user in users]
    # Half the shoppers: the same buckets as of all of them.
    weights = fit_weights(model, histories, targets, MIN_USERS // 2)
    return replace(model, weights=weights)


ARMS: dict[str, Builder] = {
    "popularity": _popularity,
    "item-knn": _graph(cooccurrences),
    "transition": _graph(transitions),
    "souk": _souk,
}
