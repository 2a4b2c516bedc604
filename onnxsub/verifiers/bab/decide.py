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
_TURN = 256  # nodes that the trees go on for between two rounds of the attack, doubled each time
_FIRST_PASS = 10.0  # seconds that several boxes get each at first where there is no time limit


@dataclass(frozen=True, eq=False)
class _Tree:
    goal: InsideGoal
    question: Question


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
    if not decision.running:
        return
    if session.milp.attack and trees:
        free_attack(decision, [t.goal.number for t in trees])
    # the box that is most likely to hold a counterexample comes first
    trees.sort(key=lambda t: -t.goal.promise)
    _take_turns(decision, trees, _rounds(plan, session.limits.seed) if session.milp.attack else [])


def _blocks(clauses: list[int]) -> Iterator[list[int]]:
    for i in range(0, len(clauses), _BLOCK):
        yield clauses[i : i + _BLOCK]


def _take_turns(decision: Decision, trees: list[_Tree], rounds: list[AttackPlan]) -> None:
    budget = decision.budget
    turn, passes = _TURN, 0
    while decision.running:
        numbers = list(dict.fromkeys(t.goal.number for t in trees if decision.open(t.goal.number)))
        if rounds and numbers:
            _attack(decision, numbers, rounds.pop(0))
        todo = [t for t in trees if not t.question.finished and any(t.goal.pending(k) for k in t.goal.keys)]
        if not todo and not (rounds and numbers):
            return
        for i, tree in enumerate(todo):
            if decision.witness is not None:
                return
            budget.check()
            share = budget.remaining / (len(todo) - i)
            if not rounds and len(todo) > 1:
                share = min(share, _FIRST_PASS * 2**passes)
            part = budget.part(share) if math.isfinite(share) else budget.part(math.inf)
            if rounds:
                part = part.with_nodes(turn)
            try:
                tree.question.run(part)
            except OutOfTime:
                budget.check()  # the end of this tree's turn only
        if rounds:
            turn *= 2
        else:
            passes += 1


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
