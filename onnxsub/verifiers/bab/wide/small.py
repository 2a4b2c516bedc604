"""The distance on small networks of Relus: squares close what linear relaxations leave open, programs end it.

The tree of `tree.py` refutes all but what lies near the nearest points, where its bounds, found by gradient steps, stop at a share
of the radius. Nodes with few open units there are searched by linear programs, which are exact.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.verifiers.bab.leaf import ends_of_units, restricted
from onnxsub.verifiers.bab.lp.depth_first import DepthFirst
from onnxsub.verifiers.bab.wide.search import SHRUNK, Program, RowSearch, network_as_blocks
from onnxsub.verifiers.bab.wide.steps import Pace
from onnxsub.verifiers.bab.wide.tree import Effort
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.bracket import Bracket

__all__ = ["NodeProgram", "search_small", "worth_squares"]

_UNITS = 200  # open ones, at most
_PER_UNIT = 3  # as many times as many inputs as open units: among fewer, rows have too much in common
_NEAR, _MOST = 0.975, 0.75  # of the upper end: where is searched first; of the time that is left: what that may take
_LESS = 0.94  # of the upper end: where what stays open is searched
_ROOTS = 0.9  # of the time that is left: what other roots may take
_TURN = 0.3  # of the time that is left: what the trees of all targets may take before each has its next turn
_LEAST = 0.5  # seconds of a turn
_LIGHT = Pace(120, 0.2, 10), Pace(50, 0.05, 10), Pace(50, 0.05, 10)  # steps of a root that programs take whole


def worth_squares(bracket: Bracket, local: BoxModel) -> bool:
    """Whether squares are likely to close more than lines do."""
    return local.unstable <= min(_UNITS, bracket.network.input_size // _PER_UNIT) and bracket.session.milp.fold != "never"


def search_small(bracket: Bracket, *, few: bool = False) -> bool:
    """Raises the lower ends, and tries points on the way, where a point is known; whether there was time.

    First within `_NEAR` of the upper end, where trees are far smaller; what stays open there, within less; else at the end itself.

    Args:
        few: whether linear programs take all units of the network at once. Then squares are asked for narrower intervals only, and
            at the upper end, since programs find the points that lower it.
    """
    if few:
        return _searched(bracket, 1.0, 1.0, Effort(bracket.session.bab.dive, _LIGHT))
    if not _searched(bracket, _NEAR, _MOST):
        return False
    _searched(bracket, 1.0 if bracket.lower >= _NEAR * (bracket.upper - bracket.gap) else _LESS, 1.0)
    return True


def _searched(bracket: Bracket, share: float, time: float, effort: Effort | None = None) -> bool:
    """Searches within that share of the upper end; False where the roots alone would take most of the time.

    Args:
        time: share of what is left.
        effort: of every tree before it asks its program; default: that of a tree.
    """
    budget = bracket.budget.part(time * bracket.budget.remaining)
    while math.isfinite(bracket.upper) and bracket.lower < share * bracket.upper and budget.running and not bracket.settled:
        radius = share * min(bracket.upper - bracket.gap / 2, bracket.reach)
        local = bracket.local(radius, branching=True)
        found = network_as_blocks(bracket, local, radius) if worth_squares(bracket, local) else None
        if found is None:
            return False
        # those that are soon refuted first
        rows = [r for r in found[0].open[::-1] if bracket.claims.lowers[r] < radius]
        searches, began = list[RowSearch](), budget.now
        for number, row in enumerate(rows):
            search = RowSearch(bracket, found[1], row, radius, partial(_program, bracket, found[0], row), effort)
            search.run(budget, 1)  # the root, which is worth nothing before it is complete
            searches.append(search)
            if search.shrunk:
                break
            if budget.limited and (budget.now - began) / (number + 1) * (len(rows) - number - 1) > _ROOTS * budget.remaining:
                return False
        _in_turns(searches, budget)
        # a search is shrunk by what its own ball loses, the next ball by its share of the upper end: either is a reason
        if bracket.upper * share >= SHRUNK * radius and not any(s.shrunk for s in searches):
            break
    return True


def _in_turns(searches: list[RowSearch], budget: Budget) -> None:
    """Goes on with trees until all are finished, a ball has shrunk or the time is over; none may leave the others without."""
    while (open_ := [s for s in searches if not s.finished]) and budget.running:
        for number, search in enumerate(open_):
            if search.shrunk:
                return
            search.run(budget.part(max(_TURN * budget.remaining / (len(open_) - number), _LEAST)))


class NodeProgram:
    """What linear programs prove of nodes of one target; a search that its time ended goes on where it was."""

    def __init__(self, bracket: Bracket, model: ClauseModel) -> None:
        self._bracket, self._model = bracket, model
        self._ends: tuple[Tensor, Tensor] | None = None
        self._search: DepthFirst | None = None

    def __call__(self, lower: Tensor, upper: Tensor, radius: float, budget: Budget) -> float:
        """A radius within which the node of these intervals has no point of interest."""
        if self._ends is None or not all(map(torch.equal, self._ends, (lower, upper))):
            self._ends = None  # whatever ends this halfway, no search is taken for that of another node
            node = restricted(self._model, ends_of_units(self._model, lower, upper))
            self._search = DepthFirst.of(self._bracket, node, radius, part=True)
            self._ends = lower, upper
        if self._search is None:
            return 0.0
        self._search.run(budget)
        return self._search.lower


def _program(bracket: Bracket, local: BoxModel, row: int) -> Program | None:
    model = bracket.target(local, row)
    return None if model is None else NodeProgram(bracket, model)
