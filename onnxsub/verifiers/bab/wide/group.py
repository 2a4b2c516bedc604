"""What the nodes below one node of a tree share: the network with what is decided there folded away, and squares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.verifiers.bab.wide.blocks import Blocks
from onnxsub.verifiers.bab.wide.bound import evaluate, first_multipliers
from onnxsub.verifiers.bab.wide.parts import AWAY, TINY, Multipliers, Part, Squares, spread, squares_for
from onnxsub.verifiers.bab.wide.steps import Pace, improve

__all__ = ["Group"]

_ROUGH = 16384  # inputs that stand for all in a root's first steps, and where ends of intervals are looked for
_SAMPLE = 65536  # the same in all other steps: fewer fit the sample rather than the row
_END = Pace(30, 0.07, every=3)  # for an end of a unit's interval
_ROWS = 48  # units at a time


@dataclass(frozen=True, eq=False)
class Group:
    """Units are scaled (`Blocks.scaled`).

    Attributes:
        size: by what their pre-activations are multiplied to be those of the network, `(m,)`.
        whole, sampled, rough: the row over all inputs, float64, and over some and fewer, float32.
        lower, upper: intervals of the units, `(m,)`.
        squares, few, fewer: over all inputs, some and fewer; None before there are multipliers.
        rate: about how fast a bound falls with the radius.
        price: of these squares, `(1, m, m)`, for units as they are in the network; nodes that wait share it.
    """

    size: Tensor
    whole: Part
    sampled: Part
    rough: Part
    lower: Tensor
    upper: Tensor
    squares: Squares | None = None
    few: Squares | None = None
    fewer: Squares | None = None
    rate: float = 0.0
    price: Tensor | None = None

    @staticmethod
    def of(blocks: Blocks, row: int, lower: Tensor, upper: Tensor) -> Group:
        """For units of the network with these intervals."""
        scaled, size = blocks.folded(lower, upper).scaled()
        whole = Part.of(scaled, row)
        sampled = whole.sample(spread(whole, _SAMPLE))
        rough = whole.sample(spread(whole, _ROUGH)) if len(whole.a) > _ROUGH else sampled
        return Group(size, whole, sampled, rough, scaled.lower, scaled.upper)

    @property
    def open(self) -> int:
        """How many units are."""
        return int(((self.lower < 0) & (self.upper > 0)).sum())

    def first(self, radius: float, carried: Multipliers | None = None) -> Multipliers:
        """What steps begin with: those of a node, as `carried` wrote them, or slopes and sizes from scratch."""
        fresh = first_multipliers(self.whole.within(radius), self.lower, self.upper)
        if carried is None:
            return fresh
        size, exponents = self.size, 2 * self.size.log()
        kappa, mu = carried.kappa + exponents, (carried.mu + exponents).masked_fill(~self.whole.B.any(0), -AWAY)
        price = carried.price * size[:, None] * size
        return replace(fresh, nu=carried.nu * size / fresh.unit, kappa=kappa, mu=mu, reach=carried.reach / size, price=price)

    def carried(self, given: Multipliers, lower: Tensor) -> Multipliers:
        """A node's multipliers for units as they are in the network, where those that are on are folded away.

        Without `h_j` the row has `z_j` from the unit's own relation alone: nu_j - q_j in place of nu_j (`bound.py`).
        """
        nu = given.nu * given.unit
        nu = torch.where(lower >= 0, nu - (self.whole.c + nu @ self.whole.B), nu)
        size, exponents = self.size, 2 * self.size.log()
        kappa, mu, reach = given.kappa - exponents, given.mu - exponents, given.reach * size
        assert self.price is not None
        return Multipliers(nu / size, kappa, mu, reach, self.price, torch.ones_like(size))

    def with_squares(self, given: Multipliers, radius: float) -> Group:
        """With squares that fit these parameters."""
        whole, part, rough = (p.within(radius) for p in (self.whole, self.sampled, self.rough))
        rate = float((whole.a + (given.nu * given.unit) @ whole.A).abs().sum())
        single = given.to(torch.float32)
        squares, few = squares_for(whole, given), squares_for(part, single)
        fewer = few if self.rough is self.sampled else squares_for(rough, single)
        price = given.price / (self.size[:, None] * self.size)
        return replace(self, squares=squares, few=few, fewer=fewer, rate=rate, price=price)

    def narrowed(
        self, given: Multipliers, lower: Tensor, upper: Tensor, radius: float, budget: Budget, ends: dict[float, Multipliers]
    ) -> tuple[Tensor, Tensor]:
        """Intervals `(1, m)` of the units where the row is not negative within a radius.

        `row + t s z_j <= V` gives `s z_j <= V / t` there, for every t > 0 and both signs s.

        Args:
            ends: by sign, the multipliers of the last round, for this one to begin with; they are replaced.
        """
        whole, part = self.whole.within(radius), self.rough.within(radius)
        now = float(evaluate(whole, given, lower, upper, self.squares).value)
        w = whole.a + (given.nu * given.unit) @ whole.A
        half = (whole.high - whole.low) / 2
        scale = (2 * max(now, TINY) * float(w[0].abs() @ half)) ** 0.5
        low, high = lower[0].clone(), upper[0].clone()
        same = given.without_price.take(torch.zeros(len(low), dtype=torch.long))
        for units in torch.split(torch.nonzero((low < 0) & (high > 0))[:, 0], _ROWS):
            step = scale / (whole.A[units].abs() @ half + (upper - lower)[0, units] / 20)
            count = torch.arange(len(units))
            for sign, reached in ((1.0, high), (-1.0, low)):
                more = torch.zeros((len(units), len(low)), dtype=torch.float64)
                more[count, units] = sign * step
                l, u = lower.expand(len(units), -1), upper.expand(len(units), -1)
                budget.check()
                before = ends.get(sign, same)
                several = improve(part, before.take(units), (l, u), _END, self.fewer, more=more, budget=budget)
                ends[sign] = before.placed(units, several)
                most = evaluate(whole, several, l, u, self.squares, more).proved / step
                reached[units] = torch.fmin(high[units], most) if sign > 0 else torch.fmax(low[units], -most)
        return low[None], high[None]
