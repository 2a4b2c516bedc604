r"""Bounds of units by linear programs (optimality-based bound tightening), where half-spaces (`tighten.py`) have done their part.

For every unstable unit its smallest and its largest pre-activation over the rows of the program with the binaries relaxed. That
relaxation knows all units and the question at once, while a backward pass chooses one line per unit.

What counts is never the solver's optimum but the bound that any multipliers y of the rows give,

    min { c x : r_l <= A x <= r_u, k_l <= x <= k_u } >= sum_i min(y_i r_l, y_i r_u) + sum_j min(d_j k_l, d_j k_u),   d = c - A^T y,

computed in float64 and moved outward by what that can round (Neumaier and Shcherbina 2004, eq. 8). So nothing rests on the solver's
tolerances, nor on its status: a run that is cut off gives a weaker bound, not a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array
from onnxsub.ops.encoding import LinExpr
from onnxsub.verifiers.milp.build import Encoding
from onnxsub.verifiers.milp.solvers import Problem, get_solver

__all__ = ["LP_SHARE", "Question", "safe_minimum", "tighten_by_programs"]

LP_SHARE = 0.25
"""Of the time left: what the programs of one target may take together."""

_NARROWEST = 1e-5  # as in tighten.py: slivers are where solvers lose their footing
_EACH = 10.0  # seconds that one linear program may take

Intervals = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Question:
    """What a program is about, encoded anew for tighter intervals.

    Attributes:
        network: whose units are bounded.
        whole: their intervals on the whole box, flattened.
        encode: the rows of the network for given intervals and units whose interval must stand as a row.
        rows: `row >= end` for every row that the points of interest satisfy, of such an encoding.
    """

    network: Network
    whole: Intervals
    encode: Callable[[Intervals, Mapping[str, Array]], Encoding]
    rows: Callable[[Encoding], list[tuple[LinExpr, float]]]


def tighten_by_programs(
    question: Question, intervals: Intervals, late: Callable[[], bool]
) -> tuple[dict[str, tuple[Array, Array]], dict[str, Array]] | None:
    """Intervals at the points of interest, never looser than `intervals`, and what has to be enforced; None: there is no point.

    Args:
        intervals: that hold at the points of interest.
        late: asked before every program; True ends the work with what is proved so far.
    """
    found = {name: (l.copy(), u.copy()) for name, (l, u) in intervals.items()}
    for op in question.network.activations:
        name = op.output
        units = np.flatnonzero(~_affine(op, found[name]))
        if len(units) == 0 or late():
            continue
        encoding = question.encode(found, _enforced(question, found))
        rows = question.rows(encoding)
        relaxed = _Relaxed(encoding.model.problem(encoding.logits.take(np.array([0])), *((e, end, np.inf) for e, end in rows)))
        if relaxed.empty(late):
            return None
        z = encoding.before[name].take(units)
        low, high = (end[units] for end in found[name])
        given = low.copy(), high.copy()
        for i in range(len(units)):
            row = z.take(np.array([i]))
            for sign in (1.0, -1.0):
                if late():
                    break
                bound = relaxed.minimum(row.scale(np.array([sign])))
                if sign > 0:
                    low[i] = max(low[i], bound)
                else:
                    high[i] = min(high[i], -bound)
        if (low > high).any():
            return None
        before = question.whole[name]
        short = (_NARROWEST * (before[1][units] - before[0][units]) - (high - low)).clip(min=0) / 2
        found[name][0][units] = np.maximum(low - short, given[0])
        found[name][1][units] = np.minimum(high + short, given[1])
    return found, _enforced(question, found)


def _affine(op: Activation, ends: tuple[Array, Array]) -> Array:
    lower, upper = (torch.as_tensor(np.array(e)).reshape(op.in_shapes[0]) for e in ends)
    return op.affine_on(lower, upper).flatten().numpy()


def _enforced(question: Question, found: Intervals) -> dict[str, Array]:
    """Units that are stable at the points of interest only: nothing else keeps the program to their interval."""
    whole = question.whole
    names = question.network.activations
    return {op.output: np.flatnonzero(_affine(op, found[op.output]) & ~_affine(op, whole[op.output])) for op in names}


class _Relaxed:
    """A program without its integrality, for one objective after the other from the last basis."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._highspy = get_solver("highs").module()
        h = self._h = self._highspy.Highs()
        settings = {"output_flag": False, "presolve": "off", "solver": "simplex", "threads": 1, "parallel": "off"}
        for key, value in settings.items():
            h.setOptionValue(key, value)
        inf = self._highspy.kHighsInf
        lower, upper = (np.clip(v, -inf, inf) for v in (problem.col_lower, problem.col_upper))
        row_lower, row_upper = (np.clip(v, -inf, inf) for v in (problem.row_lower, problem.row_upper))
        A = problem.A
        self._able = h.passModel(
            problem.columns, problem.rows, A.nnz, int(self._highspy.MatrixFormat.kColwise), int(self._highspy.ObjSense.kMinimize),
            0.0, np.zeros(problem.columns), lower, upper, row_lower, row_upper, A.indptr.astype(np.int32),
            A.indices.astype(np.int32), A.data, np.zeros(problem.columns, dtype=np.int32),
        ) != self._highspy.HighsStatus.kError  # fmt: skip
        self._columns = np.arange(problem.columns, dtype=np.int32)

    def minimum(self, expression: LinExpr) -> float:
        """A proved lower bound of an expression over the rows; `-inf` where the solver has no multipliers."""
        c = expression.widened(self._problem.columns).matrix.toarray().reshape(-1)
        y = self._multipliers(c)
        return safe_minimum(self._problem, c, y) + float(expression.constant[0])

    def empty(self, late: Callable[[], bool]) -> bool:
        """Whether multipliers prove that no point satisfies the rows: those of the least violation."""
        return not late() and self._infeasible()

    def _infeasible(self) -> bool:
        zero = np.zeros(self._problem.columns)
        self._multipliers(zero)
        if self._h.getModelStatus() != self._highspy.HighsModelStatus.kInfeasible:
            return False
        _, there, ray = self._h.getDualRay()
        if not there:
            return False
        y = np.asarray(ray, dtype=np.float64)
        y = y / max(float(np.abs(y).max(initial=0.0)), 1e-300)
        return max(safe_minimum(self._problem, zero, y), safe_minimum(self._problem, zero, -y)) > 0

    def _multipliers(self, c: Array) -> Array:
        """Duals of the rows at the end of a run; zeros where there are none."""
        h, none = self._h, np.zeros(self._problem.rows)
        if not self._able or h.changeColsCost(len(c), self._columns, c) == self._highspy.HighsStatus.kError:
            return none
        # the solver's clock runs on from one objective to the next
        h.setOptionValue("time_limit", h.getRunTime() + _EACH)
        status = h.run()
        self._highspy.Highs.resetGlobalScheduler(True)
        if status == self._highspy.HighsStatus.kError:
            return none
        solution: Any = h.getSolution()
        if not solution.dual_valid:
            return none
        y = np.asarray(solution.row_dual, dtype=np.float64)
        return y if y.shape == none.shape and np.isfinite(y).all() else none


def safe_minimum(problem: Problem, c: Array, y: Array) -> float:
    """The bound of the module for any `y`, moved outward by more than float64 can round; `-inf` where a needed end is infinite."""
    y = np.where((y > 0) & np.isinf(problem.row_lower), 0.0, y)
    y = np.where((y < 0) & np.isinf(problem.row_upper), 0.0, y)
    ends = np.where(y > 0, problem.row_lower, problem.row_upper)
    rows = y * np.where(y == 0, 0.0, ends)
    A = sp.csr_array(problem.A.T)
    d = c - A @ y
    stops = np.where(d > 0, problem.col_lower, problem.col_upper)
    if np.isinf(stops[d != 0]).any():
        return -np.inf
    columns = d * np.where(d == 0, 0.0, stops)
    far = np.maximum(np.abs(problem.col_lower), np.abs(problem.col_upper))
    size = float(np.abs(rows).sum() + (np.abs(c) + abs(A) @ np.abs(y)) @ np.where(np.isinf(far), 0.0, far))
    value = float(rows.sum() + columns.sum())
    return value - 1e-9 * abs(value) - 1e-12 * size - 1e-300
