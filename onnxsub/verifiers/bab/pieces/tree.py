r"""A tree over what is the largest element of each maximum, for targets whose row is one over maxima (`maxima.py`).

A node leaves a choice of elements to every unit that the row may rise with. Its bound (`bound.py`) begins with its parent's
multipliers; its children are the elements of the unit that the bound holds for most undecided. No row says that an element is the
largest where it is chosen: a smaller one is no better. Points at which bounds are attained say which elements count there, and a
linear program finds the nearest point with these (`region.py`).
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.pieces.bound import Bounded, Choices, Multipliers, Pace, Sums, improve
from onnxsub.verifiers.bab.pieces.groups import Groups
from onnxsub.verifiers.bab.pieces.levels import Scaled
from onnxsub.verifiers.bab.pieces.maxima import Maxima
from onnxsub.verifiers.bab.pieces.region import Nearest, Region
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.proof import excluded

__all__ = ["MaximaTree"]

_ROOT = Pace(300, 0.05, 0.02, 2e-3)
_CHILD = Pace(100, 0.03, 0.05, 2e-4)
_AT_ONCE = 16
_LARGEST = 2**23  # numbers that the evaluation of one node may go over
_FEW = 64  # binaries up to which linear programs end sooner where units read others
_PADDED = 2**26  # the same before it is known which inputs count
_SHRUNK = 0.985  # share of the ball's radius below which it is better bounded anew
_FLOORS = 0.995, 0.99, 0.98, 0.96, 0.92, 0.85, 0.7, 0.5  # of the closing radius: where open nodes are tried
_STEPS = 4  # programs from one point to a nearer one
_BEYOND = 0.25, 0.45, 1.0, 4.0  # of the tolerance: how far beyond the nearest point others are tried
_ROWS = 64  # nodes evaluated together


@dataclass(frozen=True, eq=False)
class _Node:
    """A node that waits.

    Attributes:
        chosen: an element per rising unit, -1 where it is open.
        choices, given: of one node.
        value: its bound. split: the rising unit that comes next, by its place among these.
    """

    chosen: tuple[int, ...]
    choices: Choices
    given: Multipliers
    value: float
    split: int


class _Spread:
    """How much of a bound hangs on each rising unit being undecided."""

    def __init__(self, row: Maxima, groups: Groups, scaled: Scaled) -> None:
        group = {q: g for g, members in enumerate(groups.members) for q in members}
        self._units = torch.tensor(row.rising, dtype=torch.int64)
        self._group = torch.tensor([group[q] for q in row.rising], dtype=torch.int64)
        most = max((len(row.units[q].b) for q in row.rising), default=0)
        self._is = torch.zeros((len(row.rising), most, groups.most))
        self._apart = torch.zeros((len(row.rising), most, most))
        for c, q in enumerate(row.rising):
            w = scaled.unit(q)[0]
            self._apart[c, : len(w), : len(w)] = torch.from_numpy(np.array([np.abs(w - own).sum(axis=1) for own in w])).float()
            for k in range(len(w)):
                self._is[c, k] = torch.from_numpy(groups.allowed(q, k)[group[q]]).float()

    def widest(self, found: Bounded, is_open: Tensor) -> list[int]:
        """The rising unit to split per node, by its place among these; -1: none is open. `is_open` `(N, rising)`."""
        share = torch.einsum("nck,cjk->ncj", found.z[:, self._group], self._is)
        spread = torch.einsum("nci,cij,ncj->nc", share, self._apart, share) * found.v[:, self._units].clamp(min=0.0)
        best = spread.masked_fill(~is_open, -1.0).max(1)
        return torch.where(best.values >= 0, best.indices, -1).tolist()


class MaximaTree:
    """The search for one target.

    Attributes:
        close: the radius within which points of interest are looked for; it shrinks with every point that is found.
        nodes: bounded so far.
    """

    @staticmethod
    def of(bracket: Bracket, model: ClauseModel, radius: float) -> MaximaTree | None:
        """The search within `radius`; None where the target's row is no such one, or linear programs are the better choice."""
        if not model.local.network.windows or bracket.session.bab.dive == 0:
            return None
        with bracket.budget.stage("build"):
            row = Maxima.of(model)
            if row is None or (row.depths.any() and model.binaries <= _FEW):
                return None
            groups = Groups.of(row, radius)
            if len(groups.members) * groups.largest * groups.most * len(row.a) > _PADDED:
                return None
            sums = Sums(row, groups, radius, torch.float32)
            return MaximaTree(bracket, model, row, groups, radius) if sums.numbers() <= _LARGEST else None

    def __init__(self, bracket: Bracket, model: ClauseModel, row: Maxima, groups: Groups, radius: float) -> None:
        self._bracket, self._model, self._row, self._groups = bracket, model, row, groups
        self._radius = self.close = model.local.box.radius
        self._region = Region(row, bracket.budget)
        self._spread = _Spread(row, groups, Scaled(row, radius))
        self._parts: dict[tuple[int, int], Tensor] = {}
        self._count = itertools.count()
        self._open: list[tuple[float, int, _Node]] = []
        self._busy: list[_Node] = []
        self._stuck: list[float] = []
        self._tried: set[tuple[int, ...]] = set()
        self._built, self._started = math.inf, False
        self.nodes = self._counted = 0
        self._shrink()

    @property
    def shrunk(self) -> bool:
        """Whether the ball has become so much smaller that it is better bounded anew."""
        return self.close < _SHRUNK * self._radius

    def run(self, budget: Budget) -> bool:
        """Until the budget ends, a near enough point is found or nothing is left; whether the target needs no more work.

        What is proved goes to the bracket, also where an interruption ends it.
        """
        try:
            if not self._started:
                self._begin(budget)
            while self._open and self._going(budget):
                self._shrink()
                while self._open and len(self._busy) < _AT_ONCE:
                    self._busy.append(heapq.heappop(self._open)[2])
                self._bounded([child for node in self._busy for child in self._children(node)], budget)
                self._busy = []
                self._book()
        finally:
            for node in self._busy if self._started else ():
                self._put(node)
            self._busy = []
            self._book()
            self._bracket.claims.prove(self._model.key, min(self._lower(), self._radius))
        return self._started and not self._open and not self._stuck

    def _book(self) -> None:
        self._bracket.budget.count(self.nodes - self._counted)
        self._counted = self.nodes

    def _going(self, budget: Budget) -> bool:
        bracket = self._bracket
        if budget.over or not bracket.running or self.shrunk:
            return False
        full = len(self._open) * self._single.numbers() // max(self._groups.most, 1) * 4 > bracket.session.bab.memory
        return not full and bracket.upper > bracket.enough

    def _shrink(self) -> None:
        """The sums on the ball that is left."""
        bracket = self._bracket
        self.close = min(self.close, bracket.upper - bracket.gap / 2)
        self._stuck = [r for r in self._stuck if r < self.close]
        if self.close < self._built:
            self._built = self.close
            self._single, self._double = (Sums(self._row, self._groups, self.close, t) for t in (torch.float32, torch.float64))

    def _begin(self, budget: Budget) -> None:
        best = self._bracket.best
        if best is not None:
            self._step_nearer(np.asarray(best.x, dtype=np.float64).reshape(-1) - self._bracket.x0.reshape(-1))
            self._shrink()
        if not self._row.rising:
            self._started = True
            self._settle(())
            return
        given, choices = self._single.begin()
        root = _Node((-1,) * len(self._row.rising), choices, given, math.inf, -1)
        self._busy = [root]
        self._improved([root], _ROOT, budget)
        self._busy, self._started = [], True

    def _children(self, node: _Node) -> list[_Node]:
        unit = self._row.rising[node.split]
        found = []
        for k in range(len(self._row.units[unit].b)):
            groups, elements = node.choices.groups & self._part(unit, k), node.choices.elements.clone()
            if unit in self._single.places:
                places = self._single.places[unit]
                elements[:, places] = torch.arange(places.stop - places.start) == k
            if bool(groups.any(2).all()):
                chosen = (*node.chosen[: node.split], k, *node.chosen[node.split + 1 :])
                found.append(_Node(chosen, Choices(groups, elements), node.given, node.value, -1))
        return found

    def _part(self, unit: int, element: int) -> Tensor:
        if (unit, element) not in self._parts:
            self._parts[unit, element] = torch.from_numpy(self._groups.allowed(unit, element))
        return self._parts[unit, element]

    def _bounded(self, nodes: list[_Node], budget: Budget) -> None:
        """Nodes without a choice are settled by programs, all others by multipliers."""
        for node in nodes:
            if -1 not in node.chosen:
                self._settle(node.chosen)
        left = [n for n in nodes if -1 in n.chosen]
        if left:
            self._improved(left, _CHILD, budget)
        self._bracket.budget.tell(f"{len(self._open)} nodes open, {self.nodes} bounded, radius {self.close:.6g}")

    def _settle(self, chosen: tuple[int, ...]) -> None:
        self.nodes += 1
        found = self._nearest(chosen)
        if found.radius >= self.close:
            return
        self._stuck.append(found.radius)  # it goes where a point has come as near
        self._shrink()

    def _improved(self, nodes: list[_Node], pace: Pace, budget: Budget) -> None:
        """Bounds nodes, and puts those that stay open back with what they are split on."""
        choices = Choices.joined([n.choices for n in nodes])
        given, found = improve(self._single, Multipliers.joined([n.given for n in nodes]), choices, pace, budget)
        self.nodes += len(nodes)
        lots = torch.split(torch.arange(len(nodes)), _ROWS)
        values = torch.cat([self._double.evaluate(given.take(r), choices.take(r)) for r in lots]).numpy()
        left = np.flatnonzero(~excluded(values))
        if len(left) == 0:
            return
        rows = torch.from_numpy(left)
        self._look(found, rows)
        is_open = torch.tensor([[k < 0 for k in nodes[i].chosen] for i in left], dtype=torch.bool)
        splits = self._spread.widest(found.take(rows), is_open.reshape(len(left), -1))
        for i, split in zip(left.tolist(), splits, strict=True):
            node = nodes[i]
            if split < 0:
                self._settle(node.chosen)
            else:
                self._put(_Node(node.chosen, node.choices, given.take(torch.tensor([i])), float(values[i]), split))

    def _put(self, node: _Node) -> None:
        heapq.heappush(self._open, (-node.value, next(self._count), node))

    def _look(self, found: Bounded, rows: Tensor) -> None:
        """Steps from the best of the points at which the bounds are attained to a nearer one."""
        points = self._single.offsets(found.x[rows])
        self._step_nearer(points[int(self._row.values(points).argmax())])

    def _step_nearer(self, d: Array) -> None:
        """The nearest point with the elements that are largest at a point, and again from there."""
        for _ in range(_STEPS):
            chosen = self._row.winners(d)
            if chosen in self._tried or self._bracket.budget.over:
                return
            self._tried.add(chosen)
            found = self._nearest(chosen)
            if found.point is None:
                return
            d = found.point

    def _nearest(self, chosen: tuple[int, ...]) -> Nearest:
        """What programs say, the point tried: there, and farther out where the row is more than a hair above zero."""
        bracket, region = self._bracket, self._region
        found = region.nearest(chosen, min(self.close, self._radius))
        d = found.point
        for share in _BEYOND:
            if d is None or bracket.upper <= found.radius + bracket.gap / 2:
                break
            self._accept(d)
            d = region.farther(chosen, min(self.close, found.radius + share * bracket.gap))
        self.close = min(self.close, bracket.upper - bracket.gap / 2)
        return found

    def _accept(self, d: Array) -> None:
        x0 = self._bracket.x0
        self._bracket.accept(x0 + d.reshape(x0.shape))

    def _lower(self) -> float:
        """No point of interest is nearer than this, as far as `close`."""
        self.close = min(self.close, self._bracket.upper - self._bracket.gap / 2)
        least = min([self.close, *self._stuck])
        if not self._started:
            return 0.0
        nodes = [node for _, _, node in sorted(self._open, key=lambda n: n[:2])]
        if not nodes:
            return least
        for share in _FLOORS:
            sums = Sums(self._row, self._groups, share * self.close, torch.float64)
            if all(self._holds(sums, nodes[i : i + _ROWS]) for i in range(0, len(nodes), _ROWS)):
                return min(least, share * self.close)
        return 0.0

    @staticmethod
    def _holds(sums: Sums, nodes: list[_Node]) -> bool:
        values = sums.evaluate(Multipliers.joined([n.given for n in nodes]), Choices.joined([n.choices for n in nodes]))
        return bool(excluded(values.numpy()).all())
