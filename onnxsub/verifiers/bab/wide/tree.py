"""A tree over the signs of few units: every node has multipliers of its own, with which its children begin."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.wide.blocks import Blocks
from onnxsub.verifiers.bab.wide.bound import Evaluated, Pace, evaluate, first_multipliers, improve, kappa_of, point_of
from onnxsub.verifiers.bab.wide.parts import TINY, Multipliers, Part, spread, squares_for
from onnxsub.verifiers.bab.wide.steps import improve_closed, without_decided

__all__ = ["WideTree"]

_SAMPLE = 16384  # inputs that stand for all while multipliers are improved
# steps of a root; its squares serve ten of them, and all steps of its children
_ROOT = Pace(100, 0.1, 10), Pace(100, 0.05, 10), Pace(100, 0.05, 10), Pace(100, 0.03, 10), Pace(60, 0.02, 10)
_SPREAD = 0.5, 0.0, -0.5, -1.0  # of log(least lambda): tried side by side in each of these rounds
_BEGIN, _GO_ON = (2.0, 0.0), (0.4, 0.0)  # the same among few inputs, in the first round and later
_CHILD = Pace(40, 0.02, every=3)
_END = Pace(40, 0.03)  # for an end of a unit's interval
_END_AGAIN = Pace(30, 0.07, every=3)  # the same among few inputs, where every round begins with the multipliers of the one before
_OF_ROOT = 2  # `Pace.every` of a root
_AT_ONCE = 16
_FEW = 40  # open units of a node that is a program's
_FEWER = 0.67  # of these: where it is tried again below a node that it did not settle
_ROWS = 48  # units at a time
_BISECTIONS = 40
_FLOORS = 0.5, 0.8, 0.9, 0.95, 0.98, 0.99  # of the radius: where a root is tried
_SLACK = 1e-9  # of the radius: how much nearer a point must be to count


@dataclass(frozen=True, eq=False)
class _Node:
    lower: Tensor
    upper: Tensor
    given: Multipliers
    radius: float  # proved: the row is negative within it
    split: int  # the unit that comes next
    value: float = math.inf
    few: int = _FEW  # open units at which its program is asked

    @property
    def open(self) -> int:
        """How many units are."""
        return int(((self.lower < 0) & (self.upper > 0)).sum())


Program = Callable[[Tensor, Tensor, Budget], tuple[float, float]]
"""Searches what intervals of the units leave; returns a proved distance, infinite where nothing is left, and the new `close`."""


class WideTree:
    """The search for one row within a radius.

    Attributes:
        close: no point of interest farther out counts; it falls with every point that is found.
        nodes: bounded so far. ends: of the units where the row is not negative within `close`, once the root is complete.

    Args:
        found: told of points `(n,)` (offsets) at which the row is not negative, nearer than `close`; returns the new `close`.
        program: asked about nodes with few open units; None: they are split like others.
    """

    def __init__(
        self, blocks: Blocks, row: int, close: float, found: Callable[[Array], float], program: Program | None = None
    ) -> None:
        self.close, self.nodes, self.ends = close, 0, (blocks.lower, blocks.upper)
        self._blocks, self._found = blocks, found
        self._whole = Part.of(blocks, row)
        self._sampled = self._whole.sample(spread(self._whole, _SAMPLE))
        self._count = itertools.count()
        self._open: list[tuple[float, int, _Node]] = []
        self._stuck, self._leaves, self._busy = list[_Node](), list[_Node](), list[_Node]()
        self._program = program
        self._started = False
        self._at_ends: dict[float, Multipliers] = {}  # by sign, of the last round
        self._closed = len(self._whole.a) < _SAMPLE  # `steps.py`: among few inputs squares cost more than the rest of a step

    @property
    def lower(self) -> float:
        """The row is negative within this radius, as far as `close`."""
        if not self._started:
            return 0.0
        waiting = itertools.chain((n for _, _, n in self._open), self._leaves, self._stuck, self._busy)
        return min(self.close, min((n.radius for n in waiting), default=math.inf))

    @property
    def settled(self) -> bool:
        """Whether nothing is left within `close`."""
        return self._started and self.lower >= self.close

    @property
    def finished(self) -> bool:
        """Whether nothing is left to split or to search."""
        return self._started and not self._open and not self._leaves

    def run(self, budget: Budget, most: float) -> None:
        """Until nothing is left that can be split, the budget ends or so many nodes were bounded."""
        if not self._started:
            self._begin(budget)
        while (self._open or self._leaves) and not budget.over and self.nodes < most:
            if self._leaves:
                self._leaf(budget)
                continue
            while self._open and len(self._busy) < _AT_ONCE:
                node = heapq.heappop(self._open)[2]
                if node.radius < self.close:
                    self._busy.append(node)
            if not self._busy:
                continue
            children = self._bounded([c for node in self._busy for c in _children(node)], budget)
            self._busy = []
            for child in children:
                self._put(child)
            budget.count(len(children))
            budget.tell(f"{len(self._open)} nodes open, {self.nodes} bounded, {self.lower:.6g} of {self.close:.6g}")

    def _begin(self, budget: Budget) -> None:
        """The root, with far more steps than a child, and the squares that all nodes share; each round keeps what it proves."""
        b, part, whole = self._blocks, self._sampled.within(self.close), self._whole.within(self.close)
        given = first_multipliers(whole, b.lower, b.upper)
        lower, upper = b.lower[None], b.upper[None]
        self._busy, self._started = [_Node(b.lower, b.upper, given, 0.0, -1)], True
        self.nodes += 1
        budget.count(1)
        for number, pace in enumerate(_ROOT):
            if number:
                lower, upper = self._narrowed(part, given, lower, upper, budget)
            budget.tell(f"multipliers and intervals, {self.lower:.6g} of {self.close:.6g}")
            tried = (_GO_ON if number else _BEGIN) if self._closed else _SPREAD
            lower, upper = (t[:1].expand(len(tried), -1) for t in (lower, upper))
            several = replace(given.take(torch.zeros(len(tried)).long()), least=given.least + torch.tensor(tried).double())
            if self._closed:
                several = improve_closed(part, several, (lower, upper), replace(pace, every=_OF_ROOT), budget=budget)
            else:
                several = improve(part, several, (lower, upper), pace, budget=budget)
            found = evaluate(part, several.to(torch.float32), lower.float(), upper.float())
            given = several.take(found.value.argmin()[None])
            self._squares, self._few = squares_for(whole, given), squares_for(part, given.to(torch.float32))
            self._rate = float((whole.a + (given.nu * given.unit) @ whole.A).abs().sum())
            self._busy = self._judged(self._busy, given, lower[:1], upper[:1], _FLOORS)
            if self._busy[0].radius >= self.close:
                break
            budget.check()
        (root,), self._busy = self._busy, []
        self.ends = root.lower, root.upper
        self._put(root)

    def _narrowed(self, part: Part, given: Multipliers, lower: Tensor, upper: Tensor, budget: Budget) -> tuple[Tensor, Tensor]:
        """Intervals of the units where the row is not negative within `close`; all nodes alike.

        `row + t s z_j <= V` gives `s z_j <= V / t` there, for every t > 0 and both signs s.
        """
        whole = self._whole.within(self.close)
        squares, few = self._squares, self._few  # of these multipliers
        now = float(evaluate(whole, given, lower[:1], upper[:1], squares).value)
        w = whole.a + (given.nu * given.unit) @ whole.A
        half = (whole.high - whole.low) / 2
        scale = math.sqrt(2 * max(now, TINY) * float(w.abs() @ half))
        low, high = lower[0].clone(), upper[0].clone()
        same = given.take(torch.zeros(len(low), dtype=torch.long))
        open_ = torch.nonzero((low < 0) & (high > 0))[:, 0]
        for units in torch.split(open_, _ROWS):
            step = scale / (whole.A[units].abs() @ half + (upper - lower)[0, units] / 20)
            count = torch.arange(len(units))
            for sign, ends in ((1.0, high), (-1.0, low)):
                more = torch.zeros((len(units), len(low)), dtype=torch.float64)
                more[count, units] = sign * step
                l, u = lower[:1].expand(len(units), -1), upper[:1].expand(len(units), -1)
                budget.check()
                if self._closed:
                    before = self._at_ends.get(sign, same)
                    several = improve_closed(part, before.take(units), (l, u), _END_AGAIN, few, more=more, budget=budget)
                    self._at_ends[sign] = before.placed(units, several)
                else:
                    several = improve(part, same.take(units), (l, u), _END, squares=few, more=more, budget=budget)
                reached = evaluate(whole, several, l, u, squares, more).proved / step
                ends[units] = torch.fmin(high[units], reached) if sign > 0 else torch.fmax(low[units], -reached)
        return low[None], high[None]

    def _put(self, node: _Node) -> None:
        if node.radius >= self.close:
            return
        if self._program is not None and (node.split < 0 or node.open <= node.few):
            self._leaves.append(node)
        elif node.split < 0:
            self._stuck.append(node)
        else:
            heapq.heappush(self._open, (-node.value, next(self._count), node))

    def _leaf(self, budget: Budget) -> None:
        """The program of a node; it stays where it was until it is known what becomes of it."""
        node = self._leaves[-1]
        assert self._program is not None
        key, close = self._program(node.lower, node.upper, budget)
        self.close = min(self.close, close)
        node = replace(node, radius=max(node.radius, key), few=int(_FEWER * node.open))
        if node.radius < self.close and budget.over:
            self._leaves[-1] = node
            return
        if node.radius < self.close:
            if node.split < 0:
                self._stuck.append(node)
            else:
                heapq.heappush(self._open, (-node.value, next(self._count), node))
        self._leaves.pop()

    def _bounded(self, nodes: list[_Node], budget: Budget) -> list[_Node]:
        """The nodes with better multipliers, what these prove, and the units to split next."""
        given = Multipliers.joined([n.given for n in nodes])
        lower, upper = torch.stack([n.lower for n in nodes]), torch.stack([n.upper for n in nodes])
        part = self._sampled.within(self.close)
        if self._closed:
            given = without_decided(given, lower, upper)
            given = improve_closed(part, given, (lower, upper), _CHILD, self._few, budget=budget)
        else:
            given = improve(part, given, (lower, upper), _CHILD, squares=self._few, budget=budget)
        self.nodes += len(nodes)
        return self._judged(nodes, given, lower, upper, (0.5,))

    def _judged(
        self, nodes: list[_Node], given: Multipliers, lower: Tensor, upper: Tensor, floors: tuple[float, ...],
    ) -> list[_Node]:  # fmt: skip
        """What multipliers prove of nodes: the radius at which their bounds are negative, `close` or one of the floors.

        Args:
            floors: shares of the way from the smallest radius of all to `close`, tried from the first one on.
        """
        whole = self._whole.within(self.close)
        kappa = kappa_of(whole, given, self._squares)
        now = evaluate(whole, given, lower, upper, self._squares, held=kappa)
        # an interval without a point: an empty node
        value = torch.where((lower > upper).any(1), torch.full_like(now.value, -math.inf), now.proved)
        splits = self._look(whole, now, lower, upper)
        radii = [math.inf if v < 0 else node.radius for v, node in zip(value.tolist(), nodes, strict=True)]
        for share in floors:
            floor = self._floor(share)
            # the bound falls with the radius at about the rate of the line w . d
            fall = (self.close - floor) * self._rate
            rows = [i for i, v in enumerate(value.tolist()) if radii[i] < floor and v < fall]
            if rows:
                index = torch.tensor(rows)
                few, l, u = given.take(index), lower[index], upper[index]
                there = evaluate(self._whole.within(floor), few, l, u, self._squares, held=kappa[index])
                for i, v in zip(rows, there.proved.tolist(), strict=True):
                    radii[i] = floor if v < 0 else radii[i]
        return [
            _Node(lower[i], upper[i], given.take(torch.tensor([i])), radii[i], splits[i], v, nodes[i].few)
            for i, v in enumerate(value.tolist())
        ]

    def _floor(self, share: float) -> float:
        lower = min((n.radius for n in self._busy), default=0.0)
        return lower + share * (self.close - lower)

    def _look(self, whole: Part, now: Evaluated, lower: Tensor, upper: Tensor) -> list[int]:
        """The units that the bounds lose most by, -1: none is open; points of interest on the way are told."""
        z, values = self._run(now.rows, now.row, 1.0)
        for i in torch.nonzero(values >= 0)[:, 0].tolist():
            point = point_of(whole, now.nu[i : i + 1], self._squares.lam)[1]
            self._nearest(now.rows[i : i + 1], now.row[i : i + 1], point[0])
        gaps = torch.where((lower < 0) & (upper > 0), now.gaps(z), torch.full_like(z, -math.inf))
        best = gaps.max(1)
        return torch.where(best.values > -math.inf, best.indices, -1).tolist()

    def _run(self, rows: Tensor, row: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Pre-activations and the row at a share of points, from what their rows are."""
        part = self._whole
        h = torch.zeros_like(rows)
        z = share * rows + part.b
        for _ in range(len(part.b)):  # at most as often as there are layers
            if torch.equal(z.clamp(min=0), h):
                break
            h = z.clamp(min=0)
            z = share * rows + h @ part.B.T + part.b
        return z, share * row + h @ part.c + part.k

    def _nearest(self, rows: Tensor, row: Tensor, point: Tensor) -> None:
        """The nearest point of interest on the way from the anchor."""
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if float(self._run(rows, row, middle)[1]) >= 0 else (middle, high)
        if high * float(point.abs().amax()) < self.close * (1 - _SLACK):
            self.close = min(self.close, self._found((high * point).numpy()))


def _children(node: _Node) -> list[_Node]:
    lower, upper = node.lower.clone(), node.upper.clone()
    lower[node.split] = upper[node.split] = 0.0
    return [replace(node, lower=lower, split=-1), replace(node, upper=upper, split=-1)]
