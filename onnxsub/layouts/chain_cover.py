"""What has to travel on: the fewest values from which given linear forms can be computed later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.csgraph import maximum_bipartite_matching

from onnxsub.ops.base import Array

__all__ = ["Carry", "carry", "cover"]

_RANK_TOL = 1e-10
"""Rows (of length 1) nearer than this to the span of others are computed from those. float32 weights are rounded by 6e-8."""

_MOST_GROWTH = 32.0
"""Sum of absolute coefficients up to which a row is computed from others; more would cost float32 digits."""

_MOST_WORK = 3e9
"""Floating-point operations up to which the rank is looked at."""


@dataclass(frozen=True, eq=False)
class Carry:
    """`forms @ s = direct @ s[columns] + mix @ (rows @ s)` for all signals s.

    Attributes:
        columns: signals that travel as they are.
        rows: `(r, signals)`, linear forms that travel.
        direct: `(forms, len(columns))`.
        mix: `(forms, r)`.
    """

    columns: Array
    rows: sp.csr_array
    direct: sp.csr_array
    mix: sp.csr_array

    @property
    def count(self) -> int:
        return len(self.columns) + int(self.rows.shape[0])


def carry(forms: sp.csr_array) -> Carry:
    """The fewest values, of two ways: a mix of signals and forms that covers every coefficient, or a basis of all forms."""
    covered = _by_cover(forms)
    if covered.count <= 1:
        return covered
    basis = _by_basis(forms)
    return basis if basis is not None and basis.count < covered.count else covered


def cover(forms: sp.csr_array) -> tuple[Array, Array]:
    """Fewest rows and columns (booleans) that contain all nonzeros: König's theorem on a maximum matching; ties go to columns."""
    matched = np.asarray(maximum_bipartite_matching(forms, perm_type="column"))
    by_column = forms.tocsc()
    seen = np.diff(by_column.indptr) > 0
    used = seen.copy()
    seen[matched[matched >= 0]] = False  # alternating paths begin at unmatched columns
    rows = np.zeros(forms.shape[0], dtype=np.bool_)
    fresh = np.flatnonzero(seen)
    while len(fresh):
        met = np.unique(by_column[:, fresh].indices)
        met = met[~rows[met]]
        rows[met] = True
        fresh = matched[met]
        fresh = fresh[~seen[fresh]]
        seen[fresh] = True
    return rows, used & ~seen


def _by_cover(forms: sp.csr_array) -> Carry:
    rows, columns = cover(forms)
    chosen, index = np.flatnonzero(columns), np.flatnonzero(rows)
    free = sp.csr_array(forms[index] @ sp.diags_array((~columns).astype(np.float64)))
    free.eliminate_zeros()
    count = len(index)
    mix = sp.csr_array((np.ones(count), (index, np.arange(count))), shape=(forms.shape[0], count))
    direct = sp.csr_array(forms[:, chosen])
    reduced = _basis(free)
    if reduced is not None:
        free, mix = reduced[0], sp.csr_array(mix @ reduced[1])
    return Carry(chosen, free, direct, mix)


def _by_basis(forms: sp.csr_array) -> Carry | None:
    reduced = _basis(forms)
    if reduced is None:
        return None
    nothing = sp.csr_array((forms.shape[0], 0))
    return Carry(np.zeros(0, dtype=np.int64), reduced[0], nothing, reduced[1])


def _basis(forms: sp.csr_array) -> tuple[sp.csr_array, sp.csr_array] | None:
    """Some of the rows, and coefficients that give all rows from them; None where the rows are independent in float32's eyes.

    A pivoted QR of the rows scaled to length 1 chooses them (an interpolative decomposition, Cheng et al. 2005).
    """
    count, width = forms.shape
    if count < 2 or 2.0 * count * width * min(count, width) > _MOST_WORK:
        return None
    dense = forms.toarray()
    norm = np.sqrt((dense**2).sum(axis=1))
    norm[norm == 0] = 1.0
    unit = dense / norm[:, None]
    triangle, order = scipy.linalg.qr(unit.T, mode="r", pivoting=True, check_finite=False)
    size = np.abs(np.diag(triangle))
    rank = int((size > _RANK_TOL).sum())
    if rank == count:
        return None
    coefficients = np.zeros((count, rank))
    coefficients[order[:rank]] = np.eye(rank)
    if rank:
        coefficients[order[rank:]] = scipy.linalg.solve_triangular(triangle[:rank, :rank], triangle[:rank, rank:]).T
    chosen = order[:rank]
    exact = np.abs(coefficients @ unit[chosen] - unit).sum(axis=1).max() <= 10 * _RANK_TOL
    if not exact or np.abs(coefficients).sum(axis=1).max() > _MOST_GROWTH:
        return None
    scaled = coefficients * norm[:, None] / norm[chosen][None, :]
    return sp.csr_array(forms[chosen]), sp.csr_array(scaled)
