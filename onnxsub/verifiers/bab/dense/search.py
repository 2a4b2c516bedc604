"""The distance on small networks of Relus: a tree for all targets at once, first near the anchor, then at the upper end."""

from __future__ import annotations

import math

from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.ops.base import Array
from onnxsub.passes.attack.walk import walk_back
from onnxsub.verifiers.bab.dense.tree import DenseTree
from onnxsub.verifiers.bab.wide.search import network_as_blocks
from onnxsub.verifiers.bab.wide.small import program_of_node, search_small, worth_squares
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.bracket import Bracket

__all__ = ["search_dense"]

_UNITS = 128  # of the network: larger ones have not been shown to gain (PERFORMANCE.md)
_INPUTS = 16_384
_FIRST = 0.8  # share of the upper end that is asked about first
_SHARE = 0.4  # of the time: what the first one may take; one that is not proved is worth nothing
_HARD = 2_000  # nodes of the first one: at the upper end a hundred times as many would follow, and squares close more there
_SQUARES = 25.0  # seconds that must be left for these
_SMALLER = (1.0, 0.7), (0.97, 0.4), (0.93, 1.0)  # shares of a radius within which what stays open is closed; of the time left
_WALKS = 8  # points from which one walk begins


class _Question:
    """One radius: which of the targets are reached within it."""

    def __init__(self, bracket: Bracket, local: BoxModel, radius: float) -> None:
        self._bracket, self._models = bracket, dict[int, ClauseModel | None]()
        found = network_as_blocks(bracket, local, radius)
        self.tree: DenseTree | None = None
        self.fits = found is not None
        if found is None:
            return
        self._local, blocks = found
        rows = [t for t in self._local.open if bracket.claims.lowers[t] < radius]
        if rows:
            memory = bracket.session.bab.memory
            self.tree = DenseTree(blocks, rows, radius, self._found, self._program, memory)

    def run(self, budget: Budget) -> None:
        """What is proved goes to the bracket, also where an interruption ends it."""
        if self.tree is None:
            return
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
            self._models[row] = b.target(self._local, row)
        model = self._models[row]
        if model is None:
            return True, self._close
        assert self.tree is not None
        radius = min(self.tree.radius, self._close)
        key = program_of_node(b, model, lower, upper, radius, budget)
        return key >= min(radius, self._close), self._close


def search_dense(bracket: Bracket) -> None:
    """Raises the lower ends, and tries points on the way, where the network is of that kind and a point is known."""
    few = bracket.session.bab.device == "cpu" and bracket.network.input_size <= _INPUTS
    few = few and bracket.network.units_and_windows <= _UNITS
    if not few or bracket.session.milp.fold == "never" or not math.isfinite(bracket.upper):
        return
    # what has few open units is the linear programs'
    local = bracket.local(min(bracket.upper - bracket.gap / 2, bracket.reach), branching=True)
    if bracket.settled or local.unstable <= bracket.session.bab.dive:
        return
    budget, before = bracket.budget, bracket.budget.nodes
    first = _proved(bracket, _FIRST, _SHARE)
    hard = first and budget.nodes - before > _HARD and budget.limited and budget.remaining >= _SQUARES
    if hard and bracket.running and worth_squares(bracket, local):
        first = not search_small(bracket)
    if first:
        _proved(bracket, 1.0, 1.0)


def _proved(bracket: Bracket, share: float, time: float) -> bool:
    """Whether nothing lies within a share of the upper end; what is proved goes to the bracket.

    Args:
        time: share of what is left; where it does not suffice, the open nodes are closed within smaller radii.
    """
    if bracket.lower >= share * bracket.upper:
        return True
    if not bracket.running or bracket.settled:
        return False
    budget, radius = bracket.budget, share * min(bracket.upper - bracket.gap / 2, bracket.reach)
    question = _Question(bracket, bracket.local(radius, branching=True), radius)
    tree = question.tree
    if tree is None:
        return question.fits
    whole = budget.part(time * budget.remaining)
    for smaller, part in _SMALLER:
        tree.within(smaller * min(radius, tree.radius))
        try:
            question.run(whole.part(part * whole.remaining))
        except OutOfTime:
            budget.check()
        if tree.finished or not bracket.running:
            break
    return bracket.claims.lower >= min(radius, bracket.upper - bracket.gap)
