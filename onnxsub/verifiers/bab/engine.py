"""Branch and bound as an engine."""

from __future__ import annotations

from onnxsub.ops.base import Array
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.bab.decide import decide
from onnxsub.verifiers.bab.distance import search_distance
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.decision import Decision
from onnxsub.verifiers.engine import DECISION, DISTANCE

__all__ = ["ENGINE", "BranchAndBound"]


class BranchAndBound:
    """`bab`: linear bounds on nodes, programs where few units are left."""

    name = "bab"
    asks = frozenset({DISTANCE, DECISION})

    def distance(self, bracket: Bracket, start: Array | None) -> None:
        search_distance(bracket, start)

    def decide(self, decision: Decision, plan: AttackPlan) -> None:
        decide(decision, plan)


ENGINE = BranchAndBound()
