"""What an exact engine of ours is: it closes a bracket, and refutes the clauses of a decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from onnxsub.ops.base import Array
    from onnxsub.verifiers.ascend import AttackPlan
    from onnxsub.verifiers.bracket import Bracket
    from onnxsub.verifiers.decision import Decision

__all__ = ["DECISION", "DISTANCE", "Engine"]

DISTANCE, DECISION = "distance", "decision"


class Engine(Protocol):
    """One engine. It works until its question is settled or the budget ends (`OutOfTime` may leave it); what it knows is then in
    the bracket or in the decision, also after Ctrl-C.

    Attributes:
        name: as `--verifier` takes it.
        asks: which kinds of question it answers.
    """

    name: str
    asks: frozenset[str]

    def distance(self, bracket: Bracket, start: Array | None) -> None:
        """Closes a bracket.

        Args:
            start: a point to begin with; it counts only if it is confirmed.
        """
        ...

    def decide(self, decision: Decision, plan: AttackPlan) -> None:
        """Refutes the clauses of a decision, or finds a point.

        Args:
            plan: how a counterexample is searched.
        """
        ...
