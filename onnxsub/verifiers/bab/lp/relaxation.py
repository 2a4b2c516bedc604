r"""The linear relaxation of a target's program, solved again and again from the last basis; what counts are its multipliers.

For any multipliers y of the rows of `min { c v : r_l <= A v <= r_u, k_l <= v <= k_u }` the dual function is linear in the ends
of the columns. The columns of the input stand for `x - x0`, so y gives, as a backward pass does (`bound.py`),

    f_t(x) - f_y(x) <= a \cdot (x - x0) + k    for all x of the node,

with `a = -(c - A^T y)` on the columns of the input and everything else in k (`programs/dual_bound.py`). Nothing rests on the
solver's tolerances or status: wrong multipliers give a weak line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.lp.hull import Cut
from onnxsub.verifiers.bab.lp.long_step import Columns, long_steps
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.programs.dual_bound import Multipliers
from onnxsub.verifiers.programs.lp import WarmProgram
from onnxsub.verifiers.programs.solvers import Problem
from onnxsub.verifiers.proof import excludes

__all__ = ["Relaxation", "Solved"]

_ITERATIONS = 20_000  # of the simplex method, for one program
_SECONDS = 10.0  # for the same
_ROOM = 1e-6  # of a program's ball, beyond the radius that is asked about


@dataclass(frozen=True, eq=False)
class Solved:
    """One linear program.

    Attributes:
        slope: `a` of the module in units of R, one per input column. constant: k.
        columns: the solution, None where there is none.
        empty: multipliers prove that no point of the node lies in the ball that was asked about.
        multipliers: y.
    """

    slope: Array
    constant: float
    columns: Array | None
    empty: bool
    multipliers: Array


class Relaxation:
    """`max f_t - f_y` over a target's points with its binaries relaxed, and some of them fixed.

    Attributes:
        binaries: column numbers.
        units: of the input columns.
    """

    def __init__(self, model: ClauseModel, budget: Budget) -> None:
        problem, self.steps, self.units = model.relaxed()
        self._budget = budget
        self.binaries = np.flatnonzero(problem.integer)
        self._hold(problem)
        self._own = problem.rows
        self._is_step = np.zeros(problem.columns, dtype=bool)
        self._is_step[self.steps] = True
        self._step_order = np.argsort(np.argsort(self.steps))
        self.low, self.high = problem.col_lower[self.steps], problem.col_upper[self.steps]
        self._lower, self._upper = problem.col_lower.copy(), problem.col_upper.copy()
        self._fixed: dict[int, int] = {}
        self._radius = np.inf
        self._last: Solved | None = None
        self._program = WarmProgram(problem, simplex_iteration_limit=_ITERATIONS)
        self._h = self._program.highs

    def _hold(self, problem: Problem) -> None:
        self._problem = problem
        self._rows = Multipliers.of(problem)

    @property
    def ordinary(self) -> bool:
        """Whether a solver can work with its numbers."""
        return self._problem.ordinary

    @property
    def problem(self) -> Problem:
        """The program as it stands, cuts included."""
        return self._problem

    def drop(self, room: float) -> None:
        """Takes out the cuts that the last solution is farther than `room` from."""
        p = self._problem
        slack = p.row_upper - np.asarray(self._h.getSolution().row_value)
        gone = np.flatnonzero((slack > room) & (np.arange(p.rows) >= self._own) & np.isneginf(p.row_lower))
        if len(gone) == 0:
            return
        self._last = None
        self._h.deleteRows(len(gone), gone.astype(np.int32))
        kept = np.ones(p.rows, dtype=np.bool_)
        kept[gone] = False
        A = sp.csc_array(sp.csr_array(p.A)[kept])
        self._hold(replace(p, A=A, row_lower=p.row_lower[kept], row_upper=p.row_upper[kept]))

    def add(self, cuts: list[Cut]) -> None:
        """Rows more, which hold wherever the binaries are 0 or 1."""
        self._last = None
        p, starts = self._problem, np.cumsum([0, *(len(c.columns) for c in cuts)])
        index, data = np.concatenate([c.columns for c in cuts]), np.concatenate([c.coefficients for c in cuts])
        below, ends = np.full(len(cuts), -np.inf), np.array([c.upper for c in cuts])
        rows = sp.csr_array((data, index, starts), shape=(len(cuts), p.columns))
        rows.sum_duplicates()  # HiGHS takes no row that names a column twice
        starts = rows.indptr[:-1].astype(np.int32)
        self._h.addRows(len(cuts), below, ends, rows.nnz, starts, rows.indices.astype(np.int32), rows.data)
        lower, upper = np.concatenate([p.row_lower, below]), np.concatenate([p.row_upper, ends])
        self._hold(replace(p, A=sp.csc_array(sp.vstack([p.A, rows])), row_lower=lower, row_upper=upper))

    def widen(self, columns: int, rows: sp.csr_array) -> None:
        """Columns more, from 0 to 1 each and without costs, and rows over all columns, which are 0."""
        self._last = None
        p, count = self._problem, rows.shape[0]
        zero, one, no = np.zeros(columns), np.ones(columns), np.zeros(0)
        self._h.addCols(columns, zero, zero, one, 0, np.zeros(columns, dtype=np.int32), no.astype(np.int32), no)
        ends = np.zeros(count)
        starts = rows.indptr[:-1].astype(np.int32)
        self._h.addRows(count, ends, ends, rows.nnz, starts, rows.indices.astype(np.int32), rows.data)
        self._lower, self._upper = np.concatenate([self._lower, zero]), np.concatenate([self._upper, one])
        self._is_step = np.concatenate([self._is_step, zero.astype(bool)])
        A = sp.vstack([sp.hstack([p.A, sp.csc_array((p.rows, columns))]), rows])
        self._hold(Problem(
            np.concatenate([p.c, zero]), p.offset, sp.csc_array(A), np.concatenate([p.row_lower, ends]),
            np.concatenate([p.row_upper, ends]), np.concatenate([p.col_lower, zero]), np.concatenate([p.col_upper, one]),
            np.concatenate([p.integer, zero.astype(p.integer.dtype)]),
        ))  # fmt: skip

    def solve(self, fixed: dict[int, int], radius: float) -> Solved:
        """The relaxation with binaries (by column) fixed, over the inputs within `radius` of the anchor."""
        self._fix(fixed)
        self._within(radius)
        self._last = self._ran()
        return self._last

    def _ran(self) -> Solved:
        none = np.zeros(self._problem.rows)
        if not self._program.run(_SECONDS, self._budget):
            return self._solved(none, None)
        if self._program.status == "kInfeasible":
            return self._refuted(none)
        solution = self._h.getSolution()
        columns = np.asarray(solution.col_value, dtype=np.float64) if solution.value_valid else None
        return self._solved(self._program.multipliers, columns)

    def ahead(self, solved: Solved, fixed: dict[int, int], radius: float, numbers: Array) -> Array:
        """Upper bounds of `f_t - f_y`, `(k, 2)`, on a node with one more binary fixed, at 0 and at 1.

        Proved where they are negative. They are what one long step of the dual simplex method gives.

        Args:
            solved: what `solve(fixed, radius)` brought; it is solved again where other programs came after it.
            numbers: of binaries that are fractional in its solution.
        """
        if solved is not self._last:
            solved = self.solve(fixed, radius)
        value = self.value(solved, radius)
        found = np.full((len(numbers), 2), value)
        _, basic = self._h.getBasicVariables()
        places = {int(c): r for r, c in enumerate(basic) if c >= 0}
        at = [i for i, k in enumerate(numbers) if int(self.binaries[k]) in places]
        if not at:
            return found
        columns = self.binaries[numbers[at]]
        rows = np.stack([np.asarray(self._h.getBasisInverseRow(places[int(c)])[1], dtype=np.float64) for c in columns])
        p, y = self._problem, solved.multipliers
        low, high = self._lower.copy(), self._upper.copy()
        low[self.steps], high[self.steps] = self._span(radius / self.units)
        both = Columns(
            np.concatenate([p.c - self._rows.transposed @ y, y]),
            np.concatenate([low, p.row_lower]),
            np.concatenate([high, p.row_upper]),
        )
        steps = long_steps(both, np.hstack([(self._rows.transposed @ rows.T).T, -rows]), columns, max(value, 0.0))
        found[at] = value - steps.gain
        for i, side in zip(*np.nonzero(found[at] < 0), strict=True):
            found[at[i], side] = self._fixed_at(int(columns[i]), side, y + steps.step[i, side] * rows[i])
        return found

    def _fixed_at(self, column: int, value: int, y: Array) -> float:
        """A proved bound of the last node with one more binary fixed, from given multipliers."""
        ends = self._lower[column], self._upper[column]
        self._lower[column] = self._upper[column] = value
        solved = self._solved(y, None)
        self._lower[column], self._upper[column] = ends
        return self.value(solved, self._radius)

    def _refuted(self, nothing: Array) -> Solved:
        """What a ray of the dual proves, if anything: it is a violated combination of rows."""
        ray = self._program.ray
        empty = False
        if ray is not None:
            zero = np.zeros(self._problem.columns)
            for y in (ray, -ray):
                a, k = self._line(zero, y)
                # the line of a zero objective: where it is negative there is no point at all
                empty = empty or excludes(k + float(self.ends(a, self._radius / self.units) @ a))
        return replace(self._solved(nothing if ray is None else ray, None), empty=empty)

    def _solved(self, y: Array, columns: Array | None) -> Solved:
        a, k = self._line(self._problem.c, y)
        return Solved(a, k - self._problem.offset, columns, False, y)

    def _line(self, c: Array, y: Array) -> tuple[Array, float]:
        a, k = self._rows.line(c, y, self._lower, self._upper, self._is_step)
        return a[self._step_order], k

    def ends(self, a: Array, radius: Array) -> Array:
        """The point of the box within `radius` (in units of the columns) at which `a . t` is largest."""
        below, above = self._span(radius)
        return np.where(a > 0, above, below)

    def _span(self, radius: Array) -> tuple[Array, Array]:
        """The ends of the input columns within `radius` (in units of the columns)."""
        return np.maximum(self.low, np.minimum(-radius, self.high)), np.minimum(self.high, np.maximum(radius, self.low))

    def value(self, solved: Solved, radius: float) -> float:
        """A proved upper bound of `f_t - f_y` on the node within `radius`; `-inf` where it is empty."""
        if solved.empty:
            return -np.inf
        return solved.constant + float(self.ends(solved.slope, radius / self.units) @ solved.slope)

    def reach(self, solved: Solved, radius: float) -> float:
        """A proved distance of the node: its line is negative on every smaller ball; at most `radius`."""
        if solved.empty or excludes(self.value(solved, radius)):
            return radius
        low, high = 0.0, radius
        for _ in range(60):
            middle = (low + high) / 2
            if excludes(self.value(solved, middle)):
                low = middle
            else:
                high = middle
            if high - low <= 1e-12 * radius:
                break
        return low

    def _fix(self, fixed: dict[int, int]) -> None:
        for column in self._fixed.keys() - fixed.keys():
            self._column(column, 0.0, 1.0)
        for column, value in fixed.items():
            if self._fixed.get(column) != value:
                self._column(column, float(value), float(value))
        self._fixed = dict(fixed)

    def _column(self, column: int, lower: float, upper: float) -> None:
        self._lower[column], self._upper[column] = lower, upper
        self._h.changeColBounds(column, lower, upper)

    def _within(self, radius: float) -> None:
        if radius == self._radius:
            return
        self._radius = radius
        low, high = self._span(radius * (1 + _ROOM) / self.units)
        self._h.changeColsBounds(len(self.steps), self.steps.astype(np.int32), low, high)
