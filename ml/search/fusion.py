"""How the parts of a search score are weighted: fitted on queries that the query encoder has not learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import logsumexp

from ml.search.query import FAMILIES, Reading, feature_matrices

SEMANTIC = "semantic"
# Fitted on Home Depot's judged queries (English titles); what a shop starts from that has no searches of its own.
DEFAULT_WEIGHTS = {"words": 1.9, "pairs": 1.2, "numbers": 1.1, "measures": 1.9, "grams": 1.1, SEMANTIC: 1.6}
DEFAULT_TEMPERATURE = 0.1
RELEVANT = 0.66
FEWEST_QUERIES = 50
CANDIDATES = 100
# Pulls the logarithm of each weight towards its default's, as this many queries would.
PRIOR = 5.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pool:
    """The candidates of one query: what was judged, and the best of the catalogue by the default weights.

    Attributes:
        features: (c, families and semantic), what each part of the score says.
        target: (c,), relevance, summing to 1; what nobody judged is not relevant.
    """

    features: Floats
    target: Floats


def pools(
    readings: Sequence[Reading],
    queries: Floats,
    grades: Sequence[Mapping[int, float]],
    lexical: sparse.csr_array,
    vectors: Floats,
) -> list[Pool]:
    """Return the candidates of the queries that have a relevant product.

    Args:
        readings: The queries, read.
        queries: (q, d), their vectors.
        grades: Product -> relevance, for each query.
        lexical: (n, m), what a term weighs in a product.
        vectors: (n, d), the products' vectors.
    """
    matrices = feature_matrices(readings, lexical.shape[1])
    asked = np.unique(np.concatenate([matrix.indices for matrix in matrices.values()]))
    matrices = {family: sparse.csr_array(matrix[:, asked]) for family, matrix in matrices.items()}
    transposed = sparse.csr_array(lexical[:, asked].T)
    defaults = np.array([DEFAULT_WEIGHTS[name] for name in (*FAMILIES, SEMANTIC)], np.float32)
    found = []
    for row, judged in enumerate(grades):
        relevance = {item: grade for item, grade in judged.items() if grade >= RELEVANT}
        if not relevance:
            continue
        parts = [np.asarray((matrices[family][[row]] @ transposed).todense()).ravel() for family in FAMILIES]
        features = np.stack([*parts, vectors @ queries[row]], axis=1)
        score = features @ defaults
        best = np.argpartition(-score, min(CANDIDATES, len(score) - 1))[:CANDIDATES]
        items = list(dict.fromkeys([*judged, *best.tolist()]))
        target = np.array([relevance.get(item, 0.0) for item in items], np.float32)
        found.append(Pool(features[items], target / target.sum()))
    return found


def fit_weights(candidates: Sequence[Pool]) -> dict[str, float]:
    """Return the non-negative weight of each family and of `semantic`; the defaults where there is little to fit.

    The minimiser of the cross-entropy of softmax(features · w) with the relevance, which is also the scale at which
    the softmax of a score is a probability.
    """
    names = (*FAMILIES, SEMANTIC)
    if len(candidates) < FEWEST_QUERIES:
        return dict(DEFAULT_WEIGHTS)
    start = np.log([DEFAULT_WEIGHTS[name] for name in names])

    def loss(logarithms: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = np.exp(logarithms)
        value, slope = 0.0, np.zeros(len(names))
        for pool in candidates:
            logits = pool.features @ weights
            likelihood = logits - logsumexp(logits)
            value -= float(pool.target @ likelihood)
            slope += pool.features.T @ (np.exp(likelihood) - pool.target)
        pull = logarithms - start
        return value + PRIOR * float(pull @ pull) / 2, slope * weights + PRIOR * pull

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-5, 4)] * len(names))
    return dict(zip(names, np.exp(found.x).tolist(), strict=True))


def fit_temperature(candidates: Sequence[Pool]) -> float:
    """Return the temperature at which softmax(q · d / temperature) over the candidates tells the relevant ones best."""
    if not candidates:
        return DEFAULT_TEMPERATURE
    grid = np.geomspace(0.01, 1, 41)
    losses = np.zeros(len(grid))
    for pool in candidates:
        logits = pool.features[:, -1][:, None].astype(np.float64) / grid
        losses -= pool.target @ (logits - logsumexp(logits, axis=0))
    return float(grid[losses.argmin()])
