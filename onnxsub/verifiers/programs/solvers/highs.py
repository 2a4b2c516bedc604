"""HiGHS (MIT), the default solver."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np

from onnxsub.verifiers.programs.solvers.base import Capability, Problem, Solution, Solver, SolverOptions, SolverStatus
from onnxsub.verifiers.programs.solvers.interrupt import run_interruptible

__all__ = ["STATUS", "Highs"]

STATUS: dict[str, SolverStatus | None] = {
    "kOptimal": SolverStatus.OPTIMAL,
    "kObjectiveTarget": SolverStatus.TARGET,
    "kObjectiveBound": SolverStatus.CUTOFF,
    "kInfeasible": SolverStatus.INFEASIBLE,
    "kUnbounded": SolverStatus.UNBOUNDED,
    "kTimeLimit": SolverStatus.TIME_LIMIT,
    "kIterationLimit": SolverStatus.NODE_LIMIT,
    "kSolutionLimit": SolverStatus.NODE_LIMIT,
    "kInterrupt": SolverStatus.INTERRUPTED,
    "kHighsInterrupt": SolverStatus.INTERRUPTED,
    "kUnknown": SolverStatus.UNKNOWN,
    # proves neither; only presolve says it, which is off
    "kUnboundedOrInfeasible": SolverStatus.UNKNOWN,
    # None: an error, raised
    "kNotset": None,
    "kLoadError": None,
    "kModelError": None,
    "kPresolveError": None,
    "kSolveError": None,
    "kPostsolveError": None,
    "kMemoryLimit": None,
    "kModelEmpty": SolverStatus.OPTIMAL,
}
"""Every `HighsModelStatus`, by name."""


_LEAN: dict[str, Any] = {
    # The rows of a folded network are dense. Presolve multiplies them out, and cuts and heuristics spend more on them than the
    # whole tree costs: 2.6 s against 17 s with the defaults (PERFORMANCE.md).
    "presolve": "off",
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
    "mip_allow_cut_separation_at_nodes": False,
    "mip_allow_restart": False,
    "mip_detect_symmetry": False,
    "mip_pscost_minreliable": 2,
}


_INTEGRALITY = 1e-6
"""HiGHS's own tolerance, and the smallest one used. At 1e-9, HiGHS 1.15 calls programs of a dozen binaries infeasible that hold a
point (`test_no_point_is_lost_to_the_tolerance_of_integers`). A larger one only admits more; points are replayed anyway."""


_FINAL = (SolverStatus.INFEASIBLE, SolverStatus.NODE_LIMIT, SolverStatus.TIME_LIMIT, SolverStatus.INTERRUPTED)
"""Of the linear program of the root: with these the program with integers is not begun."""


class _Root:
    """Ends a run whose root takes too many rounds of work: HiGHS looks whether it is to stop twice in each round of cuts.

    Attributes:
        most: rounds that are allowed; 0: it does not count.
        over: whether they are spent.
    """

    def __init__(self, most: int) -> None:
        self.most, self.over = most, False
        self._looks = 0

    def look(self, event: Any) -> None:
        """Told at each look."""
        if event.data_out.mip_node_count <= 0:
            self._looks += 1
            self.over = self._looks > 2 * self.most
        if self.over:
            event.interrupt()


@cache
def _silent(highspy: Any) -> Any:
    class Silent(highspy.Highs):  # type: ignore[misc]
        def enableCallbacks(self) -> None:  # noqa: N802 - the name is the package's; its constructor calls it first
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()

    return Silent


class Highs(Solver):
    """`highspy`: `passModel` with CSC arrays, interrupted by its callbacks."""

    name: ClassVar[str] = "highs"
    package: ClassVar[str] = "highspy"
    extra: ClassVar[str | None] = None
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    def license_status(self) -> str:
        return "HiGHS: MIT licence, no limits"

    def instance(self) -> Any:
        """A `highspy.Highs` that prints nothing: version 1.16 prints a banner while it is made, before an option can be set."""
        return _silent(self.module())()

    def _run(self, problem: Problem, options: SolverOptions, stop: threading.Event) -> Solution:
        root = _Root(0)
        if options.nodes is not None and problem.binaries:
            root = _Root(problem.most_rounds(options.nodes))
            # HiGHS limits neither the linear program of the root nor the rounds of cuts there
            began = time.perf_counter()
            relaxed = self._run(problem.relaxed, replace(options, start=None, stop_at=None), stop)
            if relaxed.status in _FINAL:
                return relaxed
            if options.time_limit is not None:
                options = replace(options, time_limit=options.time_limit - (time.perf_counter() - began))
        highspy, h = self.module(), self.instance()
        self._configure(h, options)
        if root.most:
            h.cbMipInterrupt += root.look
        elif options.nodes is not None:
            h.setOptionValue("simplex_iteration_limit", problem.most_iterations(options.nodes))
        self._check(highspy, h.passModel(*_arrays(highspy, problem)), "the model was refused")
        if options.start is not None:
            start = highspy.HighsSolution()
            start.col_value = [float(v) for v in options.start]
            h.setSolution(start)
        h.HandleUserInterrupt = True

        def work() -> Any:
            # the pool of threads belongs to the calling thread, so that two runs with different `threads` do not meet
            status = h.run()
            highspy.Highs.resetGlobalScheduler(True)
            return status

        outcome = run_interruptible(work, h.cancelSolve, stop, options.time_limit)
        self._check(highspy, outcome, "an error status was returned")
        name = str(h.getModelStatus().name)
        status = STATUS.get(name)
        if status is None:
            raise self._failed(h.modelStatusToString(h.getModelStatus()))
        if status is SolverStatus.INTERRUPTED and root.over and not stop.is_set():
            status = SolverStatus.NODE_LIMIT
        return _solution(h, problem, status, mip=bool(problem.binaries))

    def _configure(self, h: Any, options: SolverOptions) -> None:
        values = _LEAN | {
            "random_seed": int(options.seed) % 2**31,
            "mip_rel_gap": float(options.rel_gap),
            "mip_abs_gap": float(options.abs_gap),
            "primal_feasibility_tolerance": max(options.feasibility, 1e-10),
            "dual_feasibility_tolerance": max(options.feasibility, 1e-10),
            "mip_feasibility_tolerance": max(options.integrality, _INTEGRALITY),
        }
        if options.threads is not None:
            values["threads"] = int(options.threads)
        if options.time_limit is not None:
            values["time_limit"] = max(float(options.time_limit), 1e-3)
        if options.nodes is not None:
            values["mip_max_nodes"] = int(options.nodes)
        if options.stop_at is not None:
            values["objective_target"] = float(options.stop_at)
        for key, value in values.items():
            if h.setOptionValue(key, value).name != "kOk":
                raise self._failed(f"option {key} = {value} was refused")

    def _check(self, highspy: Any, status: Any, what: str) -> None:
        if status == highspy.HighsStatus.kError:
            raise self._failed(what)


def _arrays(highspy: Any, p: Problem) -> tuple[Any, ...]:
    inf = highspy.kHighsInf
    A = p.A.tocsc()
    lower, upper, row_lower, row_upper = (np.clip(v, -inf, inf) for v in (p.col_lower, p.col_upper, p.row_lower, p.row_upper))
    return (
        p.columns, p.rows, A.nnz, int(highspy.MatrixFormat.kColwise), int(highspy.ObjSense.kMinimize), p.offset,
        p.c, lower, upper, row_lower, row_upper,
        A.indptr.astype(np.int32), A.indices.astype(np.int32), A.data,
        p.integer.astype(np.int32),
    )  # fmt: skip


def _solution(h: Any, problem: Problem, status: SolverStatus, *, mip: bool) -> Solution:
    info = h.getInfo()
    nodes = max(int(info.mip_node_count), 0) if mip else 0
    if status is SolverStatus.INFEASIBLE:
        return Solution(status, None, None, math.inf, nodes, 0.0)
    x = None
    # 2: feasible (kSolutionStatusFeasible)
    if info.primal_solution_status == 2 and status is not SolverStatus.UNBOUNDED:
        x = np.asarray(h.getSolution().col_value, dtype=np.float64)
    objective = None if x is None else problem.objective(x)
    if mip:
        bound = float(info.mip_dual_bound)
    else:
        bound = objective if status is SolverStatus.OPTIMAL and objective is not None else -math.inf
    if status is SolverStatus.UNBOUNDED or not math.isfinite(bound):
        bound = -math.inf
    return Solution(status, x, objective, bound, nodes, 0.0)
