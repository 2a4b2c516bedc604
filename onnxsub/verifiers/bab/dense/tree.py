"""The search on one ball for several rows at once: is any of them not negative anywhere?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.dense.ball import Ball, outward
from onnxsub.verifiers.bab.dense.bound import Nodes, certified, evaluate, improve
from onnxsub.verifiers.bab.dense.intervals import narrowed, slopes_of
from onnxsub.verifiers.bab.dense.pool import Pool
from onnxsub.verifiers.bab.dense.splitting import choose
from onnxsub.verifiers.bab.wide.blocks import Blocks

__all__ = ["DenseTree", "Found", "Program"]

_AT_ONCE = 2**18  # numbers of a matrix of nodes by inputs: nodes that are split together
_SLOPES = 60  # steps for the slopes of intervals
_ROOT, _ROUNDS = 100, 3  # steps of a root, and rounds of intervals and such steps
_NARROWED, _STEPS = 1, 10  # rounds of intervals of a child, and steps after each of them
_BEFORE = 3  # steps of a child before its intervals are narrowed
_FEW, _LAST = 0, 100  # open units of a node that is a linear program's, and steps that it gets before
_TRIED = 16  # points of a step that are tried

Found = Callable[[Array, bool], float]
"""Told of offsets `(N, n)`, the best first, and whether a row is not negative there; returns the radius that counts from now on."""

Program = Callable[[int, Tensor, Tensor, Budget], tuple[bool, float]]
"""Searches what intervals `(m,)` leave of a row; whether nothing is left there, and the radius that counts from now on."""


class DenseTree:
    """The search for some rows within a radius.

    Attributes:
        radius: what is closed is closed within it; it falls with every point that is found.
        nodes: bounded so far.

    Args:
        found: told of points. program: told of nodes with few open units.
        memory: bytes that waiting nodes may take.
        ends: intervals of the units where a row is not negative within `radius`, `(T, m)` float64; None: those of the blocks.
    """

    def __init__(
        self, blocks: Blocks, rows: list[int], radius: float, found: Found, program: Program, memory: int,
        ends: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.radius, self.nodes, self.rows = radius, 0, rows
        self._blocks, self._found, self._program = blocks, found, program
        self._ball = Ball.of(blocks, rows, radius)
        self._pool = Pool(self._ball.units, memory)
        self._stuck: set[int] = set()
        self._started = False
        self._busy: set[int] = set(range(len(rows)))
        self._steps = 0
        self._scale = torch.ones((len(rows), self._ball.units))
        self._slopes = torch.empty(0)
        self._ends = None if ends is None else (outward(ends[0], -1), outward(ends[1], 1))

    @property
    def finished(self) -> bool:
        """Whether nothing is left to split."""
        return self._started and not self._busy and len(self._pool) == 0

    @property
    def closed(self) -> list[int]:
        """The rows that are negative within `radius`."""
        left = self._busy | self._stuck | self._pool.rows()
        return [row for number, row in enumerate(self.rows) if number not in left]

    def run(self, budget: Budget, done: Callable[[], bool] = lambda: False) -> None:
        """Until nothing is left to split, the budget ends, or the caller has what it wants."""
        if not self._started:
            self._begin(budget)
        while len(self._pool) and not budget.over and not done():
            before = self.nodes
            self._step(budget)
            budget.count(self.nodes - before)
            budget.tell(f"{len(self._pool)} nodes open, {self.nodes} bounded, radius {self.radius:.6g}")

    def _begin(self, budget: Budget) -> None:
        ball, count = self._ball, len(self.rows)
        self._slopes, lower, upper = slopes_of(ball, _SLOPES, budget)
        lower, upper = (t.expand(count, -1).clone() for t in (lower, upper))
        if self._ends is not None:
            lower, upper = torch.maximum(lower, self._ends[0]), torch.minimum(upper, self._ends[1])
        nothing = torch.zeros_like(lower)
        nodes = Nodes(
            torch.arange(count), lower, upper, nothing, (upper > -lower).float(), nothing.clone(), torch.cat([nothing, nothing], 1)
        )  # fmt: skip
        read = evaluate(ball, nodes, self._scale).q.abs()
        for s in ball.layers:
            self._scale[:, s] = read[:, s].mean(1, keepdim=True)
        nodes, found = improve(ball, nodes, self._scale, _ROOT)
        for _ in range(_ROUNDS):
            nodes, found = improve(ball, narrowed(ball, nodes, found, self._slopes), self._scale, _ROOT)
        self.nodes += count
        budget.count(count)
        self._keep(nodes, found.value)
        self._started, self._busy = True, set()

    def _keep(self, nodes: Nodes, values: Tensor) -> None:
        """Puts what is not closed to the open nodes."""
        left = torch.nonzero(~self._done(nodes, values))[:, 0]
        self._pool.put(nodes.take(left), values[left])

    def _done(self, nodes: Nodes, values: Tensor) -> Tensor:
        """Which nodes hold nothing of interest, proved."""
        done = nodes.empty.clone()
        near = torch.nonzero((values < 0) & ~done)[:, 0]
        done[near] = certified(self._ball, nodes.take(near), self._scale) < 0
        return done

    def _step(self, budget: Budget) -> None:
        most = max(32, _AT_ONCE // (self._ball.inputs + self._ball.units))
        nodes, values = self._pool.take(most)
        self._busy = set(nodes.row.tolist())
        nodes, values = self._programs(nodes, values, budget)
        if len(nodes):
            self._split(nodes, values)
        self._pool.done()
        self._busy = set()

    def _programs(self, nodes: Nodes, values: Tensor, budget: Budget) -> tuple[Nodes, Tensor]:
        """Hands nodes with few open units to linear programs; the other ones."""
        few = nodes.open.sum(1) <= _FEW
        some = torch.nonzero(few)[:, 0]
        last, found = improve(self._ball, nodes.take(some), self._scale, _LAST)
        for i in torch.nonzero(~self._done(last, found.value))[:, 0].tolist():
            row, done = int(last.row[i]), False
            if not budget.over:
                done, radius = self._program(self.rows[row], last.lower[i].double(), last.upper[i].double(), budget)
                self.within(radius)  # a program may find a point, and proves nothing beyond it
            if not done and budget.over:
                self._pool.put(last.take(torch.tensor([i])), found.value[i : i + 1])
            elif not done:
                self._stuck.add(row)
        rest = torch.nonzero(~few)[:, 0]
        return nodes.take(rest), values[rest]

    def _split(self, nodes: Nodes, values: Tensor) -> None:
        ball, scale = self._ball, self._scale
        unit = choose(ball, nodes, evaluate(ball, nodes, scale))
        children, values = nodes.children(unit), values.repeat(2)
        self.nodes += len(children)
        children, found = improve(ball, children, scale, _BEFORE)
        for _ in range(_NARROWED):
            left = torch.nonzero(~self._done(children, found.value))[:, 0]
            if len(left) == 0:
                return
            children, values = children.take(left), values[left]
            children = narrowed(ball, children, found.take(left), self._slopes)
            children, found = improve(ball, children, scale, _STEPS)
        self._keep(children, torch.minimum(found.value, values))
        self._try(children.row, found.w.sign())

    def _try(self, row: Tensor, signs: Tensor) -> None:
        """Tries the points at which bounds are attained; a nearer point of interest makes the ball smaller."""
        self._steps += 1
        parts, ball = self._ball.single, self._ball
        z = torch.addmm(parts.b, signs, parts.turned)
        for s in ball.layers:
            if s.start:
                z[:, s] += z[:, : s.start].clamp(min=0) @ parts.B_turned[: s.start, s]
        value = (parts.a[row] * signs).sum(1) + (parts.c[row] * z.clamp(min=0)).sum(1) + parts.k[row]
        best = value.topk(min(_TRIED, len(value))).indices
        reached = float(value[best[0]]) >= 0
        if not reached and self._steps & (self._steps - 1):
            return
        self.within(self._found(ball.offsets(signs[best]).numpy(), reached))

    def within(self, radius: float) -> None:
        """Goes on within a smaller radius."""
        if radius < self.radius:
            self.radius, self._ball = radius, Ball.of(self._blocks, self.rows, radius)
