"""Options of the MILP verifier, checked when made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from onnxsub.errors import InputError
from onnxsub.propagate import METHODS
from onnxsub.verifiers.milp.solvers import SOLVERS

__all__ = ["TIGHTENINGS", "MilpOptions"]

_SEARCHES = ("direct", "bisect")
_FOLDS = ("auto", "always", "never")
TIGHTENINGS = ("cut", "lp", "none")


@dataclass(frozen=True)
class MilpOptions:
    """How to search.

    Attributes:
        solver: `highs`, `gurobi` or `scip`.
        search: `direct` (minimise the distance, one program per target) or `bisect` (decide one radius at a time).
        timeout: seconds for everything; None for none.
        threads: of the solver; None for its default.
        seed: of solver and attack.
        tol: `exact` means `upper - lower <= tol`, in un-normalised input units.
        bounds_method: how pre-activations are bounded.
        fold: solve the folded form (`auto`: where every operator can be folded).
        tighten: how units are bounded before a program is built: `none` (on the whole ball), `cut` (where the target is reached,
            by half-spaces: `tighten.py`), `lp` (then by two linear programs per unit: `tighten_lp.py`).
        attack: look for a start point where none is given.
        feasibility, integrality: tolerances of the solver.
    """

    solver: str = "highs"
    search: str = "direct"
    timeout: float | None = None
    threads: int | None = None
    seed: int = 0
    tol: float = 1e-6
    bounds_method: str = "crown"
    fold: str = "auto"
    tighten: str = "cut"
    attack: bool = True
    feasibility: float = 1e-9
    integrality: float = 1e-9

    def __post_init__(self) -> None:
        for option, value, choices in (
            ("--solver", self.solver, tuple(SOLVERS)),
            ("--search", self.search, _SEARCHES),
            ("--bounds", self.bounds_method, METHODS),
            ("fold", self.fold, _FOLDS),
            ("--tighten", self.tighten, TIGHTENINGS),
        ):
            if value not in choices:
                raise InputError(f"{option} {value!r} is unknown; choose one of {', '.join(choices)}")
        if not (math.isfinite(self.tol) and self.tol > 0):
            raise InputError(f"--tol {self.tol} must be a positive number")
        if self.timeout is not None and not self.timeout > 0:
            raise InputError(f"--timeout {self.timeout} must be positive seconds")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads {self.threads} must be at least 1")
        if not (0 < self.feasibility <= 1e-3 and 0 < self.integrality <= 1e-3):
            raise InputError("the solver's tolerances must lie in (0, 1e-3]")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
