"""The search for slopes and multipliers of many nodes, with gradients in closed form: what `Bounder` does through a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.propagate.adam import Adam
from onnxsub.verifiers.bab.line import smoothed
from onnxsub.verifiers.bab.relu.lines import Pulled, Push, Slopes, gradient_parts, pulled
from onnxsub.verifiers.bab.relu.matrices import Matrices, Parts
from onnxsub.verifiers.bab.relu.multipliers import Joined, Sides
from onnxsub.verifiers.bab.relu.nearest import reached

__all__ = ["Ascent", "Batch", "Search"]

_NEWTON = 4  # steps for a distance of the search, begun where the last one ended
_FEWER = 0.75  # share of nodes that are still searched below which the others are left out
_LOOKS = 2  # steps between two looks at that share


@dataclass(frozen=True, eq=False)
class Batch:
    """B nodes in one precision.

    Attributes:
        target: row of the frame, `(B,)`.
        low, high: `(B, n)`.
        cuts: None: there are none.
    """

    m: Matrices
    parts: Parts
    target: Tensor
    lines: Slopes
    sides: Sides
    cuts: Joined | None
    low: Tensor
    high: Tensor

    def take(self, rows: Tensor) -> Batch:
        """Some of the nodes."""
        cuts = None if self.cuts is None else self.cuts.take(rows)
        lines, sides, box = self.lines.take(rows), self.sides.take(rows), (self.low[rows], self.high[rows])
        return Batch(self.m, self.parts, self.target[rows], lines, sides, cuts, *box)

    def push(self, beta: Tensor, gamma: Tensor) -> Push:
        """What multipliers of splits and cuts add."""
        push = self.sides.push(beta.to(self.low.dtype), self.m.count)
        return push if self.cuts is None else self.cuts.push(gamma.to(self.low.dtype), push)

    def pulled(self, low: Tensor, push: Push) -> Pulled:
        """The lines above `f_t - f_y`."""
        p, t = self.parts, self.target
        return pulled(p, self.m.blocks, (p.out_a[t], p.out_w[t], p.out_k[t]), self.lines, low, push)


@dataclass(frozen=True)
class Search:
    """What a search is told.

    Attributes:
        close: the radius at which a node is done.
        whole: the line's largest value in the box is lowered, no distance raised.
        rates: of slopes, of splits in units of what is read of their layer, and of cuts.
        gain, slow: as many steps in a row without such a relative gain for any node end it.
    """

    steps: int
    close: float
    whole: bool
    rates: tuple[float, float, float]
    gain: float
    slow: int
    budget: Budget | None


class Ascent:
    """Slopes and multipliers of a batch, improved step by step; the best ones are kept.

    Args:
        free: slopes `(B, U)`, multipliers of splits `(B, D)` and of cuts `(B, C)`; changed in place.
        begin: guesses of the distances.
        pace: factor of the step size per node.
    """

    def __init__(self, batch: Batch, free: tuple[Tensor, Tensor, Tensor], begin: Tensor, pace: Tensor, search: Search) -> None:
        self._batch, self._search = batch, search
        self._now = [t.clone() for t in free]
        self.best = [t.clone() for t in free]
        self._score = torch.full_like(begin, -torch.inf)
        self._rows = torch.arange(len(begin), device=begin.device)
        self._radius = begin
        self._pace = pace
        self._adam: Adam | None = None

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """The best slopes and multipliers."""
        s, slow = self._search, 0
        for step in range(s.steps + 1):
            gained = self._step(last=step == s.steps)
            slow = 0 if gained else slow + 1
            late = s.budget is not None and s.budget.over
            if late or step == s.steps or slow >= s.slow or not self._fewer(step):
                break
        return self.best[0], self.best[1], self.best[2]

    def _step(self, *, last: bool) -> bool:
        """Values, what is best so far, and a step of Adam; whether any node gained."""
        b, s = self._batch, self._search
        alpha, beta, gamma = self._now
        low = b.lines.low(alpha)
        found = b.pulled(low, b.push(beta, gamma))
        if self._adam is None:
            rates = s.rates[0], s.rates[1] * b.sides.sizes(b.m, found.lam), s.rates[2]
            self._adam = Adam(self._now, rates, self._pace)
        at = reached((found.c, found.k), (b.low, b.high), s.close, begin=self._radius, steps=_NEWTON, whole=s.whole)
        radius = self._radius = at.radius
        held = at.value / at.size.clamp(min=1e-12)
        aim = -at.value if s.whole else radius - held.clamp(min=0)
        score = torch.where(radius < s.close, aim, s.close + (-held).clamp(min=0))
        before = self._score[self._rows]
        up = score > before
        gained = bool(((score - before)[up].clamp(max=1) > s.gain * score[up].abs()).any())
        rows = self._rows[up]
        self._score[rows] = score[up]
        for kept, now in zip(self.best, self._now, strict=True):
            kept[rows] = now[up]
        if not last:
            # nodes that are done rest
            point = smoothed(found.c, b.low, b.high, s.close, at.value) if s.whole else at.point
            z, h = gradient_parts(b.m, b.lines, low, found, point)
            todo = torch.lt(radius, s.close, out=torch.empty_like(radius))[:, None]
            by_alpha = found.lam.clamp(max=0).mul_(z).mul_(b.lines.free).mul_(todo)
            by_cut = gamma if b.cuts is None else b.cuts.gradient(z, h).mul_(todo)
            self._adam.step([by_alpha, b.sides.gradient(z).mul_(todo), by_cut])
            alpha.clamp_(0, 1)
            beta.clamp_(min=0)
            gamma.clamp_(min=0)
        return gained

    def _fewer(self, step: int) -> bool:
        """Leaves out what is done, where that is much of the batch; whether anything is left."""
        if step % _LOOKS:
            return True
        left = torch.nonzero(self._score[self._rows] < self._search.close)[:, 0]
        if len(left) < _FEWER * len(self._rows):
            self._rows, self._batch = self._rows[left], self._batch.take(left)
            self._radius = self._radius[left]
            self._now = [t[left] for t in self._now]
            assert self._adam is not None
            self._adam = self._adam.taken(self._now, left)
        return len(left) > 0
