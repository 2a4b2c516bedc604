"""A property as the exact verifiers take it: clauses over a network, and a judge that replays on the original file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxsub.budget import Budget
from onnxsub.errors import OptionError
from onnxsub.metrics.local.base import Counterexamples, LocalProperty
from onnxsub.metrics.local.verdict import LocalOptions
from onnxsub.ops.base import Array
from onnxsub.properties import row_set
from onnxsub.query import Query
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.conclude import work
from onnxsub.verifiers.decision import Decision, Spec, SpecBox
from onnxsub.verifiers.registry import engine_of
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.witness import Witness, ball_float32

__all__ = ["BallJudge", "Found", "hunt", "search"]

_STARTS = 96  # of an attack, all clauses together
_LEAST_STARTS = 4  # per clause


class BallJudge:
    """Replays points of the ball with onnxruntime on the original file, and asks the property.

    Attributes:
        lower, upper: the smallest and the largest float32 point of the ball, `(inputs,)`.
    """

    def __init__(self, query: Query, prop: LocalProperty) -> None:
        self._query = query
        self._prop = prop
        ends = ball_float32(query.space.ball(query.x0, prop.eps), query.x0, prop.eps)
        self.lower, self.upper = (end.reshape(-1) for end in ends)

    def _fed(self, x: Array) -> Array:
        flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1).astype(np.float32)
        return np.asarray(np.clip(flat, self.lower, self.upper)).reshape(len(x), *self._query.x0.shape)

    def judge(self, x: Array) -> Witness:
        """The verdict on a point, moved into the ball first. The anchor is a float32 point of it, so there is always one."""
        point = self._fed(np.asarray(x)[None])
        query, prop = self._query, self._prop
        found = prop.measure(query, point)
        value = float(found.quantity[0])
        margin = prop.bound - value if prop.smallest else value - prop.bound
        kind = "rejected" if not found.violated[0] else "strict" if margin > 0 else "tie"
        radius = float(query.radius(point)[0])
        return Witness(point[0], radius, -1, margin, kind, None, 0, 0, np.array([value]))

    def best(self, x: Array) -> Witness:
        """The verdict on the point that violates the property most."""
        points = self._fed(x)
        quantity = self._prop.measure(self._query, points).quantity
        worst = np.nan_to_num(-quantity if self._prop.smallest else quantity, nan=-math.inf)
        return self.judge(points[int(worst.argmax())])


@dataclass(frozen=True, eq=False)
class Found:
    """What a search brought.

    Attributes:
        proved: no point of the ball satisfies a clause.
        witness: float32, per-sample shape; None where none was confirmed.
        reason: one line.
        interrupted: by Ctrl-C.
        times: seconds per stage.
    """

    proved: bool
    witness: Array | None
    reason: str
    interrupted: bool
    times: Mapping[str, float]

    @staticmethod
    def of(decision: Decision, query: Query) -> Found:
        """What is known at the end of a search."""
        marks = [m for case in decision.marks() for m in case]
        left = sum(m == "unknown" for m in marks)
        budget, witness = decision.budget, decision.witness
        interrupted, x = budget.stop.is_set(), None
        if witness is not None:
            x = witness.x.reshape(query.x0.shape).astype(np.float32)
            reason = "a point of the ball, replayed with onnxruntime on the file"
            if decision.claims.diverged is not None:
                reason += "; over the real numbers there is none, so float32 execution differs from that network"
        elif left == 0:
            by = f"bounds and {budget.nodes:,} nodes" if decision.grown or decision.session.runs else "bounds"
            reason = f"{by} exclude all {len(marks)} ways to violate it"
        elif interrupted:
            reason = "interrupted before everything was decided"
        elif budget.over or decision.limited:
            reason = f"{left} of {len(marks)} ways to violate it are open: {budget.why}"
        else:
            why = decision.session.trouble or "the extreme value is too near to the bound to tell"
            reason = f"{left} of {len(marks)} ways to violate it are open: {why}"
        return Found(decision.proved, x, reason, interrupted, budget.times)


def search(query: Query, prop: LocalProperty, what: Counterexamples, options: LocalOptions, budget: Budget | None = None) -> Found:
    """Looks for a point of the ball that violates the property, and for a proof that there is none.

    Args:
        what: the points that violate it.
        budget: default: one with the time limit of `options`.

    Raises:
        UnsupportedOperatorError: an operator has no bounds, or (`milp`) no rows.
        MissingDependencyError, LicenceError: of the solver.
        ContradictionError: a point was replayed where there is proved to be none.
    """
    if not what.clauses:
        return Found(True, None, "nothing that the network can give violates it", False, {})
    decision = _decision(query, prop, what, options, budget)
    engine = engine_of(options.verifier)
    if engine is None:
        raise OptionError(f"--verifier {options.verifier!r} does not search for a counterexample of a property; choose bab or milp")
    work(decision, engine, _plan(options, what))
    return Found.of(decision, query)


def hunt(query: Query, prop: LocalProperty, what: Counterexamples, options: LocalOptions, budget: Budget | None = None) -> Found:
    """The same without a proof: only the attack."""
    if not what.clauses:
        return Found(False, None, "nothing that the network can give violates it", False, {})
    decision = _decision(query, prop, what, options, budget)
    try:
        decision.search(0, decision.rows(0).clauses, _plan(options, what))
    except KeyboardInterrupt:
        decision.budget.stop.set()
    return Found.of(decision, query)


def _plan(options: LocalOptions, what: Counterexamples) -> AttackPlan:
    """The attack with its starts shared out over the clauses: there are twice as many as classes, and most are hopeless."""
    plan = options.attack
    starts = max(min(plan.restarts, _LEAST_STARTS), min(plan.restarts, _STARTS // max(1, len(what.clauses))))
    return replace(plan, restarts=starts, seed=options.seed)


def _decision(query: Query, prop: LocalProperty, what: Counterexamples, options: LocalOptions, budget: Budget | None) -> Decision:
    lower, upper = query.space.ball(query.x0, prop.eps)
    box = SpecBox(lower, upper, row_set(what.clauses), BallJudge(query, prop))
    return Decision(Spec(what.network, (box,)), Session(options.exact, budget))
