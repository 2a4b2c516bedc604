r"""The largest value of `f_t - f_y` on a box by best-first search: the nodes of `tree.py`, ordered by value in place of distance.

A node's line `c . delta + k >= f_t - f_y` (`bound.py`) is largest in a corner of the node's box, and

    max f_t - f_y  <=  max( level, max over open nodes of  k + sum_i max(c_i low_i, c_i high_i) )

holds at every moment: `level` is a value that the caller has reached at a point, and a little more, so nodes below it are done.
Everything that a distance draws from `f_t >= f_y` (intervals and boxes cut by the line, multipliers that push it below zero)
serves here with `f_t - f_y >= level`: the level is taken off the network's output. It may only rise, so cuts made below it hold on.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.dense import Dense
from onnxsub.verifiers.bab.bound import Bounded, Bounder, Line
from onnxsub.verifiers.bab.branch import choose
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.narrow import narrowed
from onnxsub.verifiers.bab.nodes import Nodes, Waiting, pack, unpack
from onnxsub.verifiers.bab.options import BabOptions

__all__ = ["Open", "ValueTree", "lowered"]

_BEYOND = 1.000001  # of the reach of the box: the radius that only nodes without any point above the level reach


def lowered(network: Network, level: float) -> Network:
    """The network of two outputs (value, 0) with `level` taken off the value."""
    if level == 0:
        return network
    name = f"{network.output}:above"
    above = Dense(
        op_type="Level", node="value - level", inputs=(network.output,), output=name, in_shapes=((2,),), out_shape=(2,),
        weight=np.eye(2), bias=np.array([-level, 0.0]),
    )  # fmt: skip
    return network.then((above,))


@dataclass(frozen=True, eq=False)
class Open:
    """A node at rest and the largest value that its line leaves."""

    value: float
    node: Waiting


class ValueTree:
    """Nodes that together contain every point of the frame whose value is above the level.

    Args:
        frame: one target: output 0 of a network of two outputs (value, 0), `whole`.
        level: values up to this one are of no interest; it may rise.

    Attributes:
        visited: nodes bounded so far.
        leaves: nodes with nothing left to split, whose bound is not exact.
        given_up: nodes that nothing more can be done about; they count for `top`.
    """

    def __init__(self, frame: Frame, options: BabOptions, level: float = 0.0) -> None:
        self.frame = frame
        self.options = options
        self.level = level
        self.visited = 0
        self.leaves: list[Open] = []
        self.given_up: list[Open] = []
        self._bounder = self._at(level)
        self._close = frame.radius * _BEYOND
        self._narrow = frame.open_units <= options.narrow
        self._at_once = frame.at_once(options)
        self._started = False
        self._count = itertools.count()
        self._heap: list[tuple[float, int, Open]] = []
        self._stack: list[Open] = []  # where nodes go once the memory is used up: depth-first needs next to none
        self._busy: list[Open] = []  # nodes that were taken out and are not replaced by anything yet
        self._bytes = 0

    def _at(self, level: float) -> Bounder:
        return Bounder(replace(self.frame, network=lowered(self.frame.network, level)))

    @property
    def open(self) -> int:
        """Nodes that can be split."""
        return len(self._heap) + len(self._stack)

    def _all(self) -> Iterator[Open]:
        return itertools.chain((w for _, _, w in self._heap), self._stack, self._busy, self.leaves, self.given_up)

    @property
    def top(self) -> float:
        """No point of the frame has a larger value, also in the middle of a step; infinite before `start`."""
        return max(self.level, max((w.value for w in self._all()), default=-math.inf)) if self._started else math.inf

    def cap(self, value: float) -> None:
        """Notes that no point has a larger value."""

        def capped(items: Iterable[Open]) -> list[Open]:
            return [replace(w, value=min(w.value, value)) for w in items if min(w.value, value) > self.level]

        # every list is replaced at once: an interruption in between must not lose a node
        heap = [(-w.value, next(self._count), w) for w in capped(w for _, _, w in self._heap)]
        heapq.heapify(heap)
        self._heap = heap
        self._stack, self.leaves, self.given_up = capped(self._stack), capped(self.leaves), capped(self.given_up)
        self._bytes = sum(w.node.nbytes for w in itertools.chain((w for _, _, w in self._heap), self._stack))

    def rise(self, level: float) -> None:
        """Takes a higher level."""
        if level > self.level:
            self.level = level
            self._bounder = self._at(level)
            self.cap(math.inf)

    def give_up(self, leaf: Open, value: float) -> None:
        """Puts a leaf aside, which is as well known as it can be: no point of it has a larger value."""
        value = min(leaf.value, value)
        if value > self.level:
            self.given_up.append(replace(leaf, value=value))
        self.leaves = [w for w in self.leaves if w is not leaf]

    def start(self) -> Tensor:
        """Bounds the root; returns the offset at which its line is largest."""
        found = self._bound(self._bounder.roots(), self.options.root_steps)
        self.visited += 1
        self._keep(found, [math.inf])
        self._started = True
        return found.point

    def step(self, look: Callable[[Tensor], None]) -> None:
        """Splits a batch of nodes; `look` is told the offsets `(B, n)` at which the lines of their children are largest."""
        o = self.options
        taken = self._pop(self._at_once)
        if not taken:
            return
        found = self._bound(unpack([w.node for w in taken], self._bounder.shapes, self.frame.device), 0)
        splits = choose(self._bounder, found, self._close, o.look)
        able = splits.layer >= 0
        for i in torch.nonzero(~able)[:, 0].tolist():
            self.leaves.append(taken[i])
        rows = torch.nonzero(able)[:, 0]
        parents = [taken[i].value for i in rows.tolist()] * 2
        if len(rows) == 0:
            self._busy = []
            return
        children = found.nodes.take(rows).children(splits.layer[rows], splits.unit[rows], splits.threshold[rows])
        if self._narrow:
            before = self._bounder.bound(children, 0, self._close)
            children = narrowed(self._bounder, before.nodes, before.line)
            left = torch.nonzero(children.radius < self._close)[:, 0]
            children, parents = children.take(left), [parents[i] for i in left.tolist()]
            if len(children) == 0:
                self._busy = []
                return
        bounded = self._bound(children, o.steps if self._narrow else (o.steps + 1) // 2)
        self.visited += len(children)
        self._keep(bounded, parents)
        self._busy = []
        look(bounded.point)

    def _bound(self, nodes: Nodes, steps: int) -> Bounded:
        """Bounds with the corner of the box at which each line is largest as its point."""
        found = self._bounder.bound(nodes, steps, self._close, self.options.rate)
        return replace(found, point=torch.where(found.line.c > 0, found.nodes.high, found.nodes.low))

    def _keep(self, found: Bounded, parents: list[float]) -> None:
        before = torch.tensor(parents, dtype=torch.float64, device=self.frame.device)
        values = torch.minimum(_top(found.line, found.nodes) + self.level, before)
        rows = torch.nonzero((found.nodes.radius < self._close) & (values > self.level))[:, 0]
        for value, node in zip(values[rows].tolist(), pack(found.nodes.take(rows)), strict=True):
            item = Open(value, node)
            self._bytes += node.nbytes
            if self._bytes > self.options.memory:
                self._stack.append(item)
            else:
                heapq.heappush(self._heap, (-value, next(self._count), item))

    def _pop(self, count: int) -> list[Open]:
        """The open nodes with the largest values, or the latest ones where memory is used up; those below the level are dropped."""
        self._busy = []
        while self.open and len(self._busy) < count:
            w = self._stack[-1] if self._stack else self._heap[0][2]
            if w.value > self.level:
                self._busy.append(w)  # before it is taken out: an interruption in between must not lose it
            if self._stack:
                self._stack.pop()
            else:
                heapq.heappop(self._heap)
            self._bytes -= w.node.nbytes
        return self._busy


def _top(line: Line, nodes: Nodes) -> Tensor:
    """The largest value of each line on its node's box, `(B,)`."""
    return line.k + torch.where(line.c > 0, line.c * nodes.high, line.c * nodes.low).sum(1)
