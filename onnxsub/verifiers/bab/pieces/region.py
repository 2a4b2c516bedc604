r"""The nearest point at which a row is reached where it is known which element of every maximum counts: linear programs.

With the elements chosen the row is concave, `a . d + k + sum_i min_j (..)`, and its largest value within a radius a small linear
program: the offsets and one column per minimum. That value rises with the radius and is concave in it, so Newton steps on the
radius, each from the multipliers of the last program, come to where it is zero. What counts is the line that the multipliers
give as a mixture of the minima's elements, in closed form, never the solver's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.pieces.maxima import Affines, Maxima
from onnxsub.verifiers.programs.lp import WarmProgram
from onnxsub.verifiers.programs.solvers import Problem
from onnxsub.verifiers.proof import excludes

__all__ = ["Nearest", "Region"]

_SECONDS = 10.0  # of one program
_NEWTON = 20
_SAME = 1e-10  # relative change of the radius at which the steps end
_HALVINGS = 60
_OF_TERMS = 1e-12  # of the sizes of all terms: thousands of times what float64 can round


@dataclass(frozen=True, eq=False)
class Nearest:
    """What programs of one choice say.

    Attributes:
        radius: proved: with these elements the row is negative within it, as far as was asked.
        point: the offset at which it is reached there, `(n,)`; None: there is none.
    """

    radius: float
    point: Array | None


class Region:
    """The programs of a row, one kept by the solver and solved from its last basis."""

    def __init__(self, row: Maxima, budget: Budget) -> None:
        self._row, self._budget = row, budget
        n, falling = len(row.a), row.falling
        self._members = [len(e.b) for e in falling]
        self._all = Affines.joined(falling, n)
        count, rows = len(falling), len(self._all.b)
        minimum = np.repeat(np.arange(count), self._members)
        tied = sp.csr_array((np.ones(rows), (np.arange(rows), minimum)), shape=(rows, count))
        A = sp.csc_array(sp.hstack([sp.csr_array(-self._all.w), tied]))
        far = np.maximum(np.abs(row.low), np.abs(row.high))
        most = np.array([float((np.abs(e.w) @ far + np.abs(e.b)).max()) for e in falling])
        self._ends = most + 1.0
        self._costs = -np.ones(count)
        low, high = np.concatenate([row.low, -self._ends]), np.concatenate([row.high, self._ends])
        none = np.zeros(n + count, dtype=np.bool_)
        c = np.concatenate([-row.a, self._costs])
        self._program = WarmProgram(Problem(c, 0.0, A, np.full(rows, -np.inf), self._all.b, low, high, none))

    def nearest(self, chosen: Sequence[int], most: float) -> Nearest:
        """The nearest point within `most` with one element of every maximum."""
        a, k = self._chosen(chosen)
        radius, point = most, None
        for _ in range(_NEWTON):
            found = self._largest(a, radius)
            if found is None:
                return Nearest(0.0, None)
            mu, d = found
            slope, offset = a + mu @ self._all.w, k + float(mu @ self._all.b)
            reached = self._zero(slope, offset, most)
            if point is None and reached >= most:
                return Nearest(most, None)
            point = d
            if abs(reached - radius) <= _SAME * most:
                radius = reached
                break
            radius = reached
        return Nearest(radius, point)

    def farther(self, chosen: Sequence[int], radius: float) -> Array | None:
        """The point within a radius at which the row is largest with one element of every maximum."""
        found = self._largest(self._chosen(chosen)[0], radius)
        return None if found is None else found[1]

    def _chosen(self, chosen: Sequence[int]) -> tuple[Array, float]:
        own = [e.take([k]) for e, k in zip(self._row.rising, chosen, strict=True)]
        return self._row.a + sum(e.w[0] for e in own), self._row.k + sum(float(e.b[0]) for e in own)

    def _largest(self, a: Array, radius: float) -> tuple[Array, Array] | None:
        """Mixtures of the minima and a point at which the concave row is largest within a radius."""
        program, n = self._program, len(a)
        if not program.able:
            return None
        low, high = self._row.within(radius)
        program.costs(np.concatenate([-a, self._costs]))
        h = program.highs
        h.changeColsBounds(n, np.arange(n, dtype=np.int32), low, np.maximum(low, high))
        if not program.run(_SECONDS, self._budget) or program.status != "kOptimal":
            return None
        weights = np.maximum(-program.multipliers, 0.0)
        total = np.add.reduceat(weights, np.cumsum([0, *self._members[:-1]])) if self._members else np.zeros(0)
        if (total <= 0).any():
            return None
        mu = weights / np.repeat(total, self._members)
        return mu, np.asarray(h.getSolution().col_value, dtype=np.float64)[:n]

    def _zero(self, slope: Array, offset: float, most: float) -> float:
        """The largest radius, as far as `most`, within which a line is negative."""
        size = abs(offset) + float(np.abs(slope) @ np.maximum(np.abs(self._row.low), np.abs(self._row.high)))

        def negative(radius: float) -> bool:
            low, high = self._row.within(radius)
            return excludes(float(np.maximum(slope * low, slope * high).sum()) + offset + _OF_TERMS * size)

        if negative(most):
            return most
        low, high = 0.0, most
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if negative(middle) else (low, middle)
        return low
