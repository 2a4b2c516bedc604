r"""The nearest point at which a row is reached where it is known which element of every rising maximum counts: linear programs.

With these elements in place the row is concave in the others, and its largest value within a radius a small linear program: the
offsets and one column per unit that is left, at least each of its elements. Units that the row may rise and fall with get rows
that say which element is the largest. The value rises with the radius and is concave in it, so Newton steps on the radius, each
from the multipliers of the last program, come to where it is zero. What counts is the line that the multipliers give as mixtures
of elements, in closed form, never the solver's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.pieces.maxima import Maxima
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
    """The programs of a row; one is kept by the solver and solved from its last basis while its rows stay the same."""

    def __init__(self, row: Maxima, budget: Budget) -> None:
        self._row, self._budget = row, budget
        self._free = [q for q in row.falling if q not in row.rising]
        self._column = {q: len(row.a) + i for i, q in enumerate(self._free)}
        both = set(row.rising) & set(row.falling)
        self._ordered = [q for q in row.rising if q in both and not row.depths[q]]
        self._far = far = np.maximum(np.abs(row.low), np.abs(row.high))
        ends = np.zeros(len(row.units))  # no unit is farther from zero
        for q, unit in enumerate(row.units):
            ends[q] = float((np.abs(unit.w) @ far + np.abs(unit.v) @ ends + np.abs(unit.b)).max())
        self._ends = ends[self._free] + 1.0
        self._same = not row.depths.any() and not self._ordered
        self._program: WarmProgram | None = None

    def nearest(self, chosen: Sequence[int], most: float) -> Nearest:
        """The nearest point within `most` with one element of every rising unit."""
        radius, point = most, None
        picked = self._picked(chosen)
        for _ in range(_NEWTON):
            found = self._largest(picked, radius)
            if found is None:
                return Nearest(0.0, None)
            y, d = found
            line = self._line(picked, y)
            if line is None:
                return Nearest(0.0, None)
            reached = self._zero(*line, most)
            if point is None and reached >= most:
                return Nearest(most, None)
            point = d
            if abs(reached - radius) <= _SAME * most:
                radius = reached
                break
            radius = reached
        return Nearest(radius, point)

    def farther(self, chosen: Sequence[int], radius: float) -> Array | None:
        """The point within a radius at which the row is largest with one element of every rising unit."""
        found = self._largest(self._picked(chosen), radius)
        return None if found is None else found[1]

    def _picked(self, chosen: Sequence[int]) -> dict[int, int]:
        return dict(zip(self._row.rising, chosen, strict=True))

    def _rows(self, picked: dict[int, int]) -> list[tuple[int, int, int]]:
        """Unit, the element that another value is at least as large as, and the one that has it; -1: the unit's own column."""
        found = [(q, i, -1) for q in self._free for i in range(len(self._row.units[q].b))]
        ordered = ((q, i, picked[q]) for q in self._ordered for i in range(len(self._row.units[q].b)))
        return found + [r for r in ordered if r[1] != r[2]]

    def _expressed(self, picked: dict[int, int]) -> tuple[Array, Array]:
        """Every unit over the columns and 1: `(Q, columns + 1)`; the row likewise."""
        row = self._row
        n, columns = len(row.a), len(row.a) + len(self._free)
        units = np.zeros((len(row.units), columns + 1))
        for q in range(len(row.units)):
            if q in self._column:
                units[q, self._column[q]] = 1.0
            elif q in picked:
                units[q] = self._element(q, picked[q], units)
        whole = row.weights @ units
        whole[:n] += row.a
        whole[-1] += row.k
        return units, whole

    def _element(self, q: int, i: int, units: Array) -> Array:
        unit = self._row.units[q]
        found: Array = unit.v[i] @ units
        found[: unit.w.shape[1]] += unit.w[i]
        found[-1] += unit.b[i]
        return found

    def _built(self, units: Array, picked: dict[int, int], whole: Array) -> WarmProgram:
        """`max whole` where every row of `_rows` holds."""
        A = np.zeros((len(self._rows(picked)), len(whole)))
        for r, (q, i, j) in enumerate(self._rows(picked)):
            A[r] = self._element(q, i, units) - (units[q] if j < 0 else self._element(q, j, units))
        low, high = np.concatenate([self._row.low, -self._ends]), np.concatenate([self._row.high, self._ends])
        c, none = -whole[:-1], np.zeros(len(low), dtype=np.bool_)
        return WarmProgram(Problem(c, 0.0, sp.csc_array(A[:, :-1]), np.full(len(A), -np.inf), -A[:, -1], low, high, none))

    def _largest(self, picked: dict[int, int], radius: float) -> tuple[Array, Array] | None:
        """Multipliers and a point at which the concave row is largest within a radius."""
        units, whole = self._expressed(picked)
        program, n = self._program, len(self._row.a)
        if program is None or not self._same:
            program = self._program = self._built(units, picked, whole)
        if not program.able:
            return None
        low, high = self._row.within(radius)
        program.costs(-whole[:-1])
        program.highs.changeColsBounds(n, np.arange(n, dtype=np.int32), low, np.maximum(low, high))
        if not program.run(_SECONDS, self._budget) or program.status != "kOptimal":
            return None
        return np.maximum(-program.multipliers, 0.0), np.asarray(program.highs.getSolution().col_value, dtype=np.float64)[:n]

    def _line(self, picked: dict[int, int], y: Array) -> tuple[Array, float, float] | None:
        """Slope, offset and the size of all terms of a line that the row stays below, with y as mixtures; None: some unit is left
        with a positive weight."""
        row = self._row
        extra = {q: np.zeros(len(row.units[q].b)) for q in (*self._free, *self._ordered)}
        for (q, i, j), value in zip(self._rows(picked), y.tolist(), strict=True):
            # a row says that this element is at most the unit's own value
            extra[q][i] -= value
            if j >= 0:
                extra[q][j] += value
        a, k, v, size = row.a.copy(), row.k, row.weights.copy(), row.size
        for q in reversed(range(len(row.units))):
            unit = row.units[q]
            if q in picked:
                own = extra[q].copy() if q in extra else np.zeros(len(unit.b))
                own[picked[q]] += v[q]
            elif v[q] > 0:
                return None
            elif v[q] == 0:
                continue
            else:
                total = -extra[q].sum()
                own = extra[q] / total * -v[q] if total > 0 else np.full(len(unit.b), v[q] / len(unit.b))
            a, k, v = a + own @ unit.w, k + float(own @ unit.b), v + own @ unit.v
            size += float(np.abs(own) @ (np.abs(unit.w) @ self._far + np.abs(unit.b)))
        return a, k, size

    def _zero(self, slope: Array, offset: float, size: float, most: float) -> float:
        """The largest radius, as far as `most`, within which a line is negative."""

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
