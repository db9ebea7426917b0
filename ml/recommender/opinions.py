"""What shoppers praise and what they complain of, as vectors in the space of the products' texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float32]


def review_directions(items: NDArray[np.floating], bodies: NDArray[np.floating]) -> Floats:
    """Return what each review is about: its product's vector plus that of its text, normalised; float32 (m, d).

    Args:
        items: (m, d), unit vectors of the reviewed products, zero where they say nothing.
        bodies: (m, d), unit vectors of the reviews' texts, zero where there is none.
    """
    return _unit(items.astype(np.float32) + bodies.astype(np.float32))


def opinions(
    owners: NDArray[np.integer], moods: NDArray[np.floating], directions: Floats, count: int
) -> tuple[Floats, Floats]:
    """Return praise and complaint of each shopper: Σ mood · direction over their happy and their unhappy reviews.

    Args:
        owners: (m,), whose review it is, 0 to count - 1.
        moods: (m,), -1 (complaint) to 1 (praise).
        directions: (m, d), as `review_directions` gives them.
        count: Number of shoppers.

    Returns:
        Two float32 (count, d): normalised, zero for shoppers without such a review. A complaint points at what is
        complained of.
    """

    def total(weights: NDArray[np.floating]) -> Floats:
        given = np.flatnonzero(weights > 0)
        placed = (weights[given].astype(np.float32), (owners[given], given))
        return _unit(sparse.csr_array(placed, shape=(count, len(owners))) @ directions)

    return total(moods), total(-moods)


def _unit(vectors: NDArray[np.floating]) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros(vectors.shape, dtype=np.float32), where=length > 1e-6)
