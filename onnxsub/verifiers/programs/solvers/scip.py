"""SCIP (Apache-2.0) by `pyscipopt`."""

from __future__ import annotations

import math
import threading
from typing import Any, ClassVar

import numpy as np

from onnxsub.verifiers.programs.solvers.base import Capability, Problem, Solution, Solver, SolverOptions, SolverStatus
from onnxsub.verifiers.programs.solvers.interrupt import run_interruptible

__all__ = ["STATUS", "Scip"]

STATUS: dict[str, SolverStatus | None] = {
    "optimal": SolverStatus.OPTIMAL,
    "gaplimit": SolverStatus.OPTIMAL,
    "infeasible": SolverStatus.INFEASIBLE,
    "unbounded": SolverStatus.UNBOUNDED,
    # proves neither; only presolve says it, which is off
    "inforunbd": SolverStatus.UNKNOWN,
    "timelimit": SolverStatus.TIME_LIMIT,
    "nodelimit": SolverStatus.NODE_LIMIT,
    "totalnodelimit": SolverStatus.NODE_LIMIT,
    "stallnodelimit": SolverStatus.NODE_LIMIT,
    "sollimit": SolverStatus.NODE_LIMIT,
    "bestsollimit": SolverStatus.NODE_LIMIT,
    "restartlimit": SolverStatus.NODE_LIMIT,
    "primallimit": SolverStatus.TARGET,
    "duallimit": SolverStatus.CUTOFF,
    "userinterrupt": SolverStatus.INTERRUPTED,
    "unknown": SolverStatus.UNKNOWN,
    # None: an error, raised
    "memlimit": None,
}
"""Every status that `Model.getStatus` names."""


_TIGHTEST = 1e-7


class Scip(Solver):
    """`pyscipopt`: built row by row (there is no bulk call), solved by `optimizeNogil`, stopped by `interruptSolve`."""

    name: ClassVar[str] = "scip"
    package: ClassVar[str] = "pyscipopt"
    extra: ClassVar[str | None] = "scip"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability) - {Capability.BULK}

    def license_status(self) -> str:
        return "SCIP: Apache-2.0 licence, no limits"

    def _run(self, problem: Problem, options: SolverOptions, stop: threading.Event) -> Solution:
        scip = self.module()
        model = scip.Model()
        model.hideOutput()
        columns = _build(scip, model, problem)
        self._configure(scip, model, problem, options)
        if options.start is not None:
            partial = model.createPartialSol()
            for column, value in zip(columns, options.start, strict=True):
                model.setSolVal(partial, column, float(value))
            model.addSol(partial)
        run_interruptible(model.optimizeNogil, model.interruptSolve, stop, options.time_limit)
        name = str(model.getStatus())
        status = STATUS.get(name)
        if status is None:
            raise self._failed(f"it ended with status {name}")
        return _solution(model, columns, problem, status)

    def _configure(self, scip: Any, model: Any, problem: Problem, options: SolverOptions) -> None:
        values: dict[str, Any] = {
            "misc/catchctrlc": False,
            "randomization/randomseedshift": int(options.seed) % 2**31,
            "limits/gap": options.rel_gap,
            "limits/absgap": options.abs_gap,
            # integrality shares feastol; below these ends SCIP hands its LP solver tolerances that it cannot hold, and it warns
            "numerics/feastol": max(options.feasibility, options.integrality, _TIGHTEST),
            "numerics/dualfeastol": max(options.feasibility, _TIGHTEST),
        }
        if options.time_limit is not None:
            values["limits/time"] = max(float(options.time_limit), 1e-3)
        if options.nodes is not None:
            values["limits/totalnodes"] = int(options.nodes)
            values["lp/iterlim"] = values["lp/rootiterlim"] = problem.most_iterations(options.nodes)
        if options.stop_at is not None:
            values["limits/primal"] = float(options.stop_at)
        if options.threads is not None:
            values["lp/threads"] = min(int(options.threads), 64)
        for key, value in values.items():
            model.setParam(key, value)
        off = scip.SCIP_PARAMSETTING.OFF
        # as for HiGHS: on the dense rows of a folded network these cost more than the whole tree
        model.setPresolve(off)
        model.setSeparating(off)
        model.setHeuristics(off)


def _end(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _build(scip: Any, model: Any, p: Problem) -> list[Any]:
    columns = [
        model.addVar(vtype="I" if integer else "C", lb=_end(lower), ub=_end(upper), obj=float(cost))
        for integer, lower, upper, cost in zip(p.integer, p.col_lower, p.col_upper, p.c, strict=True)
    ]
    if p.offset:
        model.addObjoffset(float(p.offset))
    terms = [scip.scip.Term(v) for v in columns]
    A = p.A.tocsr()
    for i in range(p.rows):
        lower, upper = _end(p.row_lower[i]), _end(p.row_upper[i])
        if lower is None and upper is None:
            continue
        span = slice(A.indptr[i], A.indptr[i + 1])
        expression = scip.Expr({terms[j]: float(a) for j, a in zip(A.indices[span], A.data[span], strict=True)})
        model.addCons(scip.scip.ExprCons(expression, lhs=lower, rhs=upper))
    return columns


def _solution(model: Any, columns: list[Any], problem: Problem, status: SolverStatus) -> Solution:
    nodes = int(model.getNTotalNodes())
    if status is SolverStatus.INFEASIBLE:
        return Solution(status, None, None, math.inf, nodes, 0.0)
    x = None
    if model.getNSols() > 0 and status is not SolverStatus.UNBOUNDED:
        best = model.getBestSol()
        x = np.array([model.getSolVal(best, v) for v in columns], dtype=np.float64)
    objective = None if x is None else problem.objective(x)
    bound = float(model.getDualbound())
    if status is SolverStatus.UNBOUNDED or abs(bound) >= model.infinity():
        bound = -math.inf
    return Solution(status, x, objective, bound, nodes, 0.0)
