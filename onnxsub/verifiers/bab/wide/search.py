"""The distance on networks of few units and many inputs, such as folded substitutes of large images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import UnsupportedOperatorError
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.wide.blocks import Blocks, blocks_of
from onnxsub.verifiers.bab.wide.tree import Effort, WideTree
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.box.unpool import with_relus
from onnxsub.verifiers.bracket import Bracket

__all__ = ["SHRUNK", "Program", "RowSearch", "network_as_blocks", "search_wide"]

Program: TypeAlias = Callable[[Tensor, Tensor, float, Budget], float]
"""The ends of a node's units, the radius and the clock; what is proved of the distance there."""

_INPUTS = 1024  # from so many on, where nothing else was tried before
_PER_UNIT = 16  # and so many times as many as open units: among fewer, rows are not nearly orthogonal
_PER_UNIT_LATER = 4  # the same where lines have left the bracket open
_UNITS = 300
_LARGE = 16_384  # inputs from which on the usual search is of no use: a step takes seconds
_SHARE = 0.6  # of the time that is left, below that: the usual search may be better where this one does not end
_MOST = 1500  # nodes of a tree, for the same reason
SHRUNK = 0.98  # of the radius: bounds are made anew where a point has come nearer than that


def search_wide(bracket: Bracket, *, later: bool = False) -> bool:
    """Raises the lower ends, and tries points on the way; whether the network is of that kind, and a point is known.

    Plain bounds have their say first: what a root needs takes seconds on large networks, and a clock may end before it.

    Args:
        later: whether the usual search was tried before: then fewer inputs do.
    """
    inputs = bracket.network.input_size
    if bracket.session.milp.fold == "never" or (inputs < _INPUTS and not later):
        return False
    large = inputs >= _LARGE
    budget = bracket.budget.part((1 if large else _SHARE) * bracket.budget.remaining)
    tried = False
    if math.isfinite(bracket.upper) and bracket.running:
        bracket.certify()
    while math.isfinite(bracket.upper) and bracket.running and not bracket.settled:
        radius = min(bracket.upper - bracket.gap / 2, bracket.reach)
        local = bracket.local(radius, branching=True)
        if local.unstable > min(_UNITS, inputs // (_PER_UNIT_LATER if later else _PER_UNIT)):
            break
        model = network_as_blocks(bracket, local, radius)
        if model is None:
            break
        tried, blocks = True, model[1]
        # those that are soon refuted first, and none may leave the others without time
        rows = local.open[::-1]
        for number, row in enumerate(rows):
            part = budget.part(budget.remaining / (len(rows) - number))
            if not part.over:
                RowSearch(bracket, blocks, row, radius).run(part, math.inf if large else _MOST)
        if bracket.upper >= SHRUNK * radius or budget.over:
            break
    return tried


def network_as_blocks(bracket: Bracket, local: BoxModel, radius: float) -> tuple[BoxModel, Blocks] | None:
    """The network on a ball, folded, and as matrices; None where it is no network of Relus."""
    if local.folds_further:
        try:
            with bracket.budget.stage("fold"):
                local = local.folded()
        except UnsupportedOperatorError:
            return None
        bracket.keep(local, radius)
    local = with_relus(local)
    blocks = blocks_of(local)
    return None if blocks is None else (local, blocks)


class RowSearch:
    """One target on a ball; what is proved goes to the bracket, also where an interruption ends the tree.

    Args:
        programs: makes what searches nodes with few open units, or None where bounds exclude the target; None: the tree goes on to
            their end.
        effort: what is done before programs are asked.
    """

    def __init__(
        self, bracket: Bracket, blocks: Blocks, row: int, radius: float, programs: Callable[[], Program | None] | None = None,
        effort: Effort | None = None,
    ) -> None:  # fmt: skip
        self.row, self._bracket, self._radius = row, bracket, radius
        self._program: Program | None = None
        self._tree: WideTree | None = None
        if not self._wanted:
            return
        self._program = None if programs is None else programs()
        if programs is None or self._program is not None:
            self._tree = WideTree(blocks, row, self._close, self._found, None if programs is None else self._searched, effort)

    @property
    def _close(self) -> float:
        return min(self._radius, self._bracket.upper - self._bracket.gap / 2)

    @property
    def _wanted(self) -> bool:
        return self._bracket.claims.lowers[self.row] < self._close

    @property
    def finished(self) -> bool:
        """Whether to go on would bring nothing."""
        return self._tree is None or self._tree.finished or not self._wanted

    @property
    def shrunk(self) -> bool:
        """Whether a point has come so much nearer that programs, which were made for the larger ball, are of no more use."""
        return self._program is not None and self._close < SHRUNK * self._radius

    @property
    def nodes(self) -> int:
        """Bounded so far."""
        return 0 if self._tree is None else self._tree.nodes

    @property
    def ends(self) -> tuple[float, Tensor, Tensor] | None:
        """A radius, and intervals of the units where the target is reached within it; None: it is proved as far as anyone asks."""
        return (self._tree.close, *self._tree.ends) if self._tree is not None and self._wanted else None

    def run(self, budget: Budget, most: float = math.inf) -> None:
        """Goes on for some time, or until there are so many nodes."""
        if self.finished or budget.over:
            return
        assert self._tree is not None
        try:
            with contextlib.suppress(OutOfTime), self._bracket.budget.stage("tree"):
                self._tree.run(budget, most, lambda: self.shrunk)
        finally:
            self._bracket.claims.prove(self.row, self._tree.lower)

    def _found(self, offsets: Array) -> float:
        self._bracket.accept(self._bracket.x0 + offsets.reshape(self._bracket.x0.shape))
        return self._close

    def _searched(self, lower: Tensor, upper: Tensor, budget: Budget) -> tuple[float, float]:
        assert self._program is not None
        return self._program(lower, upper, self._close, budget), self._close
