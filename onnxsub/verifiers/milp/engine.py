"""The mixed-integer programs of Tjeng et al. (2019) as an engine."""

from __future__ import annotations

from onnxsub.ops.base import Array
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.decision import Decision
from onnxsub.verifiers.engine import DECISION, DISTANCE
from onnxsub.verifiers.milp.decide import decide
from onnxsub.verifiers.milp.distance import search_distance

__all__ = ["ENGINE", "Milp"]


class Milp:
    """`milp`: one program per target or clause that bounds leave."""

    name = "milp"
    asks = frozenset({DISTANCE, DECISION})

    def distance(self, bracket: Bracket, start: Array | None) -> None:
        search_distance(bracket, start)

    def decide(self, decision: Decision, plan: AttackPlan) -> None:
        decide(decision, plan)


ENGINE = Milp()
