"""What a question is worked on with: the options, the clock, and the only door to a solver."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxsub.budget import NODE, Budget
from onnxsub.errors import LicenceError, SolverError
from onnxsub.verifiers.options import ExactOptions
from onnxsub.verifiers.programs.solvers import Problem, Solution, SolverOptions, SolverStatus, get_solver

__all__ = ["Session"]

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
        return solution
