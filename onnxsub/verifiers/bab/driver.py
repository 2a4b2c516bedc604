"""A tree and what happens round it: points are tried, stubborn clauses and nodes without splits become programs.

One driver serves every goal: a distance, a decision about a box, the largest value of a row. A goal says what a node must reach,
what becomes of points and of what is proved; how long a tree is left alone before a program is tried is a policy. All of it counts
nodes where it can, not seconds, so that the same question visits the same nodes on a slower machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.errors import UnsupportedOperatorError
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.bab.leaf import node_model
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.session import Session

__all__ = ["Driver", "Goal", "Policy"]

_TELL = 0.5  # seconds between two lines of progress


@dataclass(frozen=True)
class Policy:
    """When programs are tried. Measured on wk17a, `mnist-net_256x2` and the properties of VNN-COMP (PERFORMANCE.md).

    Attributes:
        first: nodes of a tree before the program of a whole clause is tried; as many again as were visited before the next.
        by_steps: whether nodes count by their gradient steps (`Frontier.work`). Programs of a distance take much longer than those
            of a decision: there it does not pay to try them as soon as nodes are dear.
        far: times as many where bounds are not near to being done.
        near: share of the closing key from which on they are: multipliers will not get there soon, a program may.
        largest: most open units of the program of a whole clause.
        small: open units up to which it is asked at once.
        seconds: that a program gets at least; else as long as the tree has taken.
    """

    first: int = 128
    by_steps: bool = False
    far: int = 8
    near: float = 0.97
    largest: int = 150
    small: int = 0
    seconds: float = 2.0


class Goal(Protocol):
    """What a tree is grown for."""

    policy: Policy

    @property
    def done(self) -> bool:
        """Whether nothing is left to look for."""
        ...

    def close(self) -> float:
        """The key at which a node is done."""
        ...

    def look(self, frame: Frame, offsets: Tensor, frontier: Frontier | None) -> None:
        """Tries the points at which bounds are attained, `(B, n)` offsets."""
        ...

    def stale(self, frontier: Frontier) -> bool:
        """Whether the tree is better begun again on a tighter box."""
        ...

    def progressed(self, frontier: Frontier) -> None:
        """Called after every step."""
        ...

    def publish(self, frontier: Frontier) -> None:
        """Takes what the frontier has proved, also when it was interrupted."""
        ...

    def program(self, model: ClauseModel, close: float, budget: Budget) -> float:
        """Solves the programs of a clause or a node: a proved key, infinite where nothing of interest is left."""
        ...


class Driver:
    """One frontier with its goal.

    Args:
        models: of the frame's clauses, in the same order.
        programs: whether those of whole clauses are tried.
    """

    def __init__(
        self, goal: Goal, session: Session, models: list[ClauseModel], frontier: Frontier, *, programs: bool = True
    ) -> None:
        self.frontier = frontier
        self._goal = goal
        self._session = session
        self._models = models
        self._units = [m.binaries for m in models]
        self._able = models[0].local.able
        self._programs = programs and self._able and session.bab.leaf > 0
        self._patience = [float(goal.policy.first)] * len(models)
        self._whole: dict[int, ClauseModel | None] = {}
        self._spent = self._told = 0.0

    @property
    def finished(self) -> bool:
        """Whether no node is left that anything can be done about."""
        return not self.frontier.active

    def run(self, budget: Budget) -> None:
        """Until the frontier is empty, the goal is reached or the budget ends."""
        goal, tree = self._goal, self.frontier
        try:
            tree.shrink(goal.close())
            if not tree.started:
                self._look(tree.start())
            while tree.active and not goal.done and budget.running and not goal.stale(tree):
                began = budget.now
                row = self._stubborn()
                if row is not None:
                    self._program(row, budget)
                elif tree.leaves:
                    self._leaf(budget)
                else:
                    # one tree of several about a box has its turn, the tree of a distance goes on later
                    tree.step(self._look, budget if tree.frame.whole else None)
                tree.book()
                self._spent += budget.now - began
                goal.progressed(tree)
                self._tell()
        finally:
            tree.book()
            goal.publish(tree)

    def _tell(self) -> None:
        now = time.perf_counter()
        if now - self._told > _TELL:
            self._told = now
            tree = self.frontier
            reached = f"{tree.lower:.6g} of {tree.close:.6g}"
            self._session.budget.tell(f"search: {len(tree)} nodes open, {tree.visited} bounded, {reached}")

    def _look(self, offsets: Tensor) -> None:
        self._goal.look(self.frontier.frame, offsets, self.frontier)
        self.frontier.shrink(self._goal.close())

    @property
    def _grown(self) -> float:
        return self.frontier.work if self._goal.policy.by_steps else self.frontier.visited

    def _stubborn(self) -> int | None:
        """The clause of the next node, where the tree has had its time and one program may settle it."""
        tree, policy = self.frontier, self._goal.policy
        first = tree.first
        if first is None or not self._programs:
            return None
        units = self._units[first.target]
        if units > policy.largest:
            return None
        near = units <= self._session.bab.leaf and tree.lower >= policy.near * tree.close
        wait = 0 if units <= policy.small else self._patience[first.target] * (1 if near else policy.far)
        return first.target if self._grown > wait and (wait or first.target not in self._whole) else None

    def _program(self, row: int, budget: Budget) -> None:
        """The program of a whole clause, for about as long as the tree has taken so far."""
        tree = self.frontier
        model = self._folded(row)
        part = budget.part(max(self._spent, self._goal.policy.seconds))
        key = float("inf") if model is None else self._goal.program(model, tree.close, part)
        tree.shrink(self._goal.close())
        tree.raise_target(row, key)
        self._patience[row] = 2 * max(self._grown, 1.0)

    def _folded(self, row: int) -> ClauseModel | None:
        """A clause on the folded network, which a solver takes half as long for; None: bounds refute it there."""
        if row not in self._whole:
            model, found = self._models[row], self._models[row]
            local = model.local
            if local.how.fold != "never" and local.folds_further:
                try:
                    compact = local.folded()
                except UnsupportedOperatorError:
                    if local.how.fold == "always":
                        raise
                else:
                    self._whole[row] = compact.clause(model.key, self._session.bab.tighten)
                    return self._whole[row]
            self._whole[row] = found
        return self._whole[row]

    def _leaf(self, budget: Budget) -> None:
        """The program of a node with nothing left to split: it is done, or as well known as it can be."""
        tree = self.frontier
        node = tree.leaves[-1]  # it stays there until it is known what becomes of it
        key = node.key
        if key < tree.close and self._able:
            model = node_model(tree.frame, self._models[node.target], node)
            key = self._goal.program(model, tree.close, budget)
            tree.shrink(self._goal.close())
        if key >= tree.close or not budget.over:
            tree.settle_leaf(node, key)
        else:
            tree.raise_leaf(node, key)
