"""The item graph: who follows whom in the sequences, and who resembles whom in the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

NEIGHBOURS = 50
MAX_GAP = 10
REVERSE = 0.5
GAP_EXPONENT = -0.5
DEGREE_EXPONENT = -0.3
ROWS_PER_BLOCK = 1024


@dataclass(frozen=True)
class Edges:
    """Directed weighted edges between items, sorted by source, then by falling value.

    Attributes:
        src: int32 (m,), index of the item that a shopper has.
        dst: int32 (m,), index of the item that it speaks for; never equal to `src`.
        val: float32 (m,), positive and finite.
    """

    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    val: NDArray[np.float32]

    def matrix(self, n_items: int, top: int | None = None) -> sparse.csr_array:
        """Return the edges, or the `top` strongest of each source: float64 (n_items, n_items), row = source."""
        kept = slice(None) if top is None else np.arange(len(self.src)) - np.searchsorted(self.src, self.src) < top
        return sparse.csr_array(
            (self.val[kept].astype(np.float64), (self.src[kept], self.dst[kept])), shape=(n_items, n_items)
        )


def strongest(src: NDArray[np.integer], dst: NDArray[np.integer], val: NDArray[np.floating], top: int) -> Edges:
    """Keep the `top` strongest positive edges of each source; of equal ones, the lower `dst`."""
    val = val.astype(np.float32)
    kept = (val > 0) & (src != dst)
    src, dst, val = src[kept], dst[kept], val[kept]
    order = np.lexsort((dst, -val, src))
    src, dst, val = src[order], dst[order], val[order]
    position = np.arange(len(src)) - np.searchsorted(src, src)
    kept = position < top
    return Edges(src[kept].astype(np.int32), dst[kept].astype(np.int32), val[kept])


def transitions(sequences: Sequence[Sequence[int]], n_items: int, top: int = NEIGHBOURS) -> Edges:
    """Return the directed transitions between items that one shopper took within ten steps.

    A pair at distance g counts g^-0.5 forwards and half of that backwards; popular items are damped
    by (degree + 1)^-0.3 on both ends, the degree being the item's number of events.

    Args:
        sequences: Item indices in time order, one sequence per shopper.
        n_items: Size of the catalogue.
        top: Edges kept per item.
    """
    items, owners = _flatten(sequences)
    degree = np.bincount(items, minlength=n_items)
    counts = sparse.csr_array((n_items, n_items), dtype=np.float64)
    for gap in range(1, MAX_GAP + 1):
        together = owners[gap:] == owners[:-gap]
        earlier, later = items[:-gap][together], items[gap:][together]
        weight = np.full(len(earlier), gap**GAP_EXPONENT)
        forwards = sparse.csr_array((weight, (earlier, later)), shape=(n_items, n_items))
        counts = counts + forwards + REVERSE * forwards.T
    pairs = counts.tocoo()
    damping = (degree + 1.0) ** DEGREE_EXPONENT
    return strongest(pairs.row, pairs.col, pairs.data * damping[pairs.row] * damping[pairs.col], top)


def cooccurrences(sequences: Sequence[Sequence[int]], n_items: int, top: int = NEIGHBOURS) -> Edges:
    """Return the cosine between the sets of shoppers of two items: the classical item-kNN."""
    items, owners = _flatten(sequences)
    taken = sparse.csr_array((np.ones(len(items)), (owners, items)), shape=(len(sequences), n_items))
    taken.data[:] = 1.0
    shoppers = np.maximum(np.asarray(taken.sum(axis=0)).ravel(), 1.0)
    by_item = taken.T.tocsr()
    found: list[Edges] = []
    # A block at a time: all pairs at once would not fit where shoppers have long histories.
    for start in range(0, max(n_items, 1), ROWS_PER_BLOCK):
        together = (by_item[start : start + ROWS_PER_BLOCK] @ taken).tocoo()
        src = together.row + start
        found.append(strongest(src, together.col, together.data / np.sqrt(shoppers[src] * shoppers[together.col]), top))
    return Edges(
        np.concatenate([edges.src for edges in found]),
        np.concatenate([edges.dst for edges in found]),
        np.concatenate([edges.val for edges in found]),
    )


def text_edges(matrix: NDArray[np.float32] | sparse.csr_array, top: int = NEIGHBOURS) -> Edges:
    """Return the nearest items by inner product.

    Args:
        matrix: (n_items, d), dense or sparse, rows of unit length (cosine) or zero (no text, no edges).
        top: Edges kept per item.
    """
    n_items = matrix.shape[0]
    transposed = matrix.T.tocsr() if isinstance(matrix, sparse.csr_array) else matrix.T
    found: list[tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.floating]]] = []
    for start in range(0, n_items, ROWS_PER_BLOCK):
        product = matrix[start : start + ROWS_PER_BLOCK] @ transposed
        block = product.toarray() if isinstance(product, sparse.csr_array) else product
        rows = np.arange(len(block))[:, None]
        block[rows, start + rows] = 0.0
        kept = min(top, n_items)
        nearest = np.argpartition(block, n_items - kept, axis=1)[:, n_items - kept :]
        found.append((np.repeat(start + rows.ravel(), kept), nearest.ravel(), block[rows, nearest].ravel()))
    src, dst, val = (np.concatenate(part) for part in zip(*found, strict=True)) if found else (np.zeros(0, int),) * 3
    return strongest(src, dst, val, top)


def _flatten(sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all items in one array, and whose they are."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    items = np.fromiter((item for sequence in sequences for item in sequence), np.int64, count=int(lengths.sum()))
    return items, np.repeat(np.arange(len(sequences)), lengths)
