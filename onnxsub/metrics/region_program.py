r"""The nearest point of a half-space within a polytope round the anchor, one linear program per radius.

    d = min { e : |delta|_inf <= e, low <= delta <= high, c . delta + m >= 0, A delta <= b },   b >= 0.

As one program this has two rows per input. With the radius fixed, the ball is no more than the ends of the columns,

    g(e) = max { c . delta + m : A delta <= b, delta in box(e) },

and d is the smallest e with g(e) >= 0. g is concave, and any multipliers y >= 0 of the rows bound it from above:

    g(e) <= U_y(e) = m + y . b + max { (c - A^T y) . delta : delta in box(e) }.

So the root of U_y, which is one sort, is a lower bound of d whatever the solver says, and the optimal multipliers at e give the
next e: Newton's method from below, which reaches d in finitely many steps.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from onnxsub.geometry import halfspace_radius
from onnxsub.ops.base import Array
from onnxsub.verifiers.programs.solvers import HIGHS

__all__ = ["Nearest"]

_TOLERANCE = 1e-9  # of rows and columns in their own units: rows have a largest coefficient of 1, columns the radius without rows

_MANY = 300  # rows from which on the interior point method is faster, although it begins anew each time


class Nearest:
    """The program of one target. The radius only grows, and rows are only added.

    Args:
        c, m: of the half-space `c . delta + m >= 0`.
        low, high: ends of delta that the domain sets, `(n,)`, `low <= 0 <= high`.

    Attributes:
        radius: no point of the half-space that satisfies the rows is nearer; infinite where there is none.
        runs: programs solved.
    """

    def __init__(self, c: Array, m: float, low: Array, high: Array) -> None:
        self._c, self._m, self._low, self._high = c, m, low, high
        self._size = max(float(np.abs(c).max(initial=0.0)), 1e-300)
        self._A = np.zeros((0, len(c)))
        self._b = np.zeros(0)
        self.radius = self._root(np.zeros(0))
        self.runs = 0
        self._unit = self.radius if 0 < self.radius < np.inf else 1.0
        self._highs: Any = None

    @property
    def rows(self) -> int:
        """Rows so far."""
        return len(self._b)

    def plain(self) -> Array:
        """The nearest point while there are no rows: every input at its end, also where that is not far enough."""
        return np.clip(np.sign(self._c) * min(self.radius, float(np.max(self._high - self._low))), self._low, self._high)

    def add(self, A: Array, b: Array) -> None:
        """Rows `A delta <= b`, `(R, n)` and `(R,)`, `b >= 0`."""
        scale = np.abs(A).max(axis=1)
        keep = scale > 0  # a row without coefficients says 0 <= b
        A, b, scale = A[keep], b[keep], scale[keep]
        A, b = A / scale[:, None], b / scale
        self._A, self._b = np.concatenate([self._A, A]), np.concatenate([self._b, b])
        if self._highs is None:
            self._highs = self._empty()
        rows, columns = np.nonzero(A)
        starts = np.searchsorted(rows, np.arange(len(A))).astype(np.int32)
        self._highs.addRows(
            len(A), np.full(len(A), -np.inf), b / self._unit, len(rows), starts, columns.astype(np.int32), A[rows, columns]
        )

    def solve(self, limit: float) -> Array | None:
        """A point with the largest `c . delta + m` on the ball of `radius`, which then grows to what the multipliers prove.

        Args:
            limit: seconds.

        Returns:
            The point; None where the limit ended the run, or no method found an optimum.
        """
        h = self._highs
        n = len(self._c)
        low, high = np.maximum(self._low, -self.radius) / self._unit, np.minimum(self._high, self.radius) / self._unit
        h.changeColsBounds(n, np.arange(n, dtype=np.int32), low, high)
        if not self._optimal(limit):
            return None
        solution = h.getSolution()
        delta = np.clip(np.asarray(solution.col_value) * self._unit, self._low, self._high)
        # of a minimum, multipliers of rows `<=` are negative
        y = np.maximum(-np.asarray(solution.row_dual), 0.0) * self._size
        self.radius = max(self.radius, self._root(y))
        return delta

    def _optimal(self, limit: float) -> bool:
        """Runs the method that suits the size, and the other one where that ends without an optimum."""
        h, highspy = self._highs, HIGHS.module()
        until = time.perf_counter() + limit
        methods = ("simplex", "ipm") if self.rows < _MANY else ("ipm", "simplex")
        for method in methods:
            left = until - time.perf_counter()
            if left <= 0:
                return False
            h.setOptionValue("solver", method)
            h.setOptionValue("time_limit", h.getRunTime() + min(left, 1e9))
            status = h.run()
            highspy.Highs.resetGlobalScheduler(True)
            self.runs += 1
            if status != highspy.HighsStatus.kError and h.getModelStatus() == highspy.HighsModelStatus.kOptimal:
                return True
            h.clearSolver()
        return False

    def _root(self, y: Array) -> float:
        """The smallest e with `U_y(e) >= 0`."""
        d = self._c - self._A.T @ y
        m = self._m + float(y @ self._b)
        arrays = (torch.as_tensor(v, dtype=torch.float64) for v in (d[None], np.array([m]), self._low, self._high))
        return float(halfspace_radius(*arrays))

    def _empty(self) -> Any:
        h = HIGHS.instance()
        settings = {
            "presolve": "off", "threads": 1, "parallel": "off",
            "primal_feasibility_tolerance": _TOLERANCE, "dual_feasibility_tolerance": _TOLERANCE,
        }  # fmt: skip
        for key, value in settings.items():
            h.setOptionValue(key, value)
        n = len(self._c)
        zero = np.zeros(n)
        # columns in units of the radius that the half-space alone asks for
        h.addCols(n, -self._c / self._size, zero, zero, 0, np.zeros(n, np.int32), np.zeros(0, np.int32), np.zeros(0))
        return h
