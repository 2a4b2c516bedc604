"""Options of the exact verifiers, checked when made: limits, programs, branch and bound."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from onnxsub.budget import Budget
from onnxsub.device import check_device
from onnxsub.errors import InputError, OptionError
from onnxsub.propagate import METHODS
from onnxsub.verifiers.programs.solvers import SOLVERS

__all__ = ["TIGHTENINGS", "BabOptions", "ExactOptions", "Limits", "MilpOptions"]

_SEARCHES = ("direct", "bisect")
_FOLDS = ("auto", "always", "never")
_SMALL = 64  # units: of trees by lines over more of them, nodes are cheaper than programs (PERFORMANCE.md)
_WINDOWED = 8  # times as many units as others may have, networks with windows may have where linear programs search
TIGHTENINGS = ("cut", "lp", "none")


@dataclass(frozen=True)
class Limits:
    """What a question may spend, and how near the two ends of a bracket must come.

    Attributes:
        timeout: seconds for everything; None for none.
        nodes: nodes of branch and bound and of solvers together; None for no limit.
        threads: of the solver; None for its default.
        seed: of everything random.
        tol: `exact` means `upper - lower <= tol`, in un-normalised input units.
    """

    timeout: float | None = None
    nodes: int | None = None
    threads: int | None = None
    seed: int = 0
    tol: float = 1e-6

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tol) and self.tol > 0):
            raise OptionError(f"--tol {self.tol} must be a positive number")
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"--threads {self.threads} must be at least 1")
        self.budget()  # checks the others

    def within(self, budget: Budget) -> Limits:
        """The same for what is left of a budget."""
        return self if not budget.limited else replace(self, timeout=max(budget.remaining, 1e-3))

    def budget(self, **others: Any) -> Budget:
        """A budget that begins now; arguments as of `Budget`."""
        return Budget(self.timeout, nodes=self.nodes, **others)


@dataclass(frozen=True)
class MilpOptions:
    """How boxes are bounded, and how programs are built and solved.

    Attributes:
        solver: `highs`, `gurobi` or `scip`.
        search: of the verifier `milp`: `direct` (minimise the distance, one program per target) or `bisect` (decide one radius at
            a time).
        bounds_method: how pre-activations are bounded.
        fold: work on the folded form (`auto`: where every operator can be folded).
        tighten: how units are bounded before a program is built: `none` (on the whole ball), `cut` (where the target is reached,
            by half-spaces: `box/halfspaces.py`), `lp` (then by two linear programs per unit: `box/by_programs.py`).
        attack: look for a first point where none is given.
        feasibility, integrality: tolerances of the solver.
    """

    solver: str = "highs"
    search: str = "direct"
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
        if not (0 < self.feasibility <= 1e-3 and 0 < self.integrality <= 1e-3):
            raise InputError("the solver's tolerances must lie in (0, 1e-3]")


@dataclass(frozen=True)
class BabOptions:
    """How the tree is searched.

    Attributes:
        memory: bytes that waiting nodes and one batch may take; beyond it the search goes depth-first.
        batch: nodes that are split together at most; on a GPU more, as far as memory allows (`Frame.at_once`).
        steps, root_steps: gradient steps for the multipliers of a child and of a root; children of large frames get
            half as many, where there are cuts four times as many.
        rate: size of these steps; slopes lie in [0, 1].
        look: candidates per score whose children are looked at before a node is split.
        tighten: most unstable units of a ball whose intervals are cut by `f_t >= f_y` before a tree is begun.
        narrow: most unstable units of a frame whose nodes get intervals of their own.
        dense: coefficients that the folded form of a ball may have; beyond, convolutions stay convolutions.
        slopes: gradient steps for the intervals of larger balls.
        dive: most open units of a target that is searched by linear programs first; 0: none is. `small` is less: whole networks.
        leaf: most open units of a node that is handed to the solver; 0: only nodes with nothing left to split are.
        pairs: most pairs of units of a target that cuts are made for, by each of two sources (`cuts/pairs.py`); 0: none are.
        hard: nodes of a tree after which cuts are made.
        inputs: most inputs that vary of a box that is split itself, beside the signs of units (of distances: 8); 0: none is.
        device: where bounds and nodes are computed, `cpu`, `cuda` or `cuda:N`; programs and waiting nodes stay on the processor.
    """

    memory: int = 4 * 2**30
    batch: int = 32
    steps: int = 10
    root_steps: int = 40
    rate: float = 0.1
    look: int = 8
    tighten: int = 4000
    narrow: int = 300
    dense: int = 1_400_000
    slopes: int = 8
    dive: int = 128
    leaf: int = 150
    pairs: int = 3000
    hard: int = 200
    inputs: int = 30
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.memory < 2**26:
            raise OptionError(f"--memory {self.memory / 2**30:g} is too little; give at least 0.0625 (GiB)")
        for name in ("batch", "steps", "root_steps", "look", "hard"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be at least 1")
        if min(self.narrow, self.dive, self.leaf, self.pairs, self.inputs) < 0:
            raise InputError("narrow, dive, leaf, pairs and inputs are counts, none of them negative")
        if not 0 < self.rate <= 1:
            raise InputError(f"rate {self.rate} must lie in (0, 1]")
        check_device(self.device, "branch and bound")

    @property
    def small(self) -> int:
        """Units of a network up to which linear programs take all of them; trees by lines take larger ones, down to so many."""
        return min(_SMALL, self.dive)

    def searched(self, *, windows: bool, whole: bool = False) -> int:
        """Open units of a target up to which linear programs search it.

        Args:
            windows: whether there are any, whose hulls are tight.
            whole: of networks whose units all count, open or not.
        """
        return self.small * _WINDOWED if windows else self.small if whole else self.dive

    @staticmethod
    def of_gib(memory: float, device: str = "cpu") -> BabOptions:
        """The options with that many GiB of memory.

        Raises:
            InputError: it is no number of GiB, or there is no such device.
        """
        if not math.isfinite(memory):
            raise OptionError(f"--memory {memory} is not a number of GiB; give for example 4")
        return BabOptions(memory=int(memory * 2**30), device=device)


@dataclass(frozen=True)
class ExactOptions:
    """Everything that an exact engine of ours is told."""

    limits: Limits = field(default_factory=Limits)
    milp: MilpOptions = field(default_factory=MilpOptions)
    bab: BabOptions = field(default_factory=BabOptions)

    def to_json(self, verifier: str) -> dict[str, Any]:
        """The settings of a result."""
        settings = {**asdict(self.milp), **asdict(self.limits)}
        return {**settings, "bab": asdict(self.bab)} if verifier == "bab" else settings
