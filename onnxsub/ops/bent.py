r"""Functions of one variable whose slope rises or falls between given points: bounds by bisection, whatever the formula.

Between two neighbouring *bends* s' is monotone, so `s(z) - slope z` has at most one extreme inside, where `s'(z) = slope`; others
lie at the ends of the interval and at bends where s' jumps, the kinks.
Bisection brackets it by [a, c]; there the function differs from its value at a by at most
`(c - a) max(|s'(a) - slope|, |s'(c) - slope|)`, by which the error is widened. So every line is sound, however it was chosen.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from onnxsub.ops.base import Box
from onnxsub.ops.curve import Curve
from onnxsub.ops.interval_rows import outward
from onnxsub.ops.relaxation import Elementwise, check_mode

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from onnxsub.lazy import torch

__all__ = ["Bent"]

_STEPS = 52
"""Most halvings of the bracket of an extreme."""

_LOOKS = frozenset({6, 10, 14, 20, 28, 40})
"""After how many halvings it is asked whether extremes are known well enough: what is not known falls with the width's square."""

_POINTS = 16
"""Samples of an interval, between which the best chord is looked for; an even number, so that none is the middle."""

_NARROW = 1e-4
"""On shorter intervals a difference quotient loses its digits; the slope at the middle serves."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Bent(Curve):
    """An `s` that is continuous, with a slope that is monotone on each of the pieces between its bends."""

    unsupported: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"milp": "it is not piecewise linear; replace all its units (methods con and lin) or use a method without a MILP"}
    )

    @property
    @abc.abstractmethod
    def bends(self) -> tuple[float, ...]:
        """Where s' turns from rising to falling or back, or jumps; in ascending order."""

    @property
    @abc.abstractmethod
    def rises(self) -> tuple[bool, ...]:
        """Whether s' rises, on each of the pieces before, between and behind the bends."""

    @property
    def straight(self) -> tuple[tuple[float, float], ...]:
        """Intervals on which s is affine."""
        return ()

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        affine = lower == upper
        for a, b in self.straight:
            affine = affine | ((lower >= a) & (upper <= b))
        return affine

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        zero = torch.zeros_like(lower)
        return self.line_error(lower, upper, zero, zero)

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        # s' has its extremes at the ends and at bends, at a jump on either side of it
        first, last = self.derivative(lower), self.derivative(upper)
        low, high = first, first
        for bend in self.bends:
            at_bend = torch.full_like(lower, bend)
            before, behind = (self.derivative(z) for z in (torch.nextafter(at_bend, at_bend - 1), at_bend))
            last = torch.where((upper == bend) & (lower < bend), before, last)
            for inside, at in ((~((lower >= bend) | (upper < bend)), before), (~((lower > bend) | (upper <= bend)), behind)):
                low, high = torch.where(inside, torch.minimum(low, at), low), torch.where(inside, torch.maximum(high, at), high)
        low, high = torch.minimum(low, last), torch.maximum(high, last)
        return outward(low, high, lower <= upper)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        flat, zero = slope == 0, torch.zeros_like(lower)

        def error(z: Tensor) -> Tensor:
            # a flat line has no term in z, not even where z is infinite
            return self.forward(z) - torch.where(flat, zero, slope * z) - offset

        # ends, and bends at which s' may jump
        errors = torch.stack([error(lower), error(upper), *(error(k.clamp(min=lower, max=upper)) for k in self.kinks(lower))])
        size = 1 + offset.abs() + torch.maximum(self.forward(lower).abs(), self.forward(upper).abs())
        size = size + torch.where(flat, zero, slope.abs() * torch.maximum(lower.abs(), upper.abs()))
        low, high = self.widened(errors.amin(0), errors.amax(0), size)
        edges, eps = (-math.inf, *self.bends, math.inf), torch.finfo(lower.dtype).eps
        # the middle of an infinite interval is no number
        far, endless = math.sqrt(torch.finfo(lower.dtype).max), (lower == -math.inf, upper == math.inf)
        start = torch.where(endless[0], torch.full_like(lower, -far), lower)
        end = torch.where(endless[1], torch.full_like(upper, far), upper)
        for first, last, rising in zip(edges, edges[1:], self.rises, strict=False):
            a, c = (t.clamp(min=first, max=last) for t in (start, end))
            reached = a < c
            if not bool(reached.any()):
                continue
            near = size
            for step in range(1, _STEPS + 1):
                z = a / 2 + c / 2
                before = self.derivative(z) < slope
                before = before if rising else ~before
                a, c = torch.where(before, z, a), torch.where(before, c, z)
                if step in _LOOKS or step == _STEPS:
                    away = torch.maximum(*((self.derivative(z) - slope).abs() for z in (a, c)))
                    near = (c - a) * away
                    if bool((near <= eps * size).all()):
                        break
            inner, room = error(a), torch.where(torch.isfinite(near), near, math.inf)
            for ends, at, edge in ((endless[0], -far, first), (endless[1], far, last)):
                if math.isinf(edge) and bool(ends.any()):
                    there, limit = (self.derivative(torch.full_like(lower, v)) - slope for v in (at, edge))
                    passed = ((there < 0) & (limit > 0)) | ((there > 0) & (limit < 0))  # an extreme lies farther out
                    room = torch.where(ends & passed, torch.full_like(room, math.inf), room)
            below, above = self.widened(inner - room, inner + room, size + inner.abs())
            low, high = torch.where(reached, torch.minimum(low, below), low), torch.where(reached, torch.maximum(high, above), high)
        return low, high

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        """Only the slopes are chosen here. The offsets come from `line_error`, so the lines are sound whatever the slopes.

        `fastlin`: the chord, for both lines. `crown`: of all chords of samples that pass over the middle of the interval the
        highest and the lowest there, edges of the hulls of the samples: nearly the lines that enclose the smallest area.
        """
        check_mode(mode)
        zero = torch.zeros_like(lower)
        if mode == "fastlin":
            slope = self._chords(lower, upper, 2)[0]
            low, high = self.line_error(lower, upper, slope, zero)
            return Elementwise(slope, low, slope, high)
        below, above = self._chords(lower, upper, _POINTS)
        low, high = self.line_error(lower, upper, below, zero)[0], self.line_error(lower, upper, above, zero)[1]
        return Elementwise(below, low, above, high)

    def _chords(self, lower: Tensor, upper: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Slopes of the chords that are lowest and highest at the middle, among those of `count` samples; s' there where narrow."""
        width = upper - lower
        narrow = ~(width > _NARROW * (1 + torch.maximum(lower.abs(), upper.abs())))
        tangent = self.derivative(lower / 2 + upper / 2)
        width = torch.where(narrow, torch.ones_like(width), width)
        shares = [k / (count - 1) for k in range(count)]
        values = [self.forward(lower + s * width if s < 1 else upper) for s in shares]
        best: list[tuple[Tensor, Tensor] | None] = [None, None]  # height at the middle and slope
        for i in range(count // 2):
            for j in range(count // 2, count):
                rise = (values[j] - values[i]) / (shares[j] - shares[i])
                height = values[i] + (0.5 - shares[i]) * rise
                for k, sign in enumerate((1, -1)):
                    have = best[k]
                    better = None if have is None else sign * height < sign * have[0]
                    best[k] = (
                        (height, rise) if have is None or better is None
                        else (torch.where(better, height, have[0]), torch.where(better, rise, have[1]))
                    )  # fmt: skip
        found = []
        for pair in best:
            assert pair is not None  # there are at least two samples
            slope = torch.where(narrow, tangent, pair[1] / width)
            found.append(torch.where(torch.isfinite(slope), slope, torch.zeros_like(slope)))
        return found[0], found[1]
