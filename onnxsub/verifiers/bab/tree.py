"""Best-first search on one frame: the open nodes, and one step of the search."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.branch import choose
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.narrow import narrowed
from onnxsub.verifiers.bab.nodes import Nodes, Waiting, pack, unpack
from onnxsub.verifiers.bab.options import BabOptions

__all__ = ["Tree"]

Look = Callable[[Tensor], None]
"""Told the offsets `(B, n)` at which bounds are attained."""


class Tree:
    """Nodes that together contain every point of interest of the frame, but for those that are proved away.

    Attributes:
        close: nodes whose distance bound reaches this radius are done; it may shrink while the search goes on.
        visited: nodes bounded so far.
        leaves: nodes with nothing left to split, whose bound is not exact.
        given_up: nodes that nothing more can be done about; they count for `lowers`.
    """

    def __init__(self, frame: Frame, options: BabOptions, close: float) -> None:
        self.frame = frame
        self.options = options
        self.bounder = Bounder(frame)
        self.close = close
        self.visited = 0
        self._started = False
        self.leaves: list[Waiting] = []
        self.given_up: list[Waiting] = []
        self.bytes = 0
        self._narrow = frame.open_units <= options.narrow
        self._at_once = frame.at_once(options)
        self._count = itertools.count()
        self._open: list[tuple[float, int, Waiting]] = []
        self._stack: list[Waiting] = []  # where nodes go once the memory is used up: depth-first needs next to none
        self._busy: list[Waiting] = []  # nodes that were taken out and are not replaced by anything yet

    def start(self) -> Tensor:
        """Bounds one root per target; returns the points at which the bounds are attained."""
        found = self.bounder.bound(self.bounder.roots(), self.options.root_steps, self.close, self.options.rate)
        self.visited += len(self.frame.targets)
        self._keep(found.nodes)
        self._started = True
        return found.point

    def __len__(self) -> int:
        return self.open + len(self.leaves)

    @property
    def open(self) -> int:
        """Nodes that can be split."""
        return len(self._open) + len(self._stack)

    def _all_open(self) -> Iterator[Waiting]:
        return itertools.chain((w for _, _, w in self._open), self._stack)

    def lowers(self) -> dict[int, float]:
        """Per target: no point of interest is nearer than this (as far as the closing radius), also in the middle of a step."""
        found = dict.fromkeys(self.frame.targets, self.close if self._started else 0.0)
        for w in itertools.chain(self._all_open(), self._busy, self.leaves, self.given_up):
            t = self.frame.targets[w.target]
            found[t] = min(found[t], w.radius)
        return found

    def can_split(self, node: Waiting) -> bool:
        """Whether any unit of the node is open for a split."""
        nodes = unpack([node], self.bounder.shapes, self.frame.device)
        ends = zip(self.bounder.activations, nodes.lower, nodes.upper, strict=True)
        return any(bool((~op.affine_on(l, u)).any()) for op, l, u in ends)

    @property
    def first(self) -> Waiting | None:
        """The open node that comes next."""
        return self._stack[-1] if self._stack else self._open[0][2] if self._open else None

    def raise_target(self, row: int, radius: float) -> None:
        """Notes that no point of interest of a target is nearer than `radius`."""

        def raised(waiting: Iterable[Waiting]) -> list[Waiting]:
            nodes = (replace(w, radius=max(w.radius, radius)) if w.target == row else w for w in waiting)
            return [w for w in nodes if w.radius < self.close]

        # every list is replaced at once: an interruption in between must not lose a node
        heap = [(w.radius, next(self._count), w) for w in raised(w for _, _, w in self._open)]
        heapq.heapify(heap)
        self._open = heap
        self._stack = raised(self._stack)
        self.leaves = raised(self.leaves)
        self.given_up = raised(self.given_up)
        self.bytes = sum(w.nbytes for w in self._all_open())

    @property
    def lower(self) -> float:
        """The smallest bound of what is left."""
        first = self._open[0][0] if self._open else math.inf
        others = (w.radius for w in itertools.chain(self._stack, self.leaves))
        return min(first, min(others, default=math.inf), self.close)

    def pop(self, count: int) -> list[Waiting]:
        """The open nodes with the smallest bounds, or the latest ones where memory is used up; `done` ends their work.

        Nodes that need no work any more are dropped.
        """
        self._busy = []
        while self.open and len(self._busy) < count:
            w = self._stack[-1] if self._stack else self._open[0][2]
            if w.radius < self.close:
                self._busy.append(w)  # before it is taken out: an interruption in between must not lose it
            if self._stack:
                self._stack.pop()
            else:
                heapq.heappop(self._open)
            self.bytes -= w.nbytes
        return self._busy

    def done(self) -> None:
        """What was taken out is replaced by its children, or proved away."""
        self._busy = []

    def put(self, waiting: Iterable[Waiting]) -> None:
        """Adds nodes."""
        for w in waiting:
            if w.radius >= self.close:
                continue
            self.bytes += w.nbytes
            if self.bytes > self.options.memory:
                self._stack.append(w)
            else:
                heapq.heappush(self._open, (w.radius, next(self._count), w))

    def _keep(self, nodes: Nodes) -> None:
        self.put(pack(nodes.take(torch.nonzero(nodes.radius < self.close)[:, 0])))

    def step(self, look: Look) -> None:
        """Splits a batch of nodes."""
        o = self.options
        waiting = self.pop(self._at_once)
        if not waiting:
            return
        nodes = unpack(waiting, self.bounder.shapes, self.frame.device)
        found = self.bounder.bound(nodes, 0, self.close)
        splits = choose(self.bounder, found, self.close, o.look)
        able = splits.layer >= 0
        for i in torch.nonzero(~able)[:, 0].tolist():
            self.leaves.append(waiting[i])
        rows = torch.nonzero(able)[:, 0]
        if len(rows) == 0:
            self.done()
            return
        children = found.nodes.take(rows).children(splits.layer[rows], splits.unit[rows], splits.threshold[rows])
        if self._narrow:
            before = self.bounder.bound(children, 0, self.close)
            children = narrowed(self.bounder, before.nodes, before.line)
            children = children.take(torch.nonzero(children.radius < self.close)[:, 0])
            if len(children) == 0:
                self.done()
                return
        bounded = self.bounder.bound(children, o.steps if self._narrow else (o.steps + 1) // 2, self.close, o.rate)
        self.visited += len(children)
        self._keep(bounded.nodes)
        self.done()
        look(bounded.point)
