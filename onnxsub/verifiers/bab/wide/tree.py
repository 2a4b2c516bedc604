"""A tree over the signs of few units: every node has multipliers of its own, with which its children begin.

After a few splits a node becomes the root of a tree of its own: what is decided there is folded away, so that squares no longer pay
for it, and the other units' intervals are narrowed (`group.py`). Such roots wait as intervals alone.
"""

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
from onnxsub.verifiers.bab.wide.bound import Evaluated, evaluate, kappa_of, point_of
from onnxsub.verifiers.bab.wide.decided import nearest_decided
from onnxsub.verifiers.bab.wide.group import Group
from onnxsub.verifiers.bab.wide.nodes import Node, Root, children
from onnxsub.verifiers.bab.wide.parts import Multipliers, Part, values_of
from onnxsub.verifiers.bab.wide.reached import reached
from onnxsub.verifiers.bab.wide.steps import Pace, improve, without_decided

__all__ = ["Effort", "WideTree"]

# steps of a root; between two lots its intervals are narrowed
_ROOT = Pace(300, 0.2, 10), Pace(100, 0.05, 10), Pace(100, 0.05, 10)
_LATER = Pace(150, 0.05, 10), Pace(60, 0.03, 10), Pace(60, 0.03, 10)  # the same for one that begins with its parent's multipliers
_AGAIN = 0.8  # of a root's open units: where so few are left after it, they are folded and it is bounded anew
_CHILD = Pace(100, 0.1)
_LEVELS = 3  # splits below a root
_AT_ONCE = 16
_FEWER = 0.67  # of the open units of a node that its program did not settle: where it is tried again below
_BISECTIONS = 40
_FLOORS = 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.998  # of the radius: where a root is tried
_SLACK = 1e-9  # of the radius: how much nearer a point must be to count


