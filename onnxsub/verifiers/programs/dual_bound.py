r"""What any multipliers of a program's rows prove, whatever the solver says.

    min { c x : r_l <= A x <= r_u, k_l <= x <= k_u } >= sum_i min(y_i r_l, y_i r_u) + sum_j min(d_j k_l, d_j k_u),   d = c - A^T y

for every y, computed in float64 and moved outward by what that can round (Neumaier and Shcherbina 2004, eq. 8): relative to the
size of the terms that were added, so a program whose numbers are all multiplied by 2^k has bounds multiplied by 2^k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from onnxsub.ops.base import Array
from onnxsub.verifiers.programs.solvers import Problem

__all__ = ["Multipliers", "safe_minimum"]

_OF_VALUE = 1e-9  # of the bound itself
_OF_TERMS = 1e-12  # of the sum of all terms' sizes: thousands of times what float64 can round


@dataclass(frozen=True, eq=False)
class Multipliers:
    """A program's rows, ready for one y after the other.

    Attributes:
        transposed: `A^T`, CSR; sizes: its absolute values.
        far: largest `|x_j|` per column.
    """

    problem: Problem
    transposed: sp.csr_array
    sizes: sp.csr_array
    far: Array

    @staticmethod
    def of(problem: Problem) -> Multipliers:
        """Everything that does not depend on y."""
        transposed = sp.csr_array(problem.A.T)
        far = np.maximum(np.abs(problem.col_lower), np.abs(problem.col_upper))
        return Multipliers(problem, transposed, abs(transposed), np.where(np.isinf(far), 0.0, far))

    def line(self, c: Array, y: Array, lower: Array, upper: Array, loose: Array | None = None) -> tuple[Array, float]:
        """`(a, k)` with `c x <= ...`: `min c x >= -(k + sum over loose columns of a_j x_j at its end)`; k is inf where y proves
        nothing.

        Args:
            lower, upper: ends of the columns, those of the program or narrower ones.
            loose: the columns whose ends are chosen later, bool; None: none. `a` belongs to these, in their order.
        """
        p = self.problem
        y = np.where(((y > 0) & np.isinf(p.row_lower)) | ((y < 0) & np.isinf(p.row_upper)), 0.0, y)
        rows = y * np.where(y == 0, 0.0, np.where(y > 0, p.row_lower, p.row_upper))
        d = c - self.transposed @ y
        ends = np.where(d > 0, lower, upper)
        fixed = np.ones(p.columns, dtype=bool) if loose is None else ~loose
        slope = -d[~fixed]
        if not np.isfinite(d).all() or np.isinf(ends[(d != 0) & fixed]).any():
            return np.zeros_like(slope), np.inf
        others = np.where((d == 0) | ~fixed, 0.0, d * ends)
        size = float(np.abs(rows).sum() + (np.abs(c) + self.sizes @ np.abs(y)) @ self.far)
        least = float(rows.sum() + others.sum())
        k = -least + _OF_VALUE * abs(least) + _OF_TERMS * size
        return slope, k if np.isfinite(k) else np.inf


def safe_minimum(rows: Multipliers, c: Array, y: Array) -> float:
    """The bound of the module on the program's own columns; `-inf` where a needed end is infinite."""
    _, k = rows.line(c, y, rows.problem.col_lower, rows.problem.col_upper)
    return -k
