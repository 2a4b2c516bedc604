"""How a local property is decided, and the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxsub.budget import Budget
from onnxsub.metrics.local.base import LocalProperty
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions
from onnxsub.query import Query
from onnxsub.results import VERSION, jsonable
from onnxsub.shown import Shown, number
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.options import BabOptions, ExactOptions, Limits, MilpOptions
from onnxsub.verifiers.registry import check_verifier

__all__ = ["STOOD", "LocalOptions", "LocalVerdict"]

STOOD = "the attack found no point; nothing is proved"
"""The reason of `undecided` where an attack did all that it was asked for."""


@dataclass(frozen=True)
class LocalOptions:
    """How hard to try.

    Attributes:
        verifier: `bab` (decides every property), `milp` (piecewise linear ones), or another tool as `onnxsub.verifiers.registry`
            names it (what VNN-LIB can state).
        solver: of programs.
        timeout: seconds for everything; None for none.
        nodes: nodes of branch and bound and of solvers; None for no limit.
        seed: of attacks and solver.
        threads: of the solver.
        bab: options of branch and bound.
        attack: of the search for a counterexample, except for CR, whose attack is that of `onnxsub attack`.
    """

    verifier: str = "bab"
    solver: str = "highs"
    timeout: float | None = None
    nodes: int | None = None
    seed: int = 0
    threads: int | None = 1
    bab: BabOptions = field(default_factory=BabOptions)
    attack: AttackPlan = field(default_factory=AttackPlan)

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        _ = self.exact  # checks what it shares

    @property
    def exact(self) -> ExactOptions:
        """What an exact engine is told."""
        limits = Limits(timeout=self.timeout, nodes=self.nodes, threads=self.threads, seed=self.seed)
        return ExactOptions(limits, MilpOptions(solver=self.solver), self.bab)

    def search(self) -> AttackOptions:
        """The same for the attack on a class, whose time is that of the budget that it is given."""
        return AttackOptions(seed=self.seed, threads=self.threads)

    def budget(self, whole: Budget | None = None) -> Budget:
        """The clock of one decision: `timeout` and `nodes` as a part of what it belongs to."""
        if whole is None:
            return Budget(self.timeout, nodes=self.nodes)
        part = whole.part(math.inf if self.timeout is None else self.timeout)
        return part if self.nodes is None else part.with_nodes(self.nodes, asked=True)


@dataclass(frozen=True, eq=False, repr=False)
class LocalVerdict(Shown):
    """One answer about one anchor.

    Attributes:
        status: `proved`, `violated` (with a replayed witness), `undecided`, or `misclassified` (the property speaks of the class
            of the anchor, and the anchor is not of that class to begin with).
        reason: one line.
        witness: for `violated`: float32, per-sample shape, in the ball and the domain.
        distance: `|witness - x0|_inf` in float64.
        value: the property's quantity at the witness, by onnxruntime.
        lower, upper: what is known of the extreme of that quantity over the ball: its smallest value for CR and SCR, its largest
            for the others. None: nothing.
        verifier: who decided.
        interrupted: ended by Ctrl-C.
        time_s: `total` and the stages.
        prop: the property.
        head: the keys `model` and `anchor` of the contract.
    """

    status: str
    reason: str | None
    witness: Array | None = field(repr=False)
    distance: float | None
    value: float | None
    lower: float | None
    upper: float | None
    verifier: str
    interrupted: bool
    time_s: Mapping[str, float]
    prop: LocalProperty
    head: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def line(self) -> str:
        return f"{self.status} at eps {number(self.prop.eps)}: {self.reason}"

    @staticmethod
    def of(
        query: Query,
        prop: LocalProperty,
        status: str,
        reason: str,
        *,
        verifier: str,
        time_s: Mapping[str, float],
        witness: Array | None = None,
        interrupted: bool = False,
    ) -> LocalVerdict:
        """The answer with what follows from it: distance, value and bracket.

        Raises:
            ValueError: `violated` without a point that violates the property by replay.
        """
        distance = value = lower = upper = None
        if status == "violated":
            if witness is None:
                raise ValueError("violated needs a witness")
            found = prop.measure(query, witness[None])
            distance, value = float(query.radius(witness[None])[0]), float(found.quantity[0])
            low, high = query.space.ball(query.x0, prop.eps)
            inside = bool(((low <= witness) & (witness <= high)).all())
            if not (found.violated[0] and inside):
                raise ValueError("the witness does not violate the property")
            lower, upper = (None, value) if prop.smallest else (value, None)
        elif status == "proved":
            lower, upper = (prop.bound, None) if prop.smallest else (None, prop.bound)
            witness = None
        return LocalVerdict(
            status, reason, witness if status == "violated" else None, distance, value, lower, upper, verifier, interrupted, time_s,
            prop, query.json_head(),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.local/1`."""
        document: dict[str, Any] = jsonable(
            {
                "schema": "onnxsub.local/1",
                "version": VERSION,
                **self.head,
                **self.prop.parameters(),
                "status": self.status,
                "reason": self.reason,
                "distance": self.distance,
                "value": self.value,
                "lower": self.lower,
                "upper": self.upper,
                "verifier": self.verifier,
                "interrupted": self.interrupted,
                "time_s": dict(self.time_s),
            }
        )
        return document
