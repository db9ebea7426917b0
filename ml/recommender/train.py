"""Training: from a catalogue and what shoppers took to everything that a release serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ml.recommender.edges import Edges, cooccurrences, text_edges, transitions
from ml.recommender.fusion import EQUAL_WEIGHTS, Recommender, fit_weights
from ml.recommender.pq import DIMENSION, PQ, from_features, train
from ml.recommender.text_features import text_features
from ml.recommender.tfidf import tfidf

# `ml.recommender.pq.train`, or what does the same on several machines.
Learn = Callable[[NDArray[np.float32], Sequence[Sequence[int]], int], PQ]
# Of a very long list of purchases the newest say what goes together now; the pairs grow with its square.
BASKET = 200


@dataclass(frozen=True)
class Catalogue:
    """What is known of the items without looking at shoppers.

    Attributes:
        item_ids: Identifiers; all indices are positions in this list.
        terms: Lexical terms of each item, in text order; may be empty.
        vectors: float32 (n, d), the encoder's unit vectors, not centred.
    """

    item_ids: list[str]
    terms: list[list[str]]
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """A trained model, and its like for a trial.

    Attributes:
        served: Fitted on everything.
        tried: The same weights over edges, popularity and sequence model that have not seen the last new item of any
            shopper with two of them.
    """

    served: Recommender
    tried: Recommender


def fit(
    catalogue: Catalogue, sequences: Sequence[Sequence[int]], bought: Sequence[Sequence[int]] = (), seed: int = 0
) -> Recommender:
    """Train on all sequences, as `fit_with_trial` does."""
    return fit_with_trial(catalogue, sequences, bought, seed).served


def fit_with_trial(
    catalogue: Catalogue,
    sequences: Sequence[Sequence[int]],
    bought: Sequence[Sequence[int]] = (),
    seed: int = 0,
    transition: tuple[Edges, Edges] | None = None,
    learn: Learn = train,
) -> Fit:
    """Train on all sequences, and keep what was trained without their ends.

    The weights are learned from each shopper's last new item, with a sequence model and edges that have not seen it;
    these and popularity are then fitted again on everything.
    The edges `cooccurrence` say what else the buyers of an item bought; no term of the score reads them.

    Args:
        catalogue: The items.
        sequences: Item indices in time order, one sequence per shopper; repeats are allowed.
        bought: The purchases among them; without any, everything taken counts as bought.
        seed: Of everything that is drawn.
        transition: `transitions` of the sequences without each shopper's last new item, and of all, where they have
            been counted already.
        learn: Trains the sequence model.

    Raises:
        ValueError: The parts of the catalogue differ in length, or a sequence names an unknown item.
    """
    check(catalogue, sequences)
    check(catalogue, bought)
    firsts = [distinct(sequence) for sequence in sequences]
    known = from_texts(catalogue)
    learners = [items for items in firsts if len(items) >= 2]
    held, whole = transition or (None, None)
    partial = with_events(known, [items[:-1] for items in firsts], seed, held, learn)
    weights = fit_weights(partial, [items[:-1] for items in learners], [items[-1] for items in learners])
    served = with_events(known, firsts, seed, whole, learn)
    baskets = [distinct(sequence)[-BASKET:] for sequence in (bought if any(map(len, bought)) else sequences)]
    together = cooccurrences(baskets, len(catalogue.item_ids))
    return Fit(
        replace(served, weights=weights, edges={**served.edges, "cooccurrence": together}),
        replace(partial, weights=weights),
    )


def from_texts(catalogue: Catalogue) -> Recommender:
    """Return what the texts alone give: text edges and vectors, no popularity, equal weights."""
    centred = centre(catalogue.vectors)
    words = tfidf(catalogue.terms)
    edges = {"tfidf": text_edges(words), "encoder": text_edges(centred)}
    popularity = np.zeros(len(catalogue.item_ids), dtype=np.float32)
    features = text_features(words, catalogue.vectors, DIMENSION)
    alone = from_features(features)
    return Recommender(
        *(catalogue.item_ids, edges, popularity, dict(EQUAL_WEIGHTS), centred.astype(np.float16), features),
        *(alone.inputs, alone.outputs, alone.position_weights),
    )


def with_events(
    recommender: Recommender,
    sequences: Sequence[Sequence[int]],
    seed: int = 0,
    transition: Edges | None = None,
    learn: Learn = train,
) -> Recommender:
    """Return the recommender with its sequence model, transitions and popularity fitted on these sequences.

    Args:
        recommender: What the texts give.
        sequences: Distinct item indices in time order, one sequence per shopper.
        seed: Of the sequence model.
        transition: The transitions of these sequences, where they are known already.
        learn: Trains the sequence model.
    """
    n_items = len(recommender.item_ids)
    found = transitions(sequences, n_items) if transition is None else transition
    model = learn(recommender.features, sequences, seed)
    return replace(
        recommender,
        edges={**recommender.edges, "transition": found},
        popularity=popularity(sequences, n_items),
        inputs=model.inputs,
        outputs=model.outputs,
        position_weights=model.position_weights,
    )


def popularity(sequences: Sequence[Sequence[int]], n_items: int) -> NDArray[np.float32]:
    """Return log(1 + events) of each item over its maximum: float32 (n_items,), zeros if there are no events."""
    events = np.fromiter((item for sequence in sequences for item in sequence), np.int64)
    heat = np.log1p(np.bincount(events, minlength=n_items))
    return np.asarray(heat / max(heat.max(initial=0.0), 1e-12), dtype=np.float32)


def distinct(sequence: Sequence[int]) -> list[int]:
    """Return each item once, where it first occurs: a shopper is only ever recommended something new."""
    return list(dict.fromkeys(sequence))


def centre(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors minus their mean, of unit length; zero where nothing but the mean was left."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = np.zeros(vectors.shape, np.float32)
    # By blocks: those of a million products take a gigabyte and a half, once.
    for first in range(0, len(vectors), 10_000):
        shifted = vectors[first : first + 10_000] - mean
        length = np.linalg.norm(shifted, axis=1, keepdims=True)
        np.divide(shifted, length, out=centred[first : first + 10_000], where=length > 1e-5)
    return centred


def check(catalogue: Catalogue, sequences: Sequence[Sequence[int]]) -> None:
    """Raise ValueError unless the catalogue is whole and the sequences stay within it."""
    n_items = len(catalogue.item_ids)
    if not n_items == len(catalogue.terms) == len(catalogue.vectors):
        sizes = f"{n_items} items, {len(catalogue.terms)} terms, {len(catalogue.vectors)} vectors"
        raise ValueError(f"a catalogue needs as many terms and vectors as items: {sizes}")
    if not np.isfinite(catalogue.vectors).all():
        raise ValueError("a catalogue vector is not finite")
    lowest = min((min(sequence) for sequence in sequences if len(sequence)), default=0)
    highest = max((max(sequence) for sequence in sequences if len(sequence)), default=-1)
    if lowest < 0 or highest >= n_items:
        raise ValueError(f"a sequence names item {lowest if lowest < 0 else highest} of a catalogue of {n_items}")
