"""A basis among the rows of a matrix, with a rank decision that is safe to round-off.

Greedy row selection (Gram-Schmidt with pivoting by the largest residual, orthogonalised twice). Rows outside the basis
count as dependent only if the combination found for them reproduces each to `DEPENDENT` of its norm with moderate
coefficients: then writing them so perturbs the network at the level of float64 folding, and what is stated is proved
about the written file in any case. In any doubt all rows are the basis.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redy.model import Array

DEPENDENT = 1e-13
"""Largest residual of a dependent row, relative to its norm; 2^-43, far below the 2^-24 of float32 weights."""
LARGEST_COEFFICIENT = 1e3


def row_basis(rows: Array) -> tuple[NDArray[np.int64], Array]:
    """Indices of basis rows, ascending, and X with rows = X @ rows[basis]; X is the identity on the basis rows."""
    count = len(rows)
    everything = np.arange(count), np.eye(count)
    norms = np.linalg.norm(rows, axis=1)
    if not count or not rows.shape[1] or (norms == 0).any() or not np.isfinite(norms).all():
        return everything
    scaled = rows / norms[:, None]
    basis = _select(scaled)
    if basis.size == count:
        return everything
    coefficients, *_ = np.linalg.lstsq(scaled[basis].T, scaled.T, rcond=None)
    combine = coefficients.T
    combine[basis] = np.eye(basis.size)
    residual = np.linalg.norm(scaled - combine @ scaled[basis], axis=1)
    if residual.max() > DEPENDENT or np.abs(combine).max() > LARGEST_COEFFICIENT:
        return everything
    return basis, combine * norms[:, None] / norms[basis]


def _select(scaled: Array) -> NDArray[np.int64]:
    residual = scaled.copy()
    chosen: list[int] = []
    for _ in range(min(scaled.shape)):
        norms = np.linalg.norm(residual, axis=1)
        pivot = int(norms.argmax())
        if norms[pivot] <= DEPENDENT / 2:
            break
        direction = residual[pivot] / norms[pivot]
        chosen.append(pivot)
        for _ in range(2):
            residual -= np.outer(residual @ direction, direction)
    return np.array(sorted(chosen), dtype=np.int64)
