r"""The distance where few inputs vary: regions of the input box, the nearest one first.

A region is a box and a target t. Its radius is a lower end of the distance of all points in it at which t is reached: where a line
`c . d + k` lies above the margin of t in the region, that of the half-space `c . d + k >= 0` within the box (`onnxsub.geometry`),
which is exact where the network is affine there. So the smallest radius of all regions that wait is a lower end of the distance,
and the nearest points of their lines are candidates for the upper one. A region is done where its radius has come within the
tolerance of the upper end; the others are halved, along the input whose halves come nearest to that (`halves.py`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.geometry import halfspace_radius
from onnxsub.network import Network
from onnxsub.passes.attack.tangent import tangent_steps
from onnxsub.verifiers.bab.inputs.bounds import RegionBounds
from onnxsub.verifiers.bab.inputs.halves import TRIED, Regions, halved, promises
from onnxsub.verifiers.bab.inputs.lines import RowLines
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.bracket import Bracket

__all__ = ["FEW", "NearestRegions", "search_inputs"]

FEW = 8
"""Inputs that vary, up to which halves of the box are what closes a distance."""

_AT_ONCE, _NUMBERS = 64, 2**19  # regions of a step, and values of the units of all halves that are bounded for them, at most
_MOST = 2**16  # regions, where no limit ends them
_ROUND = 1e-13  # share of a line's terms that their sum may be off: far more than it is
_TANGENTS = 6  # steps from a new point to nearer ones
_SHARE = 0.9  # of the time that is left


def search_inputs(bracket: Bracket) -> None:
    """Raises the lower end by regions, and lowers the upper one by their points, where few inputs vary.

    Raises:
        UnsupportedOperatorError: an operator has no bounds.
        OutOfTime: the budget ended; the bracket holds what is known.
    """
    low, high = bracket.instance.ball(min(bracket.upper, bracket.reach))
    side = (high - low).reshape(-1)
    if not np.isfinite(side).all() or not 0 < int((side > 0).sum()) <= min(FEW, bracket.session.bab.inputs):
        return
    budget = bracket.budget
    with budget.stage("tree"):
        NearestRegions(bracket).run(budget.part(_SHARE * budget.remaining) if budget.limited else budget)


class NearestRegions:
    """The regions of all targets of a bracket.

    Attributes:
        visited: regions bounded so far.
        stuck: whether the nearest region is too small to be halved, so that the lower end stays where it is.
    """

    def __init__(self, bracket: Bracket) -> None:
        self.visited = 0
        self.stuck = False
        self._bracket = bracket
        self._top = min(bracket.upper - bracket.gap / 2, bracket.reach)
        local = bracket.local(self._top, branching=True)
        self._network: Network = local.network
        self._x0 = torch.from_numpy(np.asarray(bracket.x0, dtype=np.float64)).reshape(1, -1)
        self._targets = [t for t in local.open if bracket.claims.lowers[t] < self._top]
        self._rows = torch.tensor([_row(local, t) for t in self._targets], dtype=torch.long)
        self._bounds = RegionBounds(self._network, self._rows)
        lower, upper = self._ball(self._top)
        self._side = (upper - lower)[0]
        count = len(self._targets)
        clause = torch.arange(count)
        self._waiting = Regions(lower.expand(count, -1), upper.expand(count, -1), clause, {})
        known = [bracket.claims.lowers[t] for t in self._targets]
        self._radius = torch.tensor(known, dtype=torch.float64)
        units = sum(math.prod(op.in_shapes[0]) for op in self._network.nonlinear)
        self._at_once = max(1, min(_AT_ONCE, _NUMBERS // (2 * TRIED * max(units, 1))))

    @property
    def close(self) -> float:
        """The radius that a region must reach to be done."""
        return min(self._top, self._bracket.upper - self._bracket.gap / 2)

    def run(self, budget: Budget) -> None:
        """Until every region is done or the budget ends; what is proved goes to the bracket.

        Raises:
            OutOfTime: the budget ended in the middle of a step, whose regions wait on.
        """
        b = self._bracket
        while b.running and budget.running and len(self._waiting) and b.upper > b.enough and not self.stuck:
            if not b.budget.limited and self.visited >= _MOST:
                return
            self._step(budget)

    def _step(self, budget: Budget) -> None:
        order = self._radius.argsort(stable=True)
        now, later = order[: self._at_once], order[self._at_once :]
        left, radius = self._bounded(self._waiting.take(now), self._radius[now], budget)
        # all at once: an interruption before this line loses no region
        self._waiting, self._radius = _joined(self._waiting.take(later), left), torch.cat([self._radius[later], radius])
        self.visited += len(now)
        budget.count(len(now))
        self._publish()

    def _publish(self) -> None:
        """Drops what is done, and tells the bracket the radius within which each target is nowhere reached."""
        close = self.close
        open_ = torch.nonzero(self._radius < close)[:, 0]
        self._waiting, self._radius = self._waiting.take(open_), self._radius[open_]
        for i, t in enumerate(self._targets):
            own = self._radius[self._waiting.clause == i]
            self._bracket.claims.prove(t, float(own.min()) if len(own) else close)

    def _bounded(self, regions: Regions, radius: Tensor, budget: Budget) -> tuple[Regions, Tensor]:
        """The halves of what is left of regions, and their radii."""
        close = self.close
        low, high = self._ball(close)
        regions = Regions(torch.maximum(regions.lower, low), torch.minimum(regions.upper, high), regions.clause, {})
        here = torch.nonzero((regions.lower <= regions.upper).all(1))[:, 0]
        regions, radius = regions.take(here), radius[here]
        if not len(here):
            return regions, radius
        lines, way = self._bounds.thorough(regions, budget)
        found, points = self._radii(lines, regions)
        radius = torch.fmax(radius, found)  # what is no number changes nothing
        self._bounds.told(way, int((radius >= close).sum()), len(regions))
        lower, upper = lines.cut(regions.clause[:, None], regions.lower, regions.upper)
        keep = torch.nonzero((radius < close) & (lower <= upper).all(1))[:, 0]
        left, radius = Regions(lower, upper, regions.clause, {}).take(keep), radius[keep]
        if not len(keep):
            return left, radius
        self._try(points[keep], budget)
        c = lines.c[torch.arange(len(regions)), regions.clause]
        promise = promises(left, c[keep], self._side)
        stuck = (promise < 0).all(1)
        self.stuck |= bool(stuck.any())
        halves, radii = self._halved(left.take(~stuck), radius[~stuck], promise[~stuck], budget)
        return _joined(halves, left.take(stuck)), torch.cat([radii, radius[stuck]])

    def _halved(self, regions: Regions, radius: Tensor, promise: Tensor, budget: Budget) -> tuple[Regions, Tensor]:
        """The halves of regions that are not done, and the radii of the regions that they come from."""
        if not len(regions):
            return regions, radius
        close = self.close

        def left(halves: Regions) -> Tensor:
            """What is left to be proved: of the way to `close`, times the margin; below zero: nothing."""
            lines = self._bounds.quick(halves, budget)
            found, _ = self._radii(lines, halves)
            top = lines.top.gather(1, halves.clause[:, None])[:, 0]
            return torch.where(found >= close, -1.0, (1 - found / close) * top.clamp(min=0))

        halves, of = halved(regions, promise, left(regions).clamp(min=0), left)
        return halves, radius[of]

    def _radii(self, lines: RowLines, regions: Regions) -> tuple[Tensor, Tensor]:
        """The radius of each region by its line, and the point at which the line has it, `(B, n)`."""
        at = regions.clause[:, None]
        c = lines.c[torch.arange(len(regions)), regions.clause]
        end, top = lines.end.gather(1, at)[:, 0], lines.top.gather(1, at)[:, 0]
        low, high = regions.lower - self._x0, regions.upper - self._x0
        corner = torch.where(c > 0, high, low)
        size = end.abs() + (c.abs() * torch.maximum(low.abs(), high.abs())).sum(1)
        k = end - (c * corner).sum(1) + _ROUND * size
        # no part of these sums is larger than their size; where that is no number the line says nothing
        fair = torch.isfinite(size) & torch.isfinite(k)
        c, k = torch.where(fair[:, None], c, 0.0), torch.where(fair, k, 0.0)
        radius = halfspace_radius(c, k, low, high) * (1 - _ROUND)
        # offsets from the anchor are rounded once
        off = 2.0**-52 * torch.maximum(regions.lower.abs(), regions.upper.abs()).amax(1)
        radius = torch.where((top < 0) | (regions.lower > regions.upper).any(1), torch.inf, (radius - off).clamp(min=0))
        reach = radius.clamp(max=self._top)[:, None] * (1 + 1e-9)
        return radius, self._x0 + torch.where(c > 0, reach, torch.where(c < 0, -reach, 0.0)).clamp(low, high)

    def _try(self, points: Tensor, budget: Budget) -> None:
        """Has the nearest of the points confirmed that reach a target, and steps from it to nearer ones."""
        b = self._bracket
        x = points.reshape(-1, *self._network.input_shape)
        with torch.no_grad():
            margin = self._network.forward(x).flatten(1)[:, self._rows].amax(1)
        size = (points - self._x0).abs().amax(1)
        good = torch.nonzero((margin >= 0) & (size < b.upper))[:, 0]
        if not len(good):
            return
        first = good[size[good].argmin()]
        best, reached, of = x[first].numpy(), float(size[first]), b.instance
        b.accept(best)
        near = tangent_steps(b.network, b.x0, of.label, of.space, best, _TANGENTS, budget=budget, target=of.target)
        if near is not None:
            b.accept(near)
        if b.upper > reached + b.gap:
            # no point that the file may be given stands for this one: nothing farther out can be proved
            self._top = min(self._top, reached)

    def _ball(self, radius: float) -> tuple[Tensor, Tensor]:
        low, high = (torch.from_numpy(np.asarray(e, dtype=np.float64)).reshape(1, -1) for e in self._bracket.instance.ball(radius))
        return low, high


def _row(local: BoxModel, target: int) -> int:
    (row,) = local.rows.members[target]
    return row


def _joined(a: Regions, b: Regions) -> Regions:
    return Regions(torch.cat([a.lower, b.lower]), torch.cat([a.upper, b.upper]), torch.cat([a.clause, b.clause]), {})
