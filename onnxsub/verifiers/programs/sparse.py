"""Blocks of rows of a program put together, without the coefficients that solvers drop."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from onnxsub.ops.base import Array

__all__ = ["TINY", "joined", "stacked", "without_tiny"]

TINY = 1e-9
"""Coefficients below this size are left out of a row, whose ends move outward by what they could have contributed; solvers
drop such coefficients without moving anything."""


def joined(parts: list[Array]) -> Array:
    """All parts, one behind the other."""
    return np.concatenate(parts) if parts else np.zeros(0)


def stacked(blocks: list[sp.csr_array], columns: int) -> sp.csr_array:
    """All blocks, one below the other, over `columns` columns: one copy of the data."""
    if not blocks:
        return sp.csr_array((0, columns))
    counts = np.concatenate([np.diff(b.indptr) for b in blocks])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    data = np.concatenate([b.data for b in blocks])
    indices = np.concatenate([b.indices for b in blocks])
    return sp.csr_array((data, indices, indptr), shape=(len(counts), columns))


def without_tiny(matrix: sp.csr_array, size: Array) -> tuple[sp.csr_array, Array]:
    """The matrix without tiny coefficients, and per row how much they amount to at most; `size` is max |x| per column."""
    moved = np.zeros(matrix.shape[0])
    tiny = np.abs(matrix.data) < TINY
    if not tiny.any():
        return matrix, moved
    at = np.flatnonzero(tiny)
    amount = np.zeros(len(at))
    used = matrix.data[at] != 0
    amount[used] = np.abs(matrix.data[at][used]) * size[matrix.indices[at][used]]
    if not np.isfinite(amount).all():
        raise ValueError("a coefficient below 1e-9 stands at a column without bounds; bound the column")
    rows = np.searchsorted(matrix.indptr, at, side="right") - 1
    np.add.at(moved, rows, amount)
    matrix = matrix.copy()
    matrix.data[tiny] = 0.0
    matrix.eliminate_zeros()
    return matrix, moved
