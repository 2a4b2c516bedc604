"""The MILP solvers, by name. Adding one is one file and one line here."""

from __future__ import annotations

from onnxsub.errors import OptionError
from onnxsub.verifiers.programs.solvers.base import Capability, Problem, Solution, Solver, SolverOptions, SolverStatus
from onnxsub.verifiers.programs.solvers.gurobi import Gurobi
from onnxsub.verifiers.programs.solvers.highs import Highs
from onnxsub.verifiers.programs.solvers.scip import Scip

__all__ = ["HIGHS", "SOLVERS", "Capability", "Problem", "Solution", "Solver", "SolverOptions", "SolverStatus", "get_solver"]

HIGHS = Highs()
"""Linear programs that are solved again and again are its own, whatever the MILP solver."""

SOLVERS: dict[str, Solver] = {s.name: s for s in (HIGHS, Gurobi(), Scip())}


def get_solver(name: str) -> Solver:
    """The solver `name`, imported once to be sure that it is there.

    Raises:
        InputError: no such solver.
        MissingDependencyError: it is not installed.
    """
    if name not in SOLVERS:
        raise OptionError(f"--solver {name!r} is unknown; choose one of {', '.join(SOLVERS)}")
    solver = SOLVERS[name]
    solver.module()
    return solver
