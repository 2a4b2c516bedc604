"""What a MILP solver is given and what it must say: one problem form, one status list, one small adapter per solver."""

from __future__ import annotations

import abc
import enum
import importlib
import importlib.util
import math
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from onnxsub.errors import MissingDependencyError, SolverError
from onnxsub.ops.base import Array
from onnxsub.verifiers.programs.solvers.interrupt import Abandoned

__all__ = ["Capability", "Problem", "Solution", "Solver", "SolverOptions", "SolverStatus"]


_WORK = 1e11  # of a root, per node of the limit: (coefficients of the rows)^2 for each of its rounds of cuts, about 4 s
_PIVOTS = 4e9  # of a linear program, likewise: coefficients of the rows for each iteration of the simplex method

_HUGE = 1e15  # beyond it the numbers of a solver have no digits left for the others


@dataclass(frozen=True, eq=False)
class Problem:
    """`min c x + offset` over `row_lower <= A x <= row_upper`, `col_lower <= x <= col_upper`, `x_j` integer where `integer_j`.

    `A` is CSC with float64 data, `(rows, columns)`; infinite ends are `inf`. Numbers that no solver can work with are refused by
    `Session.solve`, not here.
    """

    c: Array
    offset: float
    A: sp.csc_array
    row_lower: Array
    row_upper: Array
    col_lower: Array
    col_upper: Array
    integer: Array

    def __post_init__(self) -> None:
        rows, columns = self.A.shape
        for name, array, length in (
            ("c", self.c, columns), ("col_lower", self.col_lower, columns), ("col_upper", self.col_upper, columns),
            ("integer", self.integer, columns), ("row_lower", self.row_lower, rows), ("row_upper", self.row_upper, rows),
        ):  # fmt: skip
            if array.shape != (length,):
                raise ValueError(f"problem: {name} has shape {array.shape}, expected ({length},)")

    @property
    def ordinary(self) -> bool:
        """Whether a solver can work with its numbers: none is NaN or huge, every column has two ends, and some number lies between
        those of every row."""
        if (self.row_lower == np.inf).any() or (self.row_upper == -np.inf).any():
            return False
        rows = np.concatenate([self.row_lower, self.row_upper])
        rows = rows[~np.isinf(rows)]
        columns = np.concatenate([self.col_lower, self.col_upper])
        return all(bool((np.abs(v) < _HUGE).all()) for v in (rows, columns, self.A.data, self.c))

    @property
    def columns(self) -> int:
        return int(self.A.shape[1])

    @property
    def rows(self) -> int:
        return int(self.A.shape[0])

    @property
    def binaries(self) -> int:
        return int(np.count_nonzero(self.integer))

    def objective(self, x: Array) -> float:
        return float(self.c @ x) + self.offset

    @property
    def relaxed(self) -> Problem:
        """The linear program that is left where no column has to be an integer."""
        return replace(self, integer=np.zeros_like(self.integer))

    def most_iterations(self, nodes: int) -> int:
        """Iterations of the simplex method on the linear program that a limit of so many nodes admits."""
        return min(max(int(nodes * _PIVOTS / max(self.A.nnz, 1)), 100), 2**31 - 1)

    def most_rounds(self, nodes: int) -> int:
        """Rounds of work at the root of the tree that a limit of so many nodes admits."""
        return max(int(nodes * _WORK / max(self.A.nnz, 1) ** 2), 2)

    def limited(self, cutoff: float) -> Problem:
        """The problem with `objective <= cutoff` as a column bound (one cost) or as a row (several)."""
        support = np.flatnonzero(self.c)
        room = cutoff - self.offset
        if len(support) == 1:
            j = int(support[0])
            lower, upper = self.col_lower.copy(), self.col_upper.copy()
            end = room / self.c[j]
            if self.c[j] > 0:
                upper[j] = min(upper[j], end)
            else:
                lower[j] = max(lower[j], end)
            return replace(self, col_lower=lower, col_upper=upper)
        row = sp.csc_array(self.c.reshape(1, -1))
        return replace(
            self,
            A=sp.csc_array(sp.vstack([self.A, row])),
            row_lower=np.append(self.row_lower, -np.inf),
            row_upper=np.append(self.row_upper, room),
        )


class SolverStatus(enum.Enum):
    """How a run ended. Only `INFEASIBLE`, `CUTOFF` and a `Solution.bound` prove anything; an incumbent proves only itself."""

    OPTIMAL = "the optimum was found within the gap that was asked for"
    TARGET = "a point at least as good as asked for was found; the optimum may be better"
    INFEASIBLE = "proved: no point satisfies the rows"
    CUTOFF = "proved: no point is better than the cutoff"
    UNBOUNDED = "the objective has no lower end; bound the columns"
    TIME_LIMIT = "the time limit ended the run; give more time, a smaller radius or a start point"
    NODE_LIMIT = "a node or iteration limit inside the solver ended the run; give more time"
    INTERRUPTED = "the run was stopped by the user; what it had proved until then stands"
    UNKNOWN = "the solver could not decide (numerical trouble); try another solver or tighter bounds"

    @property
    def proves_empty(self) -> bool:
        """Whether the status itself proves that no point exists (below the cutoff)."""
        return self in (SolverStatus.INFEASIBLE, SolverStatus.CUTOFF)


