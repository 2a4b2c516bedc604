"""A property as the exact verifiers take it: clauses over a network, and a judge that replays on the original file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxsub.budget import Budget
from onnxsub.metrics.local.base import Counterexamples, LocalProperty
from onnxsub.metrics.local.verdict import LocalOptions
from onnxsub.ops.base import Array
from onnxsub.properties import Case, Property, as_margin_network
from onnxsub.query import Query
from onnxsub.verifiers.property import PropertyOptions, by_branching
from onnxsub.verifiers.property_attack import AttackPlan, PropertyWitness, ascend
from onnxsub.verifiers.property_milp import decide_by_programs
from onnxsub.verifiers.property_state import PropertyState

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
        low, high = (end.reshape(-1) for end in query.space.ball(query.x0, prop.eps))
        l, u = low.astype(np.float32), high.astype(np.float32)
        self.lower: Array = np.where(l < low, np.nextafter(l, np.float32(np.inf)), l)
        self.upper: Array = np.where(u > high, np.nextafter(u, np.float32(-np.inf)), u)

    def judge(self, x: Array) -> PropertyWitness:
        """The verdict on a point, moved into the ball first. The anchor is a float32 point of it, so there is always one."""
        point = np.clip(np.asarray(x, dtype=np.float64).reshape(-1).astype(np.float32), self.lower, self.upper)
        query, prop = self._query, self._prop
        found = prop.measure(query, point.reshape(1, *query.x0.shape))
        value = float(found.quantity[0])
        margin = prop.bound - value if prop.smallest else value - prop.bound
        return PropertyWitness(point.astype(np.float64), np.array([value]), 0, margin, bool(found.violated[0]))


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
    def of(state: PropertyState, query: Query) -> Found:
        """What is known at the end of a search."""
        marks = [m for case in state.marks for m in case]
        left = sum(m == "unknown" for m in marks)
        witness, interrupted = None, state.stop.is_set()
        if state.witness is not None:
            witness = state.witness.x.reshape(query.x0.shape).astype(np.float32)
            reason = "a point of the ball, replayed with onnxruntime on the file"
        elif left == 0:
            by = "bounds" if state.nodes + state.runs == 0 else f"bounds and {state.nodes:,} nodes"
            reason = f"{by} exclude all {len(marks)} ways to violate it"
        elif interrupted:
            reason = "interrupted before everything was decided"
        elif state.remaining <= 0 or state.limited:
            reason = f"{left} of {len(marks)} ways to violate it are open: the time limit ended it; give more (--timeout)"
        else:
            reason = f"{left} of {len(marks)} ways to violate it are open: the extreme value is too near to the bound to tell"
        return Found(witness is None and left == 0, witness, reason, interrupted, dict(state.times))


def search(query: Query, prop: LocalProperty, what: Counterexamples, options: LocalOptions, budget: Budget) -> Found:
    """Looks for a point of the ball that violates the property, and for a proof that there is none.

    Args:
        what: the points that violate it.
        budget: in place of the time limit of `options`.

    Raises:
        UnsupportedOperatorError: an operator has no bounds, or (`milp`) no rows.
        MissingDependencyError, LicenceError, SolverError: of the solver.
    """
    if not what.clauses:
        return Found(True, None, "nothing that the network can give violates it", False, {})
    state = _state(query, prop, what, options, budget)
    plan = _plan(options, what)
    chosen = PropertyOptions(state.options, plan, options.verifier, options.bab)
    try:
        if options.verifier == "milp":
            decide_by_programs(state, plan)
        else:
            by_branching(state, chosen)
    except KeyboardInterrupt:
        state.stop.set()
    return Found.of(state, query)


def hunt(query: Query, prop: LocalProperty, what: Counterexamples, options: LocalOptions, budget: Budget) -> Found:
    """The same without a proof: only the attack."""
    if not what.clauses:
        return Found(False, None, "nothing that the network can give violates it", False, {})
    state = _state(query, prop, what, options, budget)
    rows = state.rows[0]
    network = as_margin_network(what.network, rows)
    with state.stage("attack"):
        found = ascend(network, rows.clauses, state.judges[0], _plan(options, what), late=lambda: budget.over)
    if found is not None:
        state.accept(0, found)
    return Found.of(state, query)


def _plan(options: LocalOptions, what: Counterexamples) -> AttackPlan:
    """The attack with its starts shared out over the clauses: there are twice as many as classes, and most are hopeless."""
    plan = options.attack
    starts = max(min(plan.restarts, _LEAST_STARTS), min(plan.restarts, _STARTS // max(1, len(what.clauses))))
    return replace(plan, restarts=starts, seed=options.seed)


def _state(query: Query, prop: LocalProperty, what: Counterexamples, options: LocalOptions, budget: Budget) -> PropertyState:
    low, high = (end.reshape(-1) for end in query.space.ball(query.x0, prop.eps))
    question = Property((Case(low, high, what.clauses),), query.network.input_shape, what.network.output_shape)
    judge = BallJudge(query, prop)
    return PropertyState(query.model, question, options.milp(budget.remaining), None, network=what.network, judges=[judge])
