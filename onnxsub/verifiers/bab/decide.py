"""A decision by branch and bound: roots of every box, then rounds of the attack and turns of the trees, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnxsub.budget import OutOfTime
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.bab.inside import InsideGoal
from onnxsub.verifiers.bab.question import Question
from onnxsub.verifiers.decision import Decision
from onnxsub.verifiers.free_attack import free_attack
from onnxsub.verifiers.screen import screen

__all__ = ["decide"]

_ATTACK = 1 / 6  # of the time left that one round of the attack may take
_BLOCK = 256  # clauses of one tree
_FIRST_TURN = 64  # nodes of the trees of small networks before any attack
_TURN = 256  # nodes that the trees go on for between two rounds of the attack, doubled each time
_FIRST_PASS = 10.0  # seconds that several boxes get each at first where there is no time limit


@dataclass(frozen=True, eq=False)
class _Tree:
    goal: InsideGoal
    question: Question

    @property
    def open(self) -> bool:
        """Whether any of its clauses is."""
        return any(self.goal.pending(k) for k in self.goal.keys)


def decide(decision: Decision, plan: AttackPlan) -> None:
    """Refutes the clauses of a decision, or finds a point.

    Raises:
        UnsupportedOperatorError: an operator has no bounds.
        OutOfTime: the budget ended; the decision holds what is known.
    """
    session, budget = decision.session, decision.budget
    trees = []
    for number in range(len(decision.spec.boxes)):
        budget.tell(f"bounds of box {number + 1} of {len(decision.spec.boxes)}")
        screen(decision, number)
        for clauses in _blocks(decision.open(number)):
            if not decision.running:
                return
            goal = InsideGoal(decision, number, clauses)
            question = Question(goal, session, budget.remaining)
            if not question.roots() and decision.running:
                trees.append(_Tree(goal, question))
    # the box that is most likely to hold a counterexample comes first
    trees.sort(key=lambda t: -t.goal.promise)
    if not session.milp.attack:
        _take_turns(decision, trees, [], set())
        return
    # a few nodes settle most questions of small networks, and cost less than an attack
    _turn(decision, [t for t in trees if t.question.small], _FIRST_TURN)
    numbers = [t.goal.number for t in trees if t.open]
    attacked = free_attack(decision, numbers) if decision.running else set()
    _take_turns(decision, trees, _rounds(plan, session.limits.seed), attacked)


def _blocks(clauses: list[int]) -> Iterator[list[int]]:
    for i in range(0, len(clauses), _BLOCK):
        yield clauses[i : i + _BLOCK]


def _take_turns(decision: Decision, trees: list[_Tree], rounds: list[AttackPlan], attacked: set[int]) -> None:
    """Rounds of the attack and turns of the trees; then the trees alone, with equal shares of the time.

    Args:
        attacked: boxes that had their attack already: there the trees come first.
    """
    turn, passes = _TURN, 0
    while decision.running:
        numbers = [n for n in dict.fromkeys(t.goal.number for t in trees if t.open) if n not in attacked]
        if rounds and numbers:
            _attack(decision, numbers, rounds.pop(0))
        attacked = set()
        todo = [t for t in trees if t.open and not t.question.finished]
        if not todo and not (rounds and any(t.open for t in trees)):
            return
        if rounds:
            _turn(decision, todo, turn)
            turn *= 2
        else:
            _turn(decision, todo, None, _FIRST_PASS * 2**passes if len(todo) > 1 else math.inf)
            passes += 1


def _turn(decision: Decision, trees: list[_Tree], nodes: int | None, seconds: float = math.inf) -> None:
    """Every tree goes on for so many nodes, and for its share of the time."""
    budget = decision.budget
    for i, tree in enumerate(trees):
        if decision.witness is not None:
            return
        budget.check()
        part = budget.part(min(budget.remaining / (len(trees) - i), seconds))
        try:
            tree.question.run(part if nodes is None else part.with_nodes(nodes))
        except OutOfTime:
            budget.check()  # the end of this tree's turn only


def _rounds(plan: AttackPlan, seed: int) -> list[AttackPlan]:
    """The rounds of a plan as plans of their own."""
    pairs = zip(plan.growth, plan.noise, strict=True)
    return [replace(plan, growth=(g,), noise=(n,), seed=seed + i) for i, (g, n) in enumerate(pairs)]


def _attack(decision: Decision, numbers: list[int], plan: AttackPlan) -> None:
    budget = decision.budget.part(_ATTACK * decision.budget.remaining)
    for i, number in enumerate(numbers):
        decision.budget.tell(f"searching for a counterexample in box {number + 1}")
        members = tuple(decision.rows(number).clauses[k] for k in decision.open(number))
        part = budget.part(budget.remaining / (len(numbers) - i))
        if members and decision.running and decision.search(number, members, plan, budget=part):
            return