@dataclass(frozen=True)
class Effort:
    """What is done before a program is asked.

    Attributes:
        few: open units of a node that is a program's.
        root: steps of the first root; between two lots its intervals are narrowed. None: `_ROOT`.
    """

    few: int = 40
    root: tuple[Pace, ...] | None = None


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
        self, blocks: Blocks, row: int, close: float, found: Callable[[Array], float], program: Program | None = None,
        effort: Effort | None = None,
    ) -> None:  # fmt: skip
        self._effort = effort or Effort()
        self.close, self.nodes, self.ends = close, 0, (blocks.lower, blocks.upper)
        self._blocks, self._row, self._found = blocks, row, found
        self._true = Part.of(blocks, row)
        self._count = itertools.count()
        first = Root(blocks.lower, blocks.upper, 0.0, self._effort.few)
        self._roots: list[tuple[float, int, Root]] = [(-math.inf, next(self._count), first)]
        self._open: list[tuple[float, int, Node]] = []
        self._stuck, self._leaves, self._busy = list[Node](), list[Node](), list[Node]()
        self._group: Group | None = None
        self._complete = False  # whether the first root is
        self._program = program

    @property
    def lower(self) -> float:
        """The row is negative within this radius, as far as `close`."""
        nodes = itertools.chain((n for _, _, n in self._open), self._leaves, self._stuck, self._busy)
        waiting = itertools.chain((n.radius for n in nodes), (r.radius for _, _, r in self._roots))
        return min(self.close, min(waiting, default=math.inf))

    @property
    def settled(self) -> bool:
        """Whether nothing is left within `close`."""
        return self.lower >= self.close

    @property
    def finished(self) -> bool:
        """Whether nothing is left to split or to search."""
        return not self._open and not self._busy and not self._leaves and not self._roots

    def run(self, budget: Budget, most: float, done: Callable[[], bool] = lambda: False) -> None:
        """Until nothing is left that can be split, the budget ends, so many nodes were bounded or the caller has enough."""
        while not self.finished and not budget.over and self.nodes < most and not done():
            if self._leaves:
                self._leaf(budget)
            elif self._open or self._busy:  # all of the group at hand, before another one takes its place
                self._step(budget)
            else:
                self._next_root(budget)

    def _step(self, budget: Budget) -> None:
        # whatever ends this, a node is in one of the lists: it joins the next one before it leaves the last one
        while self._open and len(self._busy) < _AT_ONCE:
            self._busy.append(self._open[0][2])
            heapq.heappop(self._open)
        self._busy = [node for node in self._busy if node.radius < self.close]
        if not self._busy:
            return
        below = self._bounded([c for node in self._busy for c in children(node)], budget)
        for child in below:
            self._put(child)
        self._busy = []
        budget.count(len(below))
        waiting = len(self._open) + len(self._roots)
        budget.tell(f"{waiting} nodes open, {self.nodes} bounded, {self.lower:.6g} of {self.close:.6g}")

    def _next_root(self, budget: Budget) -> None:
        """Far more steps than a child has; the root waits until all is done, so that what ends this loses nothing."""
        node: Node | None = None
        before = math.inf
        while self._roots[0][2].radius < self.close and (node is None or (before and self._again(node, before))):
            group = Group.of(self._blocks, self._row, self._roots[0][2].lower, self._roots[0][2].upper)
            before = group.open
            node = self._rooted(group, budget)
            if budget.over:
                return
        entry = self._roots[0]
        if not self._complete:
            self._complete, self.ends = True, (entry[2].lower, entry[2].upper)
        if node is not None and node.radius < self.close:
            self._put(node)
        self._roots.remove(entry)
        heapq.heapify(self._roots)

    def _again(self, node: Node, before: float) -> bool:
        """Whether a root is worth to be bounded once more: so little of it is left, and it is too much for its program."""
        return node.open <= _AGAIN * before and (self._program is None or node.open > node.few)

    def _rooted(self, group: Group, budget: Budget) -> Node:
        """The next root with multipliers of its own, after each lot of steps also what it proves and leaves of its intervals."""
        value, number, root = self._roots[0]
        if not group.open:
            return self._decided(group, root, budget)
        given, ends = group.first(self.close, root.given), dict[float, Multipliers]()
        lower, upper = group.lower[None], group.upper[None]
        node = Node(group.lower, group.upper, given, root.radius, -1, root.few)
        self.nodes += 1
        budget.count(1)
        for lot, pace in enumerate((self._effort.root or _ROOT) if root.given is None else _LATER):
            if lot:
                lower, upper = group.narrowed(given, lower, upper, self.close, budget, ends)
            budget.tell(f"multipliers and intervals, {self.lower:.6g} of {self.close:.6g}")
            part = group.sampled if lot else group.rough
            given = improve(part.within(self.close), given, (lower, upper), pace, budget=budget)
            self._group = group = group.with_squares(given, self.close)
            (node,) = self._judged([node], given, lower, upper, _FLOORS)
            lower, upper = node.lower[None], node.upper[None]
            ends_of = node.lower * group.size, node.upper * group.size
            root = Root(*ends_of, node.radius, root.few, root.value, group.carried(given, node.lower))
            self._roots[0] = value, number, root
            if node.radius >= self.close or budget.over:
                break
        return node

    def _decided(self, group: Group, root: Root, budget: Budget) -> Node:
        """A root without open units."""
        self.nodes += 1
        budget.count(1)
        radius, point = nearest_decided(group, self.close, budget)
        if point is not None:
            self._nearest(point)
        self._group = group
        return Node(group.lower, group.upper, group.first(self.close), max(root.radius, radius), -1, root.few)

    def _put(self, node: Node) -> None:
        if node.radius >= self.close:
            return
        if self._program is not None and (node.split < 0 or node.open <= node.few):
            self._leaves.append(node)
        else:
            self._split_later(node)

    def _split_later(self, node: Node) -> None:
        if node.split < 0 and not node.level:
            self._stuck.append(node)
        elif node.split >= 0 and node.level < _LEVELS:
            heapq.heappush(self._open, (-node.value, next(self._count), node))
        else:
            assert self._group is not None
            size, given = self._group.size, self._group.carried(node.given, node.lower)
            root = Root(node.lower * size, node.upper * size, node.radius, node.few, node.value, given)
            heapq.heappush(self._roots, (-node.value, next(self._count), root))

    def _leaf(self, budget: Budget) -> None:
        """The program of a node; it stays where it was until it is known what becomes of it."""
        node = self._leaves[-1]
        assert self._program is not None
        assert self._group is not None
        key, close = self._program(node.lower * self._group.size, node.upper * self._group.size, budget)
        self.close = min(self.close, close)
        node = replace(node, radius=max(node.radius, key), few=int(_FEWER * node.open))
        if node.radius < self.close and budget.over:
            self._leaves[-1] = node
            return
        if node.radius < self.close:
            self._split_later(node)
        self._leaves.pop()

    def _bounded(self, nodes: list[Node], budget: Budget) -> list[Node]:
        """The nodes with better multipliers, what these prove, and the units to split next."""
        assert self._group is not None
        given = Multipliers.joined([n.given for n in nodes])
        lower, upper = torch.stack([n.lower for n in nodes]), torch.stack([n.upper for n in nodes])
        given = without_decided(given, lower, upper)
        part = self._group.sampled.within(self.close)
        given = improve(part, given, (lower, upper), _CHILD, self._group.few, budget=budget)
        self.nodes += len(nodes)
        return self._judged(nodes, given, lower, upper, (0.5,))

    def _judged(
        self, nodes: list[Node], given: Multipliers, lower: Tensor, upper: Tensor, floors: tuple[float, ...],
    ) -> list[Node]:  # fmt: skip
        """What multipliers prove of nodes: the radius at which their bounds are negative, `close` or one of the floors.

        Args:
            floors: shares of the way from the smallest radius of all to `close`, tried from the first one on.
        """
        group = self._group
        assert group is not None
        assert group.squares is not None
        whole = group.whole.within(self.close)
        kappa = kappa_of(whole, given, group.squares)
        now = evaluate(whole, given, lower, upper, group.squares, held=kappa)
        lower, upper = reached(now, lower, upper)
        # an interval without a point: an empty node
        value = torch.where((lower > upper).any(1), torch.full_like(now.value, -math.inf), now.proved)
        splits = self._look(now, lower, upper)
        radii = [math.inf if v < 0 else node.radius for v, node in zip(value.tolist(), nodes, strict=True)]
        least = min(n.radius for n in nodes)
        for share in floors:
            floor = least + share * (self.close - least)
            # the bound falls with the radius at about the rate of the line w . d
            fall = (self.close - floor) * group.rate
            rows = [i for i, v in enumerate(value.tolist()) if radii[i] < floor and v < fall]
            if rows:
                index = torch.tensor(rows)
                few, l, u = given.take(index), lower[index], upper[index]
                there = evaluate(group.whole.within(floor), few, l, u, group.squares, held=kappa[index])
                for i, v in zip(rows, there.proved.tolist(), strict=True):
                    radii[i] = floor if v < 0 else radii[i]
        given = given.without_price
        return [
            Node(lower[i], upper[i], given.take(torch.tensor([i])), radii[i], splits[i], nodes[i].few, nodes[i].level, v)
            for i, v in enumerate(value.tolist())
        ]

    def _look(self, now: Evaluated, lower: Tensor, upper: Tensor) -> list[int]:
        """The units that the bounds lose most by, -1: none is open; points of interest on the way are told."""
        group = self._group
        assert group is not None
        assert group.squares is not None
        z, values = values_of(group.whole, now.rows, now.row, 1.0)
        for i in torch.nonzero(values >= 0)[:, 0].tolist():
            self._nearest(point_of(group.whole.within(self.close), now.nu[i : i + 1], group.squares.lam)[1][0])
        gaps = torch.where((lower < 0) & (upper > 0), now.gaps(z), torch.full_like(z, -math.inf))
        best = gaps.max(1)
        return torch.where(best.values > -math.inf, best.indices, -1).tolist()

    def _nearest(self, point: Tensor) -> None:
        """The nearest point of interest on the way from the anchor."""
        part = self._true
        rows, row = (point @ part.A.T)[None], (point @ part.a)[None]

        def is_there(share: float) -> bool:
            return float(values_of(part, rows, row, share)[1]) >= 0

        low, high = 0.0, 1.0
        if not is_there(high):  # beyond the part of the tree that its node is
            return
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if is_there(middle) else (middle, high)
        if high * float(point.abs().amax()) < self.close * (1 - _SLACK):
            self.close = min(self.close, self._found((high * point).numpy()))
