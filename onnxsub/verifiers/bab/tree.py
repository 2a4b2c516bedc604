"""Best-first search on one frame: the open nodes, and one step of the search."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.verifiers.bab.bound import Bounded, Bounder
from onnxsub.verifiers.bab.branch import choose
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.narrow import narrowed
from onnxsub.verifiers.bab.nodes import Nodes, Waiting, pack, unpack
from onnxsub.verifiers.bab.options import BabOptions
from onnxsub.verifiers.bab.pairs import paired

__all__ = ["Tree"]

_AFRESH = 100  # gradient steps for nodes that meet new cuts
_WITH_CUTS = 4  # times as many steps for a child where there are cuts
_IDLE = 0.02  # multiplier below which a cut counts for nothing
_TARGETS = 3  # that get cuts, the hardest ones
_SHARE = 0.7  # of the time left that making cuts and meeting them may take
_AS_LONG = 2.0  # times as long as the tree has taken so far that making cuts may take
_MEETING = 5  # nodes that take as long as bounding one open node anew, about

Look = Callable[[Tensor], None]
"""Told the offsets `(B, n)` at which bounds are attained."""


class Tree:
    """Nodes that together contain every point of interest of the frame, but for those that are proved away.

    Attributes:
        close: nodes whose distance bound reaches this radius are done; it may shrink while the search goes on.
        visited: nodes bounded so far.
        cut: cuts were made.
        hard: nodes stayed open when they had met these.
        leaves: nodes with nothing left to split, whose bound is not exact.
        given_up: nodes that nothing more can be done about; they count for `lowers`.
    """

    def __init__(self, frame: Frame, options: BabOptions, close: float) -> None:
        self.frame = frame
        self.options = options
        self.bounder = Bounder(frame)
        self.close = close
        self.visited = 0
        self.cut = self.hard = False
        self._started = False
        self.leaves: list[Waiting] = []
        self.given_up: list[Waiting] = []
        self.bytes = 0
        self._root: Bounded | None = None  # until cuts are made
        self._cuts_after = 0.0  # seconds of steps: where looking for pairs takes too long, it waits until the tree has
        self._spent = 0.0  # seconds of steps
        self._narrow = frame.open_units <= options.narrow
        self._at_once = frame.at_once(options)
        self._count = itertools.count()
        self._open: list[tuple[float, int, Waiting]] = []
        self._stack: list[Waiting] = []  # where nodes go once the memory is used up: depth-first needs next to none
        self._busy: list[Waiting] = []  # nodes that were taken out and are not replaced by anything yet

    def start(self) -> Tensor:
        """Bounds one root per target; returns the points at which the bounds are attained."""
        found = self.bounder.bound(self.bounder.roots(), self.options.root_steps, self.close, self.options.rate)
        self._root = found
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

    @property
    def _split(self) -> int:
        """Nodes that steps have bounded: all but the roots."""
        return self.visited - len(self.frame.targets)

    @property
    def _meeting(self) -> float:
        """Seconds that new bounds of all open nodes take where there are cuts, about."""
        return self._spent / self._split * _MEETING * self.open

    @property
    def _steps(self) -> int:
        """Gradient steps for a child."""
        if self.frame.cuts:
            return _WITH_CUTS * self.options.steps
        return self.options.steps if self._narrow else (self.options.steps + 1) // 2

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

    def _batch(self, waiting: list[Waiting]) -> Nodes:
        return unpack(waiting, self.bounder.shapes, self.frame.device, sum(self.bounder.cut_counts))

    def _cut(self, look: Look, until: float, seconds: float) -> None:
        """Cuts for the targets that turn out to be hard, and new bounds for all that is open."""
        assert self._root is not None
        hardest = {w.target: w for w in sorted(self._all_open(), key=lambda w: -w.radius)}
        few = sorted(hardest.values(), key=lambda w: w.radius)[:_TARGETS]
        found = self.bounder.bound(self._batch(few), 0, self.close)
        cuts, need = paired(self.bounder, self._root, found, self.options.pairs, seconds)
        if not cuts:
            # where no pair is promising, none ever will be
            self._root = self._root if need else None
            # if the time left is what was too short, looking again at every step would take the rest of it
            self._cuts_after = need / _AS_LONG if need > _AS_LONG * self._spent else self._spent + need
            return
        # nodes from before have multipliers of 0: an interruption from here on leaves every one of them as good as it was
        frame = replace(self.frame, cuts=cuts)
        self.frame, self.bounder, self._root, self.cut = frame, Bounder(frame), None, True
        count, self._at_once = self._at_once, frame.at_once(self.options)
        waiting = sorted(self._all_open(), key=lambda w: w.radius)
        for i in range(0, len(waiting), count):
            if time.perf_counter() > until:
                break
            afresh = self.bounder.bound(self._batch(waiting[i : i + count]), _AFRESH, self.close, self.options.rate)
            self.visited += len(afresh.nodes)
            waiting[i : i + count] = pack(afresh.nodes)
            look(afresh.point)
        self._replace(waiting)
        self.hard = bool(self.open)
        self._drop_idle()

    def _drop_idle(self) -> None:
        """Forgets cuts that no open node makes use of: every one costs time in every pass."""
        gammas = [w.gamma for w in self._all_open() if len(w.gamma)]
        if not gammas:
            return
        used = np.max(gammas, axis=0) > _IDLE
        parts = np.split(used, np.cumsum(self.bounder.cut_counts)[:-1])
        cuts = {}
        for op, part in zip(self.bounder.activations, parts, strict=True):
            if part.any():
                cuts[op.output] = self.frame.cuts[op.output].take(torch.from_numpy(np.flatnonzero(part)).to(self.frame.device))
        waiting = [replace(w, gamma=w.gamma[used]) if len(w.gamma) else w for w in self._all_open()]
        frame = replace(self.frame, cuts=cuts)
        self.frame, self.bounder, self._at_once = frame, Bounder(frame), frame.at_once(self.options)
        self._replace(waiting)

    def _replace(self, waiting: list[Waiting]) -> None:
        """Other nodes in place of all that are open."""
        heap = [(w.radius, next(self._count), w) for w in waiting if w.radius < self.close]
        heapq.heapify(heap)
        self._open, self._stack = heap, []
        self.bytes = sum(w.nbytes for w in self._all_open())

    def step(self, look: Look, until: float = math.inf) -> None:
        """Splits a batch of nodes.

        Args:
            until: the time at which the caller stops: what takes as long as many steps is left then.
        """
        began = time.perf_counter()
        if self._root is not None and self.options.pairs and self._split >= self.options.hard and self._spent >= self._cuts_after:
            seconds = min(_SHARE * (until - began) - self._meeting, _AS_LONG * self._spent)
            if seconds > 0:
                self._cut(look, until, seconds)
                return
        try:
            self._step(look)
        finally:
            self._spent += time.perf_counter() - began

    def _step(self, look: Look) -> None:
        o = self.options
        waiting = self.pop(self._at_once)
        if not waiting:
            return
        nodes = self._batch(waiting)
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
        bounded = self.bounder.bound(children, self._steps, self.close, o.rate)
        self.visited += len(children)
        self._keep(bounded.nodes)
        self.done()
        look(bounded.point)
