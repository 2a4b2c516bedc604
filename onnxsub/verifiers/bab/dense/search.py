"""The distance on small networks of Relus: a tree for all targets at once, first near the anchor, then at the upper end.

Where lines take hundreds of nodes for 0.8 of the upper end, roots are bounded with squares (`wide/`): either that closes a target,
or the units' intervals that come of it leave lines a fraction of the nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.ops.base import Array
from onnxsub.passes.attack.walk import walk_back
from onnxsub.verifiers.bab.dense.tree import DenseTree
from onnxsub.verifiers.bab.wide.blocks import Blocks
from onnxsub.verifiers.bab.wide.search import RowSearch, network_as_blocks
from onnxsub.verifiers.bab.wide.small import NodeProgram, worth_squares
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.bracket import Bracket

__all__ = ["search_dense"]

_UNITS = 128  # of the network: larger ones have not been shown to gain (PERFORMANCE.md)
_INPUTS = 16_384
_FIRST = 0.8  # share of the upper end that is asked about first
_SHARE = 0.4  # of the time: what the first one may take; one that is not proved is worth nothing
_HARD = 1_200  # nodes of the first one: at the upper end a hundred times as many would follow, and squares close more there
_NEAR, _HARDER = 0.975, 6_000  # of the upper end: where those are asked about before that which took so many nodes
_SQUARES = 25.0  # seconds that must be left for these
# by what radii become smaller, one after the other, for what stays open; shares of the time left
_SMALLER = (1.0, 0.85), (0.99, 0.7), (0.985, 0.8), (0.97, 0.8), (0.95, 1.0)
_WALKS = 8  # points from which one walk begins

_Ends = dict[int, tuple[float, Tensor, Tensor]]  # a radius, and intervals of the units where the target is reached within it


@dataclass(frozen=True, eq=False)
class _Ball:
    """The network on a ball: as a model, as matrices, and the targets that are not proved there."""

    local: BoxModel
    blocks: Blocks
    radius: float
    rows: list[int]

    @staticmethod
    def of(bracket: Bracket, radius: float) -> _Ball | None:
        """None where the network is none of Relus."""
        found = network_as_blocks(bracket, bracket.local(radius, branching=True), radius)
        if found is None:
            return None
        local, blocks = found
        return _Ball(local, blocks, radius, [t for t in local.open if bracket.claims.lowers[t] < radius])


class _Question:
    """Which of some targets are reached on a ball.

    Args:
        ends: narrower intervals of the units, per target.
    """

    def __init__(self, bracket: Bracket, ball: _Ball, rows: list[int], ends: _Ends) -> None:
        self._bracket, self._ball, self._models = bracket, ball, dict[int, ClauseModel | None]()
        known = None if not ends else (torch.stack([ends[r][1] for r in rows]), torch.stack([ends[r][2] for r in rows]))
        memory = bracket.session.bab.memory
        self.tree = DenseTree(ball.blocks, rows, ball.radius, self._found, self._program, memory, known)
        if ends:
            self.tree.within(min(ends[r][0] for r in rows))

    def run(self, budget: Budget) -> None:
        """What is proved goes to the bracket, also where an interruption ends it."""
        try:
            with self._bracket.budget.stage("tree"):
                self.tree.run(budget)
        finally:
            for row in self.tree.closed:
                self._bracket.claims.prove(row, self.tree.radius)

    @property
    def _close(self) -> float:
        return self._bracket.upper - self._bracket.gap / 2

    def _found(self, offsets: Array, reached: bool) -> float:
        b = self._bracket
        x = b.x0 + offsets.reshape(-1, *b.x0.shape)
        if reached:
            b.accept(x[0])
        near = walk_back(
            b.network, b.x0.astype("float32"), b.label, b.instance.space, x[:_WALKS].astype("float32"), b.referee.margins,
            upper=b.upper if math.isfinite(b.upper) else None, budget=b.budget, target=b.instance.target,
        )  # fmt: skip
        if near is not None and near.radius < b.upper:
            b.accept(near.x)
        return self._close

    def _program(self, row: int, lower: Tensor, upper: Tensor, budget: Budget) -> tuple[bool, float]:
        """By linear programs."""
        b = self._bracket
        if row not in self._models:
            self._models[row] = b.target(self._ball.local, row)
        model = self._models[row]
        if model is None:
            return True, self._close
        radius = min(self.tree.radius, self._close)
        key = NodeProgram(b, model)(lower, upper, radius, budget)
        return key >= min(radius, self._close), self._close


def search_dense(bracket: Bracket) -> None:
    """Raises the lower ends, and tries points on the way, where the network is of that kind and a point is known."""
    few = bracket.session.bab.device == "cpu" and bracket.network.input_size <= _INPUTS
    few = few and bracket.network.units_and_windows <= _UNITS
    if not few or bracket.session.milp.fold == "never" or not math.isfinite(bracket.upper):
        return
    # what has few open units is the linear programs'
    local = bracket.local(min(bracket.upper - bracket.gap / 2, bracket.reach), branching=True)
    if bracket.settled or local.unstable <= bracket.session.bab.small:
        return
    budget, before = bracket.budget, bracket.budget.nodes
    if not _proved(bracket, _FIRST, _SHARE):
        return
    nodes = budget.nodes - before
    hard = nodes > _HARD and worth_squares(bracket, local)
    if hard and nodes > _HARDER and not _proved(bracket, _NEAR, 1.0, squares=True):
        return
    _proved(bracket, 1.0, 1.0, squares=hard)


def _proved(bracket: Bracket, share: float, time: float, *, squares: bool = False) -> bool:
    """Whether nothing lies within a share of the upper end; what is proved goes to the bracket.

    Args:
        time: share of what is left; where it does not suffice, the open nodes are closed within smaller radii.
        squares: for what lines do not close soon, where there is time for it.
    """
    if bracket.lower >= share * bracket.upper:
        return True
    if not bracket.running or bracket.settled:
        return False
    budget, radius = bracket.budget, share * min(bracket.upper - bracket.gap / 2, bracket.reach)
    ball = _Ball.of(bracket, radius)
    if ball is None:
        return False
    if not ball.rows:
        return True
    whole, rows, ends = budget.part(time * budget.remaining), ball.rows, _Ends()
    if squares and (not budget.limited or budget.remaining >= _SQUARES):
        ends = _hard_ones(bracket, ball, whole)
        rows = list(ends)
        if not rows:
            return bracket.claims.lower >= min(radius, bracket.upper - bracket.gap)
    question = _Question(bracket, ball, rows, ends)
    tree = question.tree
    for smaller, part in _SMALLER:
        tree.within(smaller * min(radius, bracket.upper - bracket.gap / 2, tree.radius))
        try:
            question.run(whole.part(part * whole.remaining))
        except OutOfTime:
            budget.check()
        if tree.finished or not bracket.running:
            break
    return bracket.claims.lower >= min(radius, bracket.upper - bracket.gap)


def _hard_ones(bracket: Bracket, ball: _Ball, budget: Budget) -> _Ends:
    """The targets that roots with squares do not close, and what intervals these leave."""
    ends = _Ends()
    for row in ball.rows[::-1]:  # those that are soon refuted first
        search = RowSearch(bracket, ball.blocks, row, ball.radius)
        search.run(budget, 1)
        if search.ends is not None:
            ends[row] = search.ends
    return ends