class Capability(enum.Enum):
    """What an adapter can do beyond solving."""

    START = "takes a start point"
    STOP = "stops at once when told, and keeps its bound"
    TARGET = "stops at an objective value"
    BULK = "takes the matrix in one call"
    GAP = "reports a dual bound at a time limit"


@dataclass(frozen=True, eq=False)
class SolverOptions:
    """Limits and tolerances of one run.

    Attributes:
        time_limit: seconds; None for none.
        nodes: nodes of the tree; None for no limit. It also bounds the work at the root and on a linear program, by counts that do
            not depend on the machine.
        threads: of the solver; None for its own default.
        seed: random seed.
        rel_gap, abs_gap: the run ends when `incumbent - bound` is within either; 0 turns one off.
        cutoff: points with an objective above it are of no interest.
        stop_at: end as soon as a point with an objective at or below it is known.
        start: a point `(columns,)` to begin with.
        feasibility: how far a row or a bound may be violated.
        integrality: how far an integer column may be from an integer.
    """

    time_limit: float | None = None
    nodes: int | None = None
    threads: int | None = None
    seed: int = 0
    rel_gap: float = 0.0
    abs_gap: float = 1e-7
    cutoff: float | None = None
    stop_at: float | None = None
    start: Array | None = None
    feasibility: float = 1e-9
    integrality: float = 1e-9


@dataclass(frozen=True, eq=False)
class Solution:
    """What a run found (`x`, `objective`) and proved (`bound`: no feasible point has a smaller objective).

    For `CUTOFF` the bound is the cutoff, for `INFEASIBLE` it is `inf`; `-inf` where nothing is proved.
    """

    status: SolverStatus
    x: Array | None
    objective: float | None
    bound: float
    nodes: int
    time_s: float


class Solver(abc.ABC):
    """One MILP solver behind `solve`."""

    name: ClassVar[str]
    package: ClassVar[str]
    """The importable module."""
    extra: ClassVar[str | None]
    """The extra of this project that installs it; None where it is a core dependency."""
    capabilities: ClassVar[frozenset[Capability]]

    def is_available(self) -> bool:
        """Whether the package is installed. Imports nothing and takes no licence."""
        return importlib.util.find_spec(self.package) is not None

    def module(self) -> Any:
        """The solver's Python module.

        Raises:
            MissingDependencyError: not installed.
        """
        try:
            return importlib.import_module(self.package)
        except ImportError as e:
            what = f"onnxsub[{self.extra}]" if self.extra else self.package
            raise MissingDependencyError(
                f'solver {self.name} is not installed ({e}); run pip install "{what}", or choose another --solver'
            ) from e

    @abc.abstractmethod
    def license_status(self) -> str:
        """One sentence: which licence applies and what it admits."""

    def solve(self, problem: Problem, options: SolverOptions, stop: threading.Event | None = None) -> Solution:
        """Minimises; ends early when `stop` is set or on Ctrl-C, which sets `stop` (status `INTERRUPTED` in both cases).

        Raises:
            MissingDependencyError: the package is not installed.
            LicenceError: the licence does not admit the problem.
            SolverError: the solver failed; nothing is known.
        """
        began = time.perf_counter()
        stop = stop or threading.Event()
        limited = problem if options.cutoff is None else problem.limited(options.cutoff)
        if (limited.col_lower > limited.col_upper).any() or (limited.row_lower > limited.row_upper).any():
            # solvers treat crossed ends as a mistake of the caller; here they are an answer
            solution = Solution(SolverStatus.INFEASIBLE, None, None, math.inf, 0, 0.0)
        elif stop.is_set():
            solution = Solution(SolverStatus.INTERRUPTED, None, None, -math.inf, 0, 0.0)
        else:
            try:
                solution = self._run(limited, options, stop)
            except Abandoned:
                solution = Solution(SolverStatus.TIME_LIMIT, None, None, -math.inf, 0, 0.0)
        if solution.status is SolverStatus.INFEASIBLE and options.cutoff is not None:
            solution = replace(solution, status=SolverStatus.CUTOFF, bound=options.cutoff)
        if solution.objective is not None and solution.bound > solution.objective:
            # a bound above a point's own value is rounding, and the smaller of the two is what is proved
            solution = replace(solution, bound=solution.objective)
        return replace(solution, time_s=time.perf_counter() - began)

    @abc.abstractmethod
    def _run(self, problem: Problem, options: SolverOptions, stop: threading.Event) -> Solution:
        """`solve` without cutoff, on a problem whose ends do not cross."""

    def _failed(self, what: object) -> SolverError:
        return SolverError(f"solver {self.name} failed: {what}; try another --solver")
