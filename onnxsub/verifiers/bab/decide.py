"""A decision by branch and bound: roots of every box, then rounds of the attack and turns of the trees, one after the other.

Where few inputs vary, a tree of boxes of inputs (`inputs/`) takes turns with the tree of signs of units; each proves what it can.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnxsub.budget import Budget, OutOfTime
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.bab.inputs.search import InputSearch
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
_REGIONS, _NODES = (8.0, 2.0), (0.1, 1.0)  # per node of a turn, of trees over few inputs and over more
_FEWEST = 10  # nodes that are worth the preparation of a tree
_SHARE = (0.9, 0.4)  # of a turn's time that goes to regions, likewise, where both kinds are left


@dataclass(frozen=True, eq=False)
class _Tree:
    """The trees of some clauses of a box.

    Attributes:
        inputs: over boxes of inputs; None: too many of these vary.
    """

    goal: InsideGoal
    question: Question
    inputs: InputSearch | None

    @property
    def open(self) -> bool:
        """Whether any of its clauses is."""
        return any(self.goal.pending(k) for k in self.goal.keys)

    @property
    def halves(self) -> bool:
        """Whether there are regions that can be halved."""
        return self.inputs is not None and not self.inputs.finished

    @property
    def finished(self) -> bool:
        """Whether nothing is left that anything can be done about."""
        return self.question.finished and not self.halves

    def run(self, budget: Budget, nodes: int | None) -> None:
        """Goes on for a share of the time, or so many nodes and regions.

        Raises:
            OutOfTime: the budget ended.
        """
        kind, share = 1, 1.0
        if self.inputs is not None and self.halves:
            kind = 0 if self.inputs.few else 1
            part = budget.part(budget.remaining * (1.0 if self.question.finished else _SHARE[kind]))
            try:
                self.inputs.run(part if nodes is None else part.with_nodes(int(_REGIONS[kind] * nodes)))
            except OutOfTime:
                budget.check()  # the end of its share only
            share = _NODES[kind]
        if nodes is not None:
            nodes = int(share * nodes)
            if nodes < _FEWEST:
                return
            budget = budget.with_nodes(nodes)
        if self.open and not self.question.finished and budget.running:
            self.question.run(budget)


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
                left = [k for k in clauses if goal.pending(k)]
                fits = InputSearch.fits(decision, number, left)
                trees.append(_Tree(goal, question, InputSearch(decision, number, left) if fits else None))
    # the box that is most likely to hold a counterexample comes first
    trees.sort(key=lambda t: -t.goal.promise)
    if not session.milp.attack:
        _take_turns(decision, trees, [], set())
        return
    # a few nodes settle most questions of small networks, and cost less than an attack
    _turn(decision, [t for t in trees if t.question.small or t.halves], _FIRST_TURN)
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
        todo = [t for t in trees if t.open and not t.finished]
        if not todo and not (rounds and any(t.open for t in trees)):
            return
        if rounds:
            _turn(decision, todo, turn)
            turn *= 2
        else:
            several = len(todo) > 1 or any(t.halves and not t.question.finished for t in todo)
            _turn(decision, todo, None, _FIRST_PASS * 2**passes if several else math.inf)
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
            tree.run(part, nodes)
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
