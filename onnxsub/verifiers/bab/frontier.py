"""Best-first search on one frame: the open nodes, and one step of the search."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.verifiers.bab.bound import Bounded
from onnxsub.verifiers.bab.bounders import bounder_of
from onnxsub.verifiers.bab.branch import choose
from onnxsub.verifiers.bab.cuts.making import Cutter
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.narrow import narrowed
from onnxsub.verifiers.bab.nodes import Nodes, Waiting, pack, unpack
from onnxsub.verifiers.bab.order import ByDistance, Order
from onnxsub.verifiers.options import BabOptions

__all__ = ["Frontier", "Look"]

_WITH_CUTS = 4  # times as many steps for a child where there are cuts

Look = Callable[[Tensor], None]
"""Told the offsets `(B, n)` at which bounds are attained."""


class Frontier:
    """Nodes that together contain every point of interest of the frame, but for those that are proved away.

    Attributes:
        close: nodes whose key reaches it are done; it may shrink while the search goes on.
        visited: nodes bounded so far.
        work: the same in units of a child without cuts, by gradient steps: what meets cuts takes several times as many.
        spent: seconds of steps. started: whether the roots were bounded.
        cutter: what makes cuts for it.
        leaves: nodes with nothing left to split, whose bound is not exact.
        given_up: nodes that nothing more can be done about; they count for `lowers`.
        budget: of the whole question: when it ends, multipliers are not improved any more.
    """

    def __init__(
        self, frame: Frame, options: BabOptions, close: float, order: Order | None = None, budget: Budget | None = None
    ) -> None:
        self.frame = frame
        self.options = options
        self.order: Order = order or ByDistance()
        self._close = close
        self.budget = budget or Budget()
        self.bounder = self.order.bounder(frame, close, self.budget)
        self.visited = self._booked = 0
        self.work = 0.0
        self.cutter = Cutter()
        self.spent = 0.0
        self.started = False
        self.leaves: list[Waiting] = []
        self.given_up: list[Waiting] = []
        self.bytes = 0
        self._narrow = frame.open_units <= options.narrow
        self._at_once = frame.at_once(options)
        self._count = itertools.count()
        self._open: list[tuple[float, int, Waiting]] = []
        self._stack: list[Waiting] = []  # where nodes go once the memory is used up: depth-first needs next to none
        self._busy: list[Waiting] = []  # nodes that were taken out and are not replaced by anything yet

    @property
    def close(self) -> float:
        return self._close

    def shrink(self, close: float) -> None:
        """Takes a smaller `close`."""
        if close < self._close:
            self._close = close
            if not isinstance(self.order, ByDistance):
                self.bounder = self.order.bounder(self.frame, close, self.budget)

    @property
    def _radius(self) -> float:
        return self.order.radius(self.frame, self._close)

    def _bound(self, nodes: Nodes, steps: int) -> Bounded:
        found = self.bounder.bound(nodes, steps, self._radius, self.options.rate)
        return replace(found, point=self.order.point(found))

    def _left(self, found: Bounded, keys: Tensor) -> list[Waiting]:
        """The bounded nodes that are not done, at rest."""
        rows = torch.nonzero((found.nodes.radius < self._radius) & (keys < self._close))[:, 0]
        return pack(found.nodes.take(rows), keys[rows])

    def start(self) -> Tensor:
        """Bounds one root per target; returns the points at which the bounds are attained."""
        found = self._bound(self.bounder.roots(), self.options.root_steps)
        self.cutter.root = found
        self._visit(len(self.frame.targets), self._plain)
        nothing = torch.full_like(found.nodes.radius, self.order.nothing)
        self.put(self._left(found, self.order.keys(found, nothing, self._close)))
        self.started = True
        return found.point

    def begin(self, waiting: list[Waiting], root: Bounded | None, split: int, spent: float) -> None:
        """Starts with nodes of another tree (`divide.py`), which has bounded so many and taken so many seconds."""
        self.cutter.root = root
        self.visited = self._booked = split + len(self.frame.targets)
        self.spent = spent
        self.started = True
        self.put(waiting)

    def __len__(self) -> int:
        return self.open + len(self.leaves)

    @property
    def active(self) -> bool:
        """Whether there is a node that anything can be done about."""
        return not self.started or self.open > 0 or bool(self.leaves)

    @property
    def open(self) -> int:
        """Nodes that can be split."""
        return len(self._open) + len(self._stack)

    def all_open(self) -> Iterator[Waiting]:
        """The nodes that can be split."""
        return itertools.chain((w for _, _, w in self._open), self._stack)

    def lowers(self) -> dict[int, float]:
        """The smallest key that is left of each clause, by its own key, at most `close`; true also in the middle of a step."""
        found = dict.fromkeys(self.frame.keys, self.close if self.started else self.order.nothing)
        for w in itertools.chain(self.all_open(), self._busy, self.leaves, self.given_up):
            t = self.frame.keys[w.target]
            found[t] = min(found[t], w.key)
        return found

    @property
    def split(self) -> int:
        """Nodes that steps have bounded: all but the roots."""
        return self.visited - len(self.frame.targets)

    @property
    def _plain(self) -> int:
        """Gradient steps for a child without cuts."""
        return self.options.steps if self._narrow else (self.options.steps + 1) // 2

    @property
    def _steps(self) -> int:
        """Gradient steps for a child."""
        return _WITH_CUTS * self.options.steps if self.frame.cuts else self._plain

    def _visit(self, nodes: int, steps: int) -> None:
        self.visited += nodes
        self.work += nodes * steps / self._plain

    @property
    def first(self) -> Waiting | None:
        """The open node that comes next."""
        return self._stack[-1] if self._stack else self._open[0][2] if self._open else None

    def raise_target(self, row: int, key: float) -> None:
        """Notes that no node of a target can have a smaller key."""

        def raised(waiting: Iterable[Waiting]) -> list[Waiting]:
            nodes = (replace(w, key=max(w.key, key)) if w.target == row else w for w in waiting)
            return [w for w in nodes if w.key < self.close]

        # every list is replaced at once: an interruption in between must not lose a node
        heap = [(w.key, next(self._count), w) for w in raised(w for _, _, w in self._open)]
        heapq.heapify(heap)
        self._open = heap
        self._stack = raised(self._stack)
        self.leaves = raised(self.leaves)
        self.given_up = raised(self.given_up)
        self.bytes = sum(w.nbytes for w in self.all_open())

    @property
    def lower(self) -> float:
        """The smallest bound of what is left."""
        first = self._open[0][0] if self._open else math.inf
        others = (w.key for w in itertools.chain(self._stack, self.leaves))
        return min(first, min(others, default=math.inf), self.close)

    def pop(self, count: int) -> list[Waiting]:
        """The open nodes with the smallest bounds, or the latest ones where memory is used up; `done` ends their work.

        Nodes that need no work any more are dropped.
        """
        self.give_back()
        while self.open and len(self._busy) < count:
            w = self._stack[-1] if self._stack else self._open[0][2]
            if w.key < self.close:
                self._busy.append(w)  # before it is taken out: an interruption in between must not lose it
            if self._stack:
                self._stack.pop()
            else:
                heapq.heappop(self._open)
            self.bytes -= w.nbytes
        return self._busy

    def give_back(self) -> None:
        """Puts back what a step that was cut short had taken out."""
        self.put(self._busy)
        self._busy = []

    def done(self) -> None:
        """What was taken out is replaced by its children, or proved away."""
        self._busy = []

    def put(self, waiting: Iterable[Waiting]) -> None:
        """Adds nodes."""
        for w in waiting:
            if w.key >= self.close:
                continue
            self.bytes += w.nbytes
            if self.bytes > self.options.memory:
                self._stack.append(w)
            else:
                heapq.heappush(self._open, (w.key, next(self._count), w))

    def batch(self, waiting: list[Waiting]) -> Nodes:
        """Nodes at rest as a batch."""
        return unpack(waiting, self.bounder.shapes, self.frame.device, sum(self.bounder.cut_counts))

    def meet(self, frame: Frame, waiting: list[Waiting]) -> None:
        """Goes on with other cuts: a frame that has them, and the open nodes with multipliers for these."""
        self.frame, self.bounder, self._at_once = frame, bounder_of(frame, self.budget), frame.at_once(self.options)
        # all at once: an interruption in between must not lose a node
        heap = [(w.key, next(self._count), w) for w in waiting if w.key < self.close]
        heapq.heapify(heap)
        self._open, self._stack = heap, []
        self.bytes = sum(w.nbytes for w in self.all_open())

    def afresh(self, waiting: list[Waiting], steps: int) -> tuple[list[Waiting], Tensor]:
        """Open nodes bounded anew, and the points at which their bounds are attained."""
        found = self.bounder.bound(self.batch(waiting), steps, self.close, self.options.rate)
        self._visit(len(waiting), steps)
        return pack(found.nodes, found.nodes.radius), found.point

    def book(self) -> None:
        """Counts the nodes that were bounded since the last time, on the budget of the whole question."""
        self.budget.count(self.visited - self._booked)
        self._booked = self.visited

    def step(self, look: Look, budget: Budget | None = None) -> None:
        """Splits a batch of nodes, or gives them cuts.

        Args:
            budget: of what takes as long as many steps; default: that of the whole question.
        """
        if isinstance(self.order, ByDistance) and self.cutter.make(self, look, budget or self.budget):
            return
        began = self.budget.now
        try:
            self._step(look)
        finally:
            self.book()
            self.spent += self.budget.now - began

    def _step(self, look: Look) -> None:
        waiting = self.pop(self.bounder.width(self._at_once, self.open))
        if not waiting:
            return
        found = self._bound(self.batch(waiting), 0)
        splits = None if self.budget.over else choose(self.bounder, found, self._radius, self.options.look)
        if splits is None or self.budget.over:
            return  # costly lines: a step may take seconds; what was taken out goes back
        able = splits.layer >= 0
        self.leaves.extend(waiting[i] for i in torch.nonzero(~able)[:, 0].tolist())
        rows = torch.nonzero(able)[:, 0]
        parents = torch.tensor([waiting[i].key for i in rows.tolist()] * 2, dtype=torch.float64, device=self.frame.device)
        if len(rows) == 0:
            self.done()
            return
        children = splits.children(found.nodes, rows)
        if self._narrow:
            before = self.bounder.bound(children, 0, self._radius)
            children = narrowed(self.bounder, before.nodes, before.line)
            left = torch.nonzero(children.radius < self._radius)[:, 0]
            children, parents = children.take(left), parents[left]
            if len(children) == 0:
                self.done()
                return
        bounded = self._bound(children, self._steps)
        self._visit(len(children), self._steps)
        self.put(self._left(bounded, self.order.keys(bounded, parents, self._close)))
        self.done()
        look(bounded.point)

    def settle_leaf(self, leaf: Waiting, key: float) -> None:
        """Puts a leaf aside that is as well known as it can be: its key is at least `key`."""
        key = max(leaf.key, key)
        if key < self.close:
            self.given_up.append(replace(leaf, key=key))
        self.leaves = [w for w in self.leaves if w is not leaf]

    def raise_leaf(self, leaf: Waiting, key: float) -> None:
        """Keeps a leaf whose program was cut short, with what it proved."""
        self.leaves = [replace(w, key=max(w.key, key)) if w is leaf else w for w in self.leaves]
