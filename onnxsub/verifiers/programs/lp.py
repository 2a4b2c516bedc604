"""A linear program that HiGHS keeps, to be solved again and again from its last basis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.programs.solvers import HIGHS, Problem

__all__ = ["WarmProgram"]

_SETTINGS = {"presolve": "off", "solver": "simplex", "threads": 1, "parallel": "off"}


class WarmProgram:
    """A program without its integrality.

    Attributes:
        highs: the solver's own object. able: whether it took the program.

    Args:
        objective: whether the costs of the program count; else they are 0 until `costs` says otherwise.
        settings: more options of HiGHS.
    """

    def __init__(self, problem: Problem, *, objective: bool = True, **settings: Any) -> None:
        self._highspy = highspy = HIGHS.module()
        self._columns = np.arange(problem.columns, dtype=np.int32)
        self.highs = h = HIGHS.instance()
        for key, value in {**_SETTINGS, **settings}.items():
            h.setOptionValue(key, value)
        self.able = problem.ordinary
        if not self.able:
            return
        inf = highspy.kHighsInf
        ends = (problem.col_lower, problem.col_upper, problem.row_lower, problem.row_upper)
        lower, upper, row_lower, row_upper = (np.clip(v, -inf, inf) for v in ends)
        A = problem.A
        self.able = h.passModel(
            problem.columns, problem.rows, A.nnz, int(highspy.MatrixFormat.kColwise), int(highspy.ObjSense.kMinimize),
            problem.offset if objective else 0.0, problem.c if objective else np.zeros(problem.columns), lower, upper, row_lower,
            row_upper, A.indptr.astype(np.int32), A.indices.astype(np.int32), A.data, np.zeros(problem.columns, dtype=np.int32),
        ) != highspy.HighsStatus.kError  # fmt: skip

    def costs(self, c: Array) -> None:
        """A new objective."""
        self.able = self.able and self.highs.changeColsCost(len(c), self._columns, c) != self._highspy.HighsStatus.kError

    def run(self, seconds: float, budget: Budget | None = None) -> bool:
        """Solves, for at most so many seconds; whether the solver ended without an error. Its word proves nothing."""
        if not self.able:
            return False
        h = self.highs
        if budget is not None:
            seconds = max(min(seconds, math.inf if budget.counted else budget.remaining), 1e-3)
        # the solver's clock runs on from one run to the next
        h.setOptionValue("time_limit", h.getRunTime() + seconds)
        status = h.run()
        self._highspy.Highs.resetGlobalScheduler(True)
        return bool(status != self._highspy.HighsStatus.kError)

    @property
    def status(self) -> str:
        """The solver's word, as `kOptimal`."""
        return str(self.highs.getModelStatus().name)

    @property
    def multipliers(self) -> Array:
        """Multipliers of the rows; zeros where the solver has none."""
        solution: Any = self.highs.getSolution()
        y = np.asarray(solution.row_dual, dtype=np.float64)
        none = np.zeros(self.highs.getNumRow())
        return y if solution.dual_valid and y.shape == none.shape and np.isfinite(y).all() else none

    @property
    def ray(self) -> Array | None:
        """A ray of the dual, its largest entry 1: a combination of rows that every point may violate; None: there is none."""
        _, there, ray = self.highs.getDualRay()
        if not there:
            return None
        y = np.asarray(ray, dtype=np.float64)
        size = float(np.abs(y).max(initial=0.0))
        return y / size if 0 < size < np.inf else None
