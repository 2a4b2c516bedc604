r"""Two affine pieces that need not meet: ThresholdedRelu, Sign, and comparisons, whose truth is 1 and 0.

    y = left(z) for z < at,    on for z = at,    right(z) for z > at

As a *relation* either piece, and the number `on`, may be taken within `room` of the threshold. On an interval [l, u] it is made
of two segments that overlap, and of `on` over the overlap [p, q]; its upper hull has corners at l, p, q and u only, and so has the
lower one. Lines are edges of these hulls, and their offsets come from the same corners, whatever the slope.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from onnxsub.ops.base import Array, Box
from onnxsub.ops.broadcast import leading
from onnxsub.ops.curve import Curve
from onnxsub.ops.jumping import Jumping
from onnxsub.ops.relaxation import Elementwise, check_mode

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Jump", "Piece"]

Piece = tuple[float, float]
"""Slope and offset."""

_NARROW = 1e-6  # corners that are nearer to each other, relative to the ends of the interval, give no slope
_APART = 2.0**-19  # how far beside a jump a unit is split, relative to the threshold: ends at rest are rounded to float32
_GRAIN = 0.1  # share of the room within which two pre-activations count as the same


class _Corners(NamedTuple):
    """Where the hulls of the relation may have corners, from left to right, and its values there; and which pieces it has."""

    places: list[Tensor]
    least: list[Tensor]
    most: list[Tensor]
    before: Tensor
    behind: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Jump(Jumping):
    """`left` below a threshold, `right` above it and `on` at it.

    Attributes:
        at: the threshold, broadcastable to the shape.
        left, right: the pieces.
        on: the value at the threshold. One that is none of either piece needs pieces that are constants.
    """

    at: Array
    left: Piece
    right: Piece
    on: float

    def __post_init__(self) -> None:
        if bool(self._third.any()) and (self.left[0], self.right[0]) != (0.0, 0.0):
            raise ValueError(f"{self.op_type} {self.node!r}: a value of its own at the threshold needs constant pieces")

    @property
    def _third(self) -> Array:
        """Where `on` is the value of neither piece."""
        ends = [np.asarray(slope * self.at + offset) for slope, offset in (self.left, self.right)]
        return np.asarray((ends[0] != self.on) & (ends[1] != self.on))

    @staticmethod
    def _piece(piece: Piece, z: Tensor) -> Tensor:
        slope, offset = piece
        return slope * z + offset if slope else torch.full_like(z, offset)

    def forward(self, *xs: Tensor) -> Tensor:
        z = xs[0]
        at, left, right = self.tensor("at", z), self._piece(self.left, z), self._piece(self.right, z)
        y = torch.where(z > at, right, torch.where(z < at, left, torch.full_like(z, self.on)))
        if not (torch.is_grad_enabled() and z.requires_grad):
            return y
        # the gradient of the jump smoothed out, so that an attack feels on which side it is and how far away the other one is
        d = z - at
        smooth = (right - left).detach() * d / (2 * (1 + d.abs()))
        return y + (smooth - smooth.detach())

    def _corners(self, lower: Tensor, upper: Tensor) -> _Corners:
        at, room = self.tensor("at", lower), self.tensor("room", lower)
        # which pieces it reaches; both where an end is no number
        proper = lower <= upper
        before, behind = ~(lower > at + room) | ~proper, ~(upper < at - room) | ~proper
        p, q = torch.maximum(lower, at - room), torch.minimum(upper, at + room)
        both, on = before & behind, torch.full_like(lower, self.on)
        left, right = ([self._piece(piece, z) for z in (lower, upper, p, q)] for piece in (self.left, self.right))
        # at the ends one piece; the others are there where the overlap reaches an end
        start, end = torch.where(before, left[0], right[0]), torch.where(behind, right[1], left[1])
        at_p, at_q = (torch.stack([left[k], right[k], on]) for k in (2, 3))
        least = [start, torch.where(both, at_p.amin(0), start), torch.where(both, at_q.amin(0), end), end]
        most = [start, torch.where(both, at_p.amax(0), start), torch.where(both, at_q.amax(0), end), end]
        return _Corners([lower, torch.where(both, p, lower), torch.where(both, q, upper), upper], least, most, before, behind)

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        zero = torch.zeros_like(lower)
        return self.line_error(lower, upper, zero, zero)

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        found = self._corners(lower, upper)
        return found.before ^ found.behind

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        found, flat, zero = self._corners(lower, upper), slope == 0, torch.zeros_like(lower)
        lines = [torch.where(flat, zero, slope * z) + offset for z in found.places]
        low = torch.stack([y - line for y, line in zip(found.least, lines, strict=True)])
        high = torch.stack([y - line for y, line in zip(found.most, lines, strict=True)])
        low, high = (t.nan_to_num(nan=s * math.inf, posinf=math.inf, neginf=-math.inf) for t, s in ((low, -1), (high, 1)))
        sizes = [y.abs() + line.abs() for ys in (found.least, found.most) for y, line in zip(ys, lines, strict=True)]
        size = torch.stack(sizes).nan_to_num(nan=0.0, posinf=0.0).amax(0)
        # constants against a constant are exact
        exact = flat & (offset == 0) & ((self.left[0], self.right[0]) == (0.0, 0.0))
        return Curve.widened(low.amin(0), high.amax(0), torch.where(exact, zero, size))

    def _edge(self, places: Sequence[Tensor], values: Sequence[Tensor], least: Tensor, sign: float) -> Tensor:
        """The slope of the hull's edge over the middle: of all chords over it the highest (sign 1) or the lowest."""
        middle = places[0] / 2 + places[-1] / 2
        best, slope = torch.full_like(middle, -math.inf), torch.zeros_like(middle)
        for i in range(len(places)):
            for j in range(i + 1, len(places)):
                gap = places[j] - places[i]
                over = (places[i] <= middle) & (places[j] >= middle) & (gap > least) & torch.isfinite(gap)
                rise = (values[j] - values[i]) / torch.where(over, gap, torch.ones_like(gap))
                height = sign * (values[i] + rise * (middle - places[i]))
                better = over & (height > best)
                best, slope = torch.where(better, height, best), torch.where(better, rise, slope)
        return slope

    @staticmethod
    def _ends(places: Sequence[Tensor], values: Sequence[Tensor], least: Tensor) -> tuple[Tensor, Tensor]:
        """The slopes of the lower hull's first and last edge."""
        found = []
        for k, rest, sign in ((0, (1, 2, 3), 1.0), (3, (0, 1, 2), -1.0)):
            slope = torch.full_like(least, math.inf)
            for i in rest:
                gap = sign * (places[i] - places[k])
                rise = (values[i] - values[k]) / torch.where(gap > least, gap, torch.ones_like(gap))
                slope = torch.where(gap > least, torch.minimum(slope, rise), slope)
            found.append(sign * torch.where(torch.isfinite(slope), slope, torch.zeros_like(slope)))
        return found[0], found[1]

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        """Only the slopes are chosen here; offsets come from `line_error`. `alpha` turns the lower line from the slope of the first
        edge of its hull to that of the last one."""
        check_mode(mode)
        found, zero = self._corners(lower, upper), torch.zeros_like(lower)
        least = _NARROW * (1 + torch.maximum(lower.abs(), upper.abs()))
        alone = torch.where(found.before, zero + self.left[0], zero + self.right[0])
        stable = found.before ^ found.behind
        if mode == "fastlin" and alpha is None:
            width = upper - lower
            wide = (width > least) & torch.isfinite(width)
            rise = (found.most[3] - found.least[0]) / torch.where(wide, width, torch.ones_like(width))
            above = below = torch.where(stable, alone, torch.where(wide, rise, zero))
        else:
            above = torch.where(stable, alone, self._edge(found.places, found.most, least, 1.0))
            if alpha is None:
                turned = self._edge(found.places, found.least, least, -1.0)
            else:
                first, last = self._ends(found.places, found.least, least)
                turned = first + alpha * (last - first)
            below = torch.where(stable, alone, turned)
        low, high = self.line_error(lower, upper, below, zero)[0], self.line_error(lower, upper, above, zero)[1]
        # one line, exact but for what multiplying rounds
        offset = torch.where(found.before, zero + self.left[1], zero + self.right[1])
        low, high = torch.where(stable, offset, low), torch.where(stable, offset, high)
        return Elementwise(below, low, above, high)

    def tangent(self, z: Tensor) -> tuple[Tensor, Tensor]:
        at, zero = self.tensor("at", z), torch.zeros_like(z)
        slope = torch.where(z > at, zero + self.right[0], torch.where(z < at, zero + self.left[0], zero))
        with torch.no_grad():
            return slope, self.forward(z) - slope * z

    def middle(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Beside the jump, so that one side at least has none."""
        at = self.tensor("at", lower)
        reach = self.tensor("room", lower) + _APART * (1 + at.abs())
        before, behind = at - reach, at + reach
        found = torch.where(before > lower, before, torch.where(behind < upper, behind, lower / 2 + upper / 2))
        return found.expand_as(lower)

    def grain(self, z: Tensor) -> Tensor:
        # rounding as a rule is far below its bound
        return (_GRAIN * self.tensor("room", z)).expand_as(z)

    def roomier(self, error: Array) -> Jump:
        return replace(self, room=np.asarray(error + self.room))

    def passed_on(self, error: Tensor, size: Tensor) -> Tensor:
        steepest = max(abs(self.left[0]), abs(self.right[0]))
        return (steepest * error if steepest else torch.zeros_like(error)) + 2.0**-23 * size

    def take(self, index: Array, *, node: str, inputs: tuple[str, ...], output: str) -> Jump:
        shape, parts = (len(index),), [self._flat(v)[index] for v in (self.at, self.room)]
        return replace(
            self, node=node, inputs=inputs, output=output, in_shapes=(shape,), out_shape=shape, at=parts[0], room=parts[1]
        )

    def encode_units(self, encoder: Encoder, z: LinExpr, lower: Array, upper: Array) -> LinExpr:
        """Per unit that may be on either side a binary s, 1 on the right:

            z <= at + room + s (u - at - room),   z >= l + s (at - room - l),   y = left(z) + s (right(z) - left(z))

        The product of s and z is bounded as for a Relu (nothing where the pieces are parallel), and by the lines of `relax`. A unit
        with a value of its own at the threshold has two: `y = left + s (on - left) + t (right - on)`, t <= s.
        """
        at, room, third = (self._flat(v) for v in (self.at, self.room, self._third))
        before, behind = ~(lower > at + room), ~(upper < at - room)
        open_ = before & behind
        slope, offset = (np.where(open_, 0.0, np.where(before, self.left[k], self.right[k])) for k in (0, 1))
        y, units = z.scale(slope).shift(offset), np.flatnonzero(open_)
        bounded = np.isfinite(lower[units]) & np.isfinite(upper[units]) & np.isfinite(room[units])
        free, units = units[~bounded], units[bounded]
        if len(free):  # without ends there is no switch
            part = self.take(free, node=self.node, inputs=self.inputs, output=self.output)
            low, high = (t[0].numpy() for t in part.interval((_row(lower[free]), _row(upper[free]))))
            y = y + encoder.continuous(low, high).spread(free, len(y))
        if not len(units):
            return y
        l, u, first, last = lower[units], upper[units], (at - room)[units], (at + room)[units]
        zu = encoder.variables(z.take(units), l, u)

        def switch(which: Array) -> LinExpr:
            s, zs = encoder.binary(len(which)), zu.take(which)
            encoder.rows(zs - s.scale((u - np.minimum(u, last))[which]), -np.inf, np.minimum(u, last)[which])
            encoder.rows(zs - s.scale((np.maximum(l, first) - l)[which]), l[which], np.inf)
            return s

        s = switch(np.arange(len(units)))
        own = np.flatnonzero(third[units])
        step, rise = self.right[0] - self.left[0], self.right[1] - self.left[1]
        if step == 0:  # so are all that have a value of their own
            jump = np.full(len(units), rise)
            jump[own] = self.on - self.left[1]
            found = zu.scale(np.full(len(units), self.left[0])).shift(np.full(len(units), self.left[1])) + s.scale(jump)
            if len(own):
                t = switch(own)
                encoder.rows(s.take(own) - t, 0.0, np.inf)
                found = found + t.scale(np.full(len(own), self.right[1] - self.on)).spread(own, len(units))
            return y + found.spread(units, len(y))
        part, box = self.take(units, node=self.node, inputs=self.inputs, output=self.output), (_row(l), _row(u))
        lines, (low, high) = part.relax(*box, "crown"), (t[0].numpy() for t in part.interval(box))
        found = encoder.continuous(low, high)
        ends = np.stack([step * l + rise, step * u + rise])
        most, least = np.maximum(ends.max(0), 0.0), np.minimum(ends.min(0), 0.0)
        for (k, c), sign in ((self.left, 1.0), (self.right, -1.0)):
            # within s (left), or 1 - s (right), of what the other piece is away
            gap = found - zu.scale(np.full(len(units), k))
            up, down = (most, least) if sign > 0 else (-least, -most)
            room_up, room_down = (np.zeros(len(units)), np.zeros(len(units))) if sign > 0 else (up, down)
            encoder.rows(gap - s.scale(sign * up), -np.inf, c + room_up)
            encoder.rows(gap - s.scale(sign * down), c + room_down, np.inf)
        for kind, (k_, c_) in ((1.0, (lines.upper_slope, lines.upper_offset)), (-1.0, (lines.lower_slope, lines.lower_offset))):
            signs = np.full(len(units), kind)
            encoder.rows((found - zu.scale(k_[0].numpy())).scale(signs), -np.inf, kind * c_[0].numpy())
        return y + found.spread(units, len(y))

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """Comparisons and Where."""
        rank = len(self.in_shapes[0])
        at = writer.weight(output, "threshold", leading(np.asarray(self.at), rank))
        found = []
        for name, (slope, offset) in (("left", self.left), ("right", self.right)):
            value = writer.weight(output, f"{name} offset", np.asarray(offset))
            if slope:
                factor = writer.weight(output, f"{name} slope", np.asarray(slope))
                line = inputs[0] if slope == 1 else writer.step("Mul", (inputs[0], factor), output, f"{name} scaled")
                value = writer.step("Add", (line, value), output, name) if offset else line
            found.append(value)
        above = writer.step("Greater", (inputs[0], at), output, "above")
        below = writer.step("Less", (inputs[0], at), output, "below")
        rest = writer.step("Where", (below, found[0], writer.weight(output, "on", np.asarray(self.on))), output, "rest")
        writer.node("Where", (above, found[1], rest), output)


def _row(values: Array) -> Tensor:
    return torch.as_tensor(np.array(values, dtype=np.float64)).unsqueeze(0)
