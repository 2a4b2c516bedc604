"""Answers about one anchor: a bracket of its distance to the decision boundary, or one decision at a radius."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxsub.ops.base import Array
from onnxsub.results import VERSION, jsonable

__all__ = ["DistanceResult", "Original", "Progress", "TargetResult", "VerifyResult", "Witness"]

Progress = Callable[[float, float, str], None]
"""Called with `lower`, `upper` and one line of text whenever something was learnt."""


@dataclass(frozen=True, eq=False)
class Witness:
    """A point and what the referee says of it.

    Attributes:
        x: float32, `(*input_shape)`, inside the domain.
        radius: `|x - x0|_inf` in float64.
        label: the class t with the largest `f_t - f_y`.
        margin: that difference, by the referee.
        kind: `strict` (margin > 0), `tie` (zero within the stated tolerance: on the boundary) or `rejected`.
        path: where it was saved.
    """

    x: Array = field(repr=False)
    radius: float
    label: int
    margin: float
    kind: str
    path: str | None = None

    @property
    def confirmed(self) -> bool:
        return self.kind != "rejected"

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "kind": self.kind, "margin": self.margin}


@dataclass(frozen=True)
class TargetResult:
    """`lower <= d_t <= upper` for one other class t.

    Attributes:
        status: `exact` (within the tolerance), `excluded` (by bounds, never built), `cutoff` (proved farther than another
            class), `bracket` (a limit ended it).
    """

    lower: float
    upper: float
    status: str


@dataclass(frozen=True, eq=False)
class Original:
    """What an answer on a substitute proves about the original network f: `lower <= d_bnd <= upper`.

    Attributes:
        lower: proved by bounds of f, or by the substitute where `exact` holds.
        upper: distance of `witness`; infinite where none is known.
        exact: every pruned unit provably keeps its piece on `B(d_hat)`, so that f and the substitute are one function there.
        witness: replayed on f with onnxruntime.
    """

    lower: float
    upper: float
    exact: bool
    witness: Witness | None

    def to_json(self) -> dict[str, Any]:
        return {
            "lower": _finite(self.lower),
            "upper": _finite(self.upper),
            "exact": self.exact,
            "witness": None if self.witness is None else self.witness.to_json(),
        }


@dataclass(frozen=True, eq=False)
class DistanceResult:
    """`lower <= d_bnd <= upper`.

    Attributes:
        status: `exact` (upper - lower <= tol), `bracket`, `misclassified` (distance 0) or `none` (no boundary in the domain).
        lower: proved.
        upper: distance of `witness`; infinite where none is known.
        witness: the nearest confirmed point; a rejected one where none was confirmed.
        verifier, solver, search: how it was found.
        targets: per other class.
        nodes: branch-and-bound nodes, all runs together.
        runs: solver runs.
        interrupted: ended by Ctrl-C.
        time_s: `total` and the stages.
        settings: the options.
        head: the keys `model` and `anchor` of the contract.
        original: with a substitute: what its answer proves about the original network; None otherwise.
        substitute: with a substitute: what was pruned; None otherwise.
        reason: one line where a verifier of other people has something to say (what is its claim, what went wrong); None otherwise.
    """

    status: str
    lower: float
    upper: float
    witness: Witness | None
    verifier: str
    solver: str | None
    targets: Mapping[int, TargetResult]
    nodes: int
    runs: int
    interrupted: bool
    time_s: Mapping[str, float]
    settings: Mapping[str, Any]
    head: Mapping[str, Any] = field(default_factory=dict)
    original: Original | None = None
    substitute: Mapping[str, Any] | None = None
    reason: str | None = None

    @property
    def distance(self) -> float:
        """The upper end."""
        return self.upper

    @property
    def adversarial_label(self) -> int | None:
        return self.witness.label if self.witness is not None and self.witness.confirmed else None

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.distance/1`; infinite ends are null."""
        targets = {
            str(t): {"lower": _finite(r.lower), "upper": _finite(r.upper), "status": r.status}
            for t, r in sorted(self.targets.items())
        }
        document: dict[str, Any] = jsonable(
            {
                "schema": "onnxsub.distance/1",
                "version": VERSION,
                **self.head,
                "status": self.status,
                "distance": _finite(self.distance),
                "lower": _finite(self.lower),
                "upper": _finite(self.upper),
                "adversarial_label": self.adversarial_label,
                "witness": None if self.witness is None else self.witness.to_json(),
                "verifier": self.verifier,
                "solver": self.solver,
                "targets": targets,
                "nodes": self.nodes,
                "runs": self.runs,
                "interrupted": self.interrupted,
                "settings": dict(self.settings),
                "time_s": dict(self.time_s),
            }
        )
        if self.original is not None:
            document["original"] = jsonable(self.original.to_json())
        if self.substitute is not None:
            document["substitute"] = jsonable(self.substitute)
        if self.reason is not None:
            document["reason"] = self.reason
        return document


@dataclass(frozen=True, eq=False)
class VerifyResult:
    """One decision: does `f` keep its class on `B(eps)`?

    Attributes:
        status: `proved` (by bounds or by infeasibility of every target), `violated` (a replayed witness) or `unknown`.
        reason: one line.
        witness: for `violated`; a rejected one may come with `unknown`.
        targets: per other class `proved`, `violated` or `unknown`.
        original: where another file than the model was asked about: the witness replayed on the model; None otherwise.
    """

    status: str
    reason: str
    eps: float
    witness: Witness | None
    verifier: str
    solver: str | None
    targets: Mapping[int, str]
    nodes: int
    runs: int
    interrupted: bool
    time_s: Mapping[str, float]
    settings: Mapping[str, Any]
    head: Mapping[str, Any] = field(default_factory=dict)
    original: Witness | None = None

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.verify/1`."""
        document: dict[str, Any] = jsonable(
            {
                "schema": "onnxsub.verify/1",
                "version": VERSION,
                **self.head,
                "status": self.status,
                "reason": self.reason,
                "eps": self.eps,
                "witness": None if self.witness is None else {**self.witness.to_json(), "distance": self.witness.radius},
                "adversarial_label": self.witness.label if self.witness is not None and self.witness.confirmed else None,
                "verifier": self.verifier,
                "solver": self.solver,
                "targets": {str(t): s for t, s in sorted(self.targets.items())},
                "nodes": self.nodes,
                "runs": self.runs,
                "interrupted": self.interrupted,
                "settings": dict(self.settings),
                "time_s": dict(self.time_s),
            }
        )
        if self.original is not None:
            document["original"] = jsonable({**self.original.to_json(), "distance": self.original.radius})
        return document


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
