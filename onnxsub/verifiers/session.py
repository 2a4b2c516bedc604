"""What a question is worked on with: the options, the clock, and the only door to a solver."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxsub.budget import NODE, Budget
from onnxsub.errors import LicenceError, SolverError
from onnxsub.verifiers.options import ExactOptions
from onnxsub.verifiers.programs.solvers import Problem, Solution, SolverOptions, SolverStatus, get_solver

__all__ = ["Session"]

_SMALL, _LARGE = -5, 40  # powers of two that the largest cost may be near
_MOST = 1000  # of what is divided by: it must be a number, and so must its inverse
_NOTHING = Solution(SolverStatus.UNKNOWN, None, None, -math.inf, 0, 0.0)


class Session:
    """One question's options, budget and solver.

    Attributes:
        runs: programs solved.
        trouble: why a program was not solved, for the reason of an answer that stays open; empty: none failed.
    """

    def __init__(self, options: ExactOptions, budget: Budget | None = None) -> None:
        self.options = options
        self.limits, self.milp, self.bab = options.limits, options.milp, options.bab
        self.budget = options.limits.budget() if budget is None else budget
        self.solver = get_solver(options.milp.solver)
        self.runs = 0
        self.trouble = ""

    def solve(self, problem: Problem, options: SolverOptions, seconds: float = math.inf, share: float = 1.0) -> Solution:
        """One solver run, for at most `seconds` and at most a share of the time that is left; its nodes are counted.

        A program that the solver fails on, or whose numbers it cannot work with, proves nothing: status `UNKNOWN`, and `trouble`
        says why.

        Raises:
            MissingDependencyError: the solver is not installed.
            LicenceError: its licence does not admit the program.
        """
        budget = self.budget
        problem, options, power = _with_costs_near_one(problem, options)
        if not problem.ordinary:
            self.trouble = "bounds are too large or infinite for a program"
            return _NOTHING
        limit = min(seconds, share * budget.remaining) if budget.limited else seconds
        nodes = min(budget.nodes_left, limit / NODE) if budget.counted else budget.nodes_left
        options = replace(
            options,
            time_limit=None if math.isinf(limit) or budget.counted else max(limit, 1e-3),
            nodes=None if math.isinf(nodes) else max(int(nodes), 1),
            threads=self.limits.threads,
            seed=self.limits.seed,
            feasibility=self.milp.feasibility,
            integrality=self.milp.integrality,
        )
        with budget.stage("solve"):
            try:
                solution = self.solver.solve(problem, options, budget.stop)
            except LicenceError:
                raise
            except SolverError as error:
                self.trouble = str(error)
                return _NOTHING
        if math.isfinite(nodes) and problem.binaries:
            # a run that ended before its tree is one node; one that the limit ended has spent all it was given, in its root too
            most = max(int(nodes), 1)
            budget.count(most if solution.status is SolverStatus.NODE_LIMIT else max(solution.nodes, 1))
        else:
            budget.count(solution.nodes)
        self.runs += 1
        objective = None if solution.objective is None else float(np.ldexp(solution.objective, power))
        return replace(solution, bound=float(np.ldexp(solution.bound, power)), objective=objective)


def _with_costs_near_one(problem: Problem, options: SolverOptions) -> tuple[Problem, SolverOptions, int]:
    """The same program with costs, and what options say of its values, divided by a power of two, and that power.

    The tolerance of reduced costs is absolute: of costs as small as that every vertex is the best one. Others stay as they are.
    """
    size = float(np.abs(problem.c).max(initial=0.0))
    power = min(max(math.frexp(size)[1], -_MOST), _MOST) if math.isfinite(size) and size > 0 else 0
    if _SMALL <= power <= _LARGE:
        return problem, options, 0
    with np.errstate(over="ignore", under="ignore"):
        offset, gap = (float(np.ldexp(v, -power)) for v in (problem.offset, options.abs_gap))
        cutoff, stop_at = (None if v is None else float(np.ldexp(v, -power)) for v in (options.cutoff, options.stop_at))
        costs = np.ldexp(problem.c, -power)
    if not math.isfinite(offset):
        return problem, options, 0
    return replace(problem, c=costs, offset=offset), replace(options, abs_gap=gap, cutoff=cutoff, stop_at=stop_at), power
