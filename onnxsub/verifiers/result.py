"""Answers about one anchor: a bracket of its distance to the decision boundary, or one decision at a radius."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxsub.properties.property import Property
from onnxsub.properties.witness import vnncomp_word, witness_text
from onnxsub.results import VERSION, jsonable
from onnxsub.shown import Shown, Sight, number
from onnxsub.verifiers.witness import Witness

__all__ = ["DistanceResult", "Original", "Progress", "TargetResult", "VerifyResult"]

Progress = Callable[[float, float, str], None]
"""Called with `lower`, `upper` and one line of text whenever something was learnt."""


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
        lower: proved by bounds of f, by the substitute where `exact` holds, or by a search on f.
        upper: distance of `witness`; infinite where none is known.
        exact: every pruned unit provably keeps its piece on `B(d_hat)`, so that f and the substitute are one function there.
        witness: replayed on f with onnxruntime.
        nodes: of the search on f; 0 where there was none.
    """

    lower: float
    upper: float
    exact: bool
    witness: Witness | None
    nodes: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "lower": _finite(self.lower),
            "upper": _finite(self.upper),
            "exact": self.exact,
            "nodes": self.nodes,
            "witness": None if self.witness is None else self.witness.to_json(),
        }


@dataclass(frozen=True, eq=False, repr=False)
class DistanceResult(Shown):
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
        sight: anchor and witness for notebooks, where the public call put them.
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
    sight: Sight | None = None

    @property
    def line(self) -> str:
        what = "" if self.substitute is None else " of the substitute"
        text = f"{self.status}{what}: {number(self.lower)} <= d <= {number(self.upper)}"
        if self.original is not None:
            text += f"; of the model: {number(self.original.lower)} <= d <= {number(self.original.upper)}"
        return text + ("" if self.adversarial_label is None else f"; class {self.adversarial_label}")

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


@dataclass(frozen=True, eq=False, repr=False)
class VerifyResult(Shown):
    """One decision: is there a point in a ball or in the boxes of a property that must not be there? The same for both doors.

    Attributes:
        status: `proved` (every clause is refuted, for the network over the real numbers), `violated` (a replayed witness) or
            `unknown`.
        reason: one line.
        witness: for `violated`; a rejected one may come with `unknown`.
        clauses: per box and clause `proved`, `violated` or `unknown`; of a ball, one clause per other class in their order.
        targets: of a ball: the same by class.
        verifier: who decided: `bab`, `milp`, or the name of another tool.
        solver: of the programs; None for another tool.
        nodes, runs: of the exact verifier, and how many programs or tools were run.
        timed_out, interrupted: the time limit, or Ctrl-C, ended the search.
        eps: of a ball; None for a property.
        question: of a property; None for a ball.
        original: where another file than the model was asked about: the witness replayed on the model; None otherwise.
        replayed: points of the boxes that were replayed after a proof; none of them was a counterexample.
        sight: anchor and witness for notebooks, where the public call put them.
    """

    status: str
    reason: str
    witness: Witness | None
    clauses: tuple[tuple[str, ...], ...]
    verifier: str
    solver: str | None
    nodes: int
    runs: int
    timed_out: bool
    interrupted: bool
    time_s: Mapping[str, float]
    settings: Mapping[str, Any]
    targets: Mapping[int, str] = field(default_factory=dict)
    eps: float | None = None
    question: Property | None = field(default=None, repr=False)
    head: Mapping[str, Any] = field(default_factory=dict)
    original: Witness | None = None
    replayed: int = 0
    sight: Sight | None = None

    @property
    def line(self) -> str:
        ball = "" if self.eps is None else f" at eps {number(self.eps)}"
        return f"{self.status}{ball}: {self.reason}"

    @property
    def vnncomp(self) -> str:
        """`sat`, `unsat`, `timeout` or `unknown`."""
        return vnncomp_word(self.status, timed_out=self.timed_out)

    def vnncomp_text(self) -> str:
        """The whole results file of VNN-COMP: the word, and for `sat` the witness."""
        w = self.witness
        if self.status != "violated" or w is None or w.y is None or self.question is None:
            return f"{self.vnncomp}\n"
        return f"sat\n{witness_text(self.question, w.x, w.y)}"

    @property
    def float32(self) -> str | None:
        """What is known of the file's own float32 execution: `violated`, `not covered` by the proof, or None: nothing."""
        return {"violated": "violated", "proved": "not covered"}.get(self.status)

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.verify/2`; what one of the doors has not is null there."""
        w = self.witness
        witness = None
        if w is not None:
            radius = _finite(w.radius)
            witness = {**w.to_json(), "distance": radius, "case": w.case, "clause": w.clause}
        document: dict[str, Any] = jsonable(
            {
                "schema": "onnxsub.verify/2",
                "version": VERSION,
                "input": None,
                "anchor": None,
                "property": None,
                **self.head,
                "status": self.status,
                "reason": self.reason,
                "vnncomp": self.vnncomp,
                "float32": self.float32,
                "replayed": self.replayed,
                "eps": self.eps,
                "witness": witness,
                "adversarial_label": w.label if w is not None and w.confirmed and w.label >= 0 else None,
                "verifier": self.verifier,
                "solver": self.solver,
                "targets": {str(t): s for t, s in sorted(self.targets.items())} if self.targets else None,
                "clauses": [list(case) for case in self.clauses],
                "nodes": self.nodes,
                "runs": self.runs,
                "timed_out": self.timed_out,
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
