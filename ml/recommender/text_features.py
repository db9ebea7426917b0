"""Dense features of items' texts: what the words say and what the encoder says, in one space of few dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

LATENT = 256
OVERSAMPLE = 10
POWER_STEPS = 2
# The most frequent ones: rarer grams hardly turn a leading direction, and there may be millions.
MAX_GRAMS = 200_000
WHITENING = 0.5
ROWS_PER_BLOCK = 65_536

Floats = NDArray[np.float32]


def text_features(words: sparse.csr_array, vectors: Floats, dimension: int, seed: int = 0) -> Floats:
    """Return features of items: latent semantics of their words beside the encoder's vectors, compressed.

    Principal components of both, each divided by the root of its standard deviation: half way to whitening, for the
    first few components would drown the rest, and the last are mostly noise.

    Args:
        words: float32 (n, grams), TF-IDF, rows of unit length or zero.
        vectors: float32 (n, d), the encoder's unit vectors.
        dimension: Of the result.
        seed: Of the randomised decomposition.

    Returns:
        float32 (n, dimension), rows of unit length; zero where nothing but the mean was left. Where the texts span
        fewer dimensions the last ones are zero.
    """
    found = np.zeros((len(vectors), dimension), dtype=np.float32)
    if not len(found):
        return found
    joined = np.concatenate([latent(words, LATENT, seed), vectors], axis=1)
    joined -= joined.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance = np.zeros((joined.shape[1],) * 2)
    for start in range(0, len(joined), ROWS_PER_BLOCK):
        block = joined[start : start + ROWS_PER_BLOCK]
        covariance += block.T @ block
    values, axes = np.linalg.eigh(covariance)
    values, axes = values[::-1][:dimension], axes[:, ::-1][:, :dimension]
    used = values > 1e-6 * max(values.max(initial=0.0), 1e-6)
    scale = np.where(used, (values / max(values.max(initial=0.0), 1e-12)).clip(1e-12) ** (-WHITENING / 2), 0.0)
    found[:, : len(values)] = joined @ (axes * scale).astype(np.float32)
    return unit(found)


def latent(words: sparse.csr_array, dimension: int, seed: int) -> Floats:
    """Return the rows of a sparse matrix in its leading singular directions, of unit length or zero.

    Randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4).

    Args:
        words: float32 (n, grams).
        dimension: The most directions.
        seed: Of the start.

    Returns:
        float32 (n, at most `dimension`).
    """
    frequency = np.bincount(words.indices, minlength=words.shape[1])
    if len(frequency) > MAX_GRAMS:
        words = words[:, np.sort(np.argsort(-frequency, kind="stable")[:MAX_GRAMS])]
    n_rows, n_columns = words.shape
    rank = min(dimension + OVERSAMPLE, n_rows, n_columns)
    if not rank or not words.nnz:
        return np.zeros((n_rows, 0), dtype=np.float32)
    transposed = words.T.tocsr()
    basis = np.random.default_rng(seed).standard_normal((n_columns, rank), dtype=np.float32)
    basis, _ = np.linalg.qr(words @ basis)
    for _ in range(POWER_STEPS):
        basis, _ = np.linalg.qr(words @ (transposed @ basis))
    small = (transposed @ basis).T
    values, axes = np.linalg.eigh(small @ small.T)
    kept = np.flatnonzero(values > 1e-8 * values.max())[::-1][:dimension]
    return unit(basis @ (axes[:, kept] * np.sqrt(values[kept])))


def unit(vectors: NDArray[np.floating]) -> Floats:
    """Return rows of unit length; zero where there is hardly any length."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros(vectors.shape, dtype=np.float32), where=length > 1e-5)
