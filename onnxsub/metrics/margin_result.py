"""The smallest margin of a pair (anchor, target): how it is asked for, and what the answer says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxsub.errors import OptionError
from onnxsub.ops.base import Array
from onnxsub.shown import Shown, number
from onnxsub.verifiers.ascend import Climb
from onnxsub.verifiers.options import BabOptions, ExactOptions, Limits, MilpOptions

__all__ = ["Example", "MarginOptions", "MarginResult"]


@dataclass(frozen=True)
class MarginOptions:
    """How the smallest margin is searched.

    Attributes:
        limits: time, nodes, seed, threads (its `tol` is a distance and plays no part).
        milp: solver, bounds and programs.
        bab: options of branch and bound.
        verifier: `bab` or `milp`.
        tol: `exact` means `upper - lower <= tol * max |logit at the anchor|`; float32 inference itself is good to about 1e-6 of it.
        climb: the search that comes first.
    """

    limits: Limits = field(default_factory=Limits)
    milp: MilpOptions = field(default_factory=MilpOptions)
    bab: BabOptions = field(default_factory=BabOptions)
    verifier: str = "bab"
    tol: float = 1e-4
    climb: Climb = field(default_factory=Climb)

    def __post_init__(self) -> None:
        if self.verifier not in ("bab", "milp"):
            raise OptionError(f"--verifier {self.verifier!r} cannot minimise a margin; give bab or milp")
        if not (math.isfinite(self.tol) and 1e-6 <= self.tol < 1):
            raise OptionError(f"--tol {self.tol:g} is not possible: float32 logits are good to 1e-6; give a number from 1e-6 to 1")

    def to_json(self) -> dict[str, Any]:
        m, limits = self.milp, self.limits
        return {
            "verifier": self.verifier, "solver": m.solver, "timeout": limits.timeout, "nodes": limits.nodes,
            "seed": limits.seed, "threads": limits.threads, "tol": self.tol,
        }  # fmt: skip

    @property
    def exact(self) -> ExactOptions:
        """What an exact engine is told."""
        return ExactOptions(self.limits, self.milp, self.bab)


@dataclass(frozen=True, eq=False)
class Example:
    """A point and what onnxruntime says of it on the original file.

    Attributes:
        x: float32, `(*input_shape)`, in the ball and in the domain.
        value: `f_y - f_t`.
        logits: `(classes,)`.
        radius: `|x - x0|_inf`, float64.
    """

    x: Array = field(repr=False)
    value: float
    logits: Array = field(repr=False)
    radius: float

    @property
    def predicted(self) -> int:
        """The class that the file gives it."""
        return int(self.logits.argmax())

    @property
    def kind(self) -> str:
        """`strict` (`f_t > f_y`: adversarial), `tie` (equal), or `none`."""
        return "strict" if self.value < 0 else "tie" if self.value == 0 else "none"


@dataclass(frozen=True, eq=False, repr=False)
class MarginResult(Shown):
    r"""`lower <= min { f_y(x) - f_t(x) : x in B(eps) } <= upper`, in units of the logits.

    Attributes:
        label, target, eps: y, t and the radius.
        lower: proved, for f over the real numbers.
        upper: the value of `witness`, replayed.
        witness: the best point.
        status: `exact` (`upper - lower <= tol`), `timeout` (a limit ended it) or `bracket` (nothing is left to do, or Ctrl-C).
        tol: in units of the logits.
        verifier, solver: how it was found.
        nodes, runs: of the exact verifier, and how many programs were solved.
        interrupted: ended by Ctrl-C.
        time_s: `total` and the stages.
    """

    label: int
    target: int
    eps: float
    lower: float
    upper: float
    witness: Example
    status: str
    tol: float
    verifier: str
    solver: str
    nodes: int
    runs: int
    interrupted: bool
    time_s: Mapping[str, float]

    @property
    def line(self) -> str:
        return f"{self.status}: {number(self.lower)} <= min f_{self.label} - f_{self.target} <= {number(self.upper)}"

    @property
    def verdict(self) -> str:
        """`example` (a strict one), `tie`, `none` (proved: f_y > f_t on the ball) or `undecided`."""
        if self.witness.kind != "none":
            return "example" if self.witness.kind == "strict" else "tie"
        return "none" if self.lower > 0 else "undecided"

    def to_json(self) -> dict[str, Any]:
        """Plain values; the point itself is not among them."""
        return {
            "label": self.label, "target": self.target, "eps": self.eps, "status": self.status, "verdict": self.verdict,
            "lower": self.lower, "upper": self.upper, "tol": self.tol, "predicted": self.witness.predicted,
            "distance": self.witness.radius, "verifier": self.verifier, "solver": self.solver, "nodes": self.nodes,
            "runs": self.runs, "time_s": dict(self.time_s),
        }  # fmt: skip
