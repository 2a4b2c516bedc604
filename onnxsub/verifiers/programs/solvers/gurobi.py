"""Gurobi (commercial). The pip package alone comes with a licence for at most 2000 columns and 2000 rows."""

from __future__ import annotations

import math
import threading
from typing import Any, ClassVar

import numpy as np

from onnxsub.errors import LicenceError, OnnxsubError
from onnxsub.verifiers.programs.solvers.base import Capability, Problem, Solution, Solver, SolverOptions, SolverStatus
from onnxsub.verifiers.programs.solvers.interrupt import run_interruptible

__all__ = ["STATUS", "Gurobi"]

STATUS: dict[str, SolverStatus | None] = {
    "OPTIMAL": SolverStatus.OPTIMAL,
    "INFEASIBLE": SolverStatus.INFEASIBLE,
    # solved again without dual reductions
    "INF_OR_UNBD": SolverStatus.UNKNOWN,
    "UNBOUNDED": SolverStatus.UNBOUNDED,
    "CUTOFF": SolverStatus.CUTOFF,
    "ITERATION_LIMIT": SolverStatus.NODE_LIMIT,
    "NODE_LIMIT": SolverStatus.NODE_LIMIT,
    "WORK_LIMIT": SolverStatus.NODE_LIMIT,
    "SOLUTION_LIMIT": SolverStatus.NODE_LIMIT,
    "TIME_LIMIT": SolverStatus.TIME_LIMIT,
    "INTERRUPTED": SolverStatus.INTERRUPTED,
    "USER_OBJ_LIMIT": SolverStatus.TARGET,
    "NUMERIC": SolverStatus.UNKNOWN,
    "SUBOPTIMAL": SolverStatus.UNKNOWN,
    # None: an error, raised
    "MEM_LIMIT": None,
    "LOADED": None,
    "INPROGRESS": None,
    "LOCALLY_OPTIMAL": None,
    "LOCALLY_INFEASIBLE": None,
}
"""Every `GRB.Status`, by name."""

_WORK = 4.0  # units of Gurobi's own deterministic clock, of about a second each, per node of a limit
_SIZE_LIMIT = 10010
_NO_LICENCE = 10009


class Gurobi(Solver):
    """`gurobipy`: `addMVar` and `addMConstr`, stopped by `terminate`."""

    name: ClassVar[str] = "gurobi"
    package: ClassVar[str] = "gurobipy"
    extra: ClassVar[str | None] = "gurobi"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    def license_status(self) -> str:
        gp = self.module()
        try:
            with self._environment(gp) as env, gp.Model(env=env) as model:
                expiry = int(model.LicenseExpiration)
        except OnnxsubError as e:
            return str(e)
        except gp.GurobiError as e:
            return str(self._explained(e, None))
        until = "without end" if expiry in (0, 99999999) else f"until {expiry}"
        return f"Gurobi: a licence was found ({until}); the one that comes with pip admits 2000 columns and 2000 rows"

    def _environment(self, gp: Any) -> Any:
        env = gp.Env(empty=True)
        env.setParam("OutputFlag", 0)
        try:
            env.start()
        except gp.GurobiError as e:
            env.close()
            raise self._explained(e, None) from e
        return env

    def _run(self, problem: Problem, options: SolverOptions, stop: threading.Event) -> Solution:
        gp = self.module()
        try:
            with self._environment(gp) as env, gp.Model(env=env) as model:
                x = self._build(gp, model, problem, options)
                run_interruptible(model.optimize, model.terminate, stop, options.time_limit)
                if model.Status == gp.GRB.INF_OR_UNBD:
                    model.Params.DualReductions = 0
                    run_interruptible(model.optimize, model.terminate, stop, options.time_limit)
                return self._solution(gp, model, x, problem)
        except gp.GurobiError as e:
            raise self._explained(e, problem) from e

    def _build(self, gp: Any, model: Any, p: Problem, options: SolverOptions) -> Any:
        types = np.where(p.integer, gp.GRB.INTEGER, gp.GRB.CONTINUOUS)
        x = model.addMVar(p.columns, lb=p.col_lower, ub=p.col_upper, obj=p.c, vtype=types)
        model.ObjCon = p.offset
        A = p.A.tocsr()
        equal = p.row_lower == p.row_upper
        for rows, sense, side in (
            (equal, "=", p.row_lower),
            (~equal & np.isfinite(p.row_lower), ">", p.row_lower),
            (~equal & np.isfinite(p.row_upper), "<", p.row_upper),
        ):
            if rows.any():
                model.addMConstr(A[np.flatnonzero(rows)], x, sense, side[rows])
        if options.start is not None:
            x.Start = options.start
        params: dict[str, float | int] = {
            "Seed": int(options.seed) % 2_000_000_000,
            "MIPGap": options.rel_gap,
            "MIPGapAbs": options.abs_gap,
            "FeasibilityTol": min(max(options.feasibility, 1e-9), 1e-2),
            "OptimalityTol": min(max(options.feasibility, 1e-9), 1e-2),
            "IntFeasTol": min(max(options.integrality, 1e-9), 1e-1),
        }
        if options.threads is not None:
            params["Threads"] = int(options.threads)
        if options.time_limit is not None:
            params["TimeLimit"] = max(float(options.time_limit), 0.0)
        if options.nodes is not None:
            params["NodeLimit"] = float(options.nodes)
            params["WorkLimit"] = _WORK * options.nodes
        if options.stop_at is not None:
            params["BestObjStop"] = float(options.stop_at)
        for key, value in params.items():
            model.setParam(key, value)
        return x

    def _solution(self, gp: Any, model: Any, x: Any, problem: Problem) -> Solution:
        names = {getattr(gp.GRB.Status, n): n for n in STATUS}
        name = names.get(model.Status, str(model.Status))
        status = STATUS.get(name)
        if status is None:
            raise self._failed(f"it ended with status {name}")
        nodes = int(model.NodeCount)
        if status is SolverStatus.INFEASIBLE:
            return Solution(status, None, None, math.inf, nodes, 0.0)
        point = np.asarray(x.X, dtype=np.float64) if model.SolCount > 0 and status is not SolverStatus.UNBOUNDED else None
        objective = None if point is None else problem.objective(point)
        if model.IsMIP:
            bound = float(model.ObjBound)
        else:
            bound = objective if status is SolverStatus.OPTIMAL and objective is not None else -math.inf
        if status is SolverStatus.UNBOUNDED or abs(bound) >= gp.GRB.INFINITY:
            bound = -math.inf
        return Solution(status, point, objective, bound, nodes, 0.0)

    def _explained(self, e: Any, problem: Problem | None) -> OnnxsubError:
        if e.errno == _SIZE_LIMIT:
            size = "" if problem is None else f" ({problem.columns} columns, {problem.rows} rows)"
            return LicenceError(
                f"Gurobi's pip licence admits 2000 columns and 2000 rows, this problem is larger{size}; install a full licence "
                "(gurobi.com, free for academics), or choose --solver highs"
            )
        if e.errno == _NO_LICENCE:
            first = str(e).splitlines()[0] if str(e) else "no licence"
            return LicenceError(
                f"Gurobi refuses for its licence ({first}); set GRB_LICENSE_FILE to a valid file (grbgetkey), "
                "or choose --solver highs"
            )
        return self._failed(e)
