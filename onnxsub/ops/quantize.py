r"""Rounding to the steps of a quantiser: `y = step clip(round(z / step), low - zero, high - zero)`, or the integers themselves.

The value is a staircase: `m = round(z / step)`, half to even, within its limits. Everything else here speaks of a *relation*: with
t = z / step, m may be any integer of the limits within `1/2 + room` of t. Where float32 rounds t by less than `room`, whatever it
makes of a t near the middle between two integers is in there, so intervals, lines and rows hold for every execution.

On [a, b] (of t) the largest m begins at `t_j = j - 1/2 - room` for each j, so the corners `(t_j, j)` lie on one line of slope 1. An
upper line through the last corner has any slope from 0 to the one that leaves the value at a below it; lower lines likewise.

A staircase that jumps elsewhere (`stairs.py`) is *ahead*: m lies within `1/2 + room` of `t - ahead`, and all of the above is moved
by that. Nothing is subtracted from t before it is rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onnxsub.ops.base import Array, Box
from onnxsub.ops.jumping import Jumping
from onnxsub.ops.quantize_onnx import Steps
from onnxsub.ops.relaxation import Elementwise, check_mode

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Quantise"]

_STEEPEST = 32.0
"""Slopes of lines, in steps per step: steeper ones lose more digits than they are worth."""

_APART = 2.0**-19
"""How far beside a jump a unit is split, relative to t: ends at rest are rounded to float32."""

_GRAIN = 0.1
"""Share of the room within which two pre-activations count as the same."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantise(Jumping):
    """`m + zero` where the file stores integers, `step m` where it goes on with real numbers.

    Attributes:
        step, zero: broadcastable to the shape; zero holds integers.
        low, high: the limits of `m + zero`; infinite for Round, which has none.
        stored: whether y is `m + zero`, an integer tensor of the file.
        room: in steps: by how much an executed t may differ from the real one.
    """

    ahead: ClassVar[float] = 0.0
    """In steps: how far above the middle between two integers the jump from one to the other is. It and `1/2 - ahead` are exact."""

    step: Array
    zero: Array
    low: float
    high: float
    stored: bool

    @property
    def least(self) -> Array:
        """The smallest m."""
        return self.low - self.zero

    @property
    def most(self) -> Array:
        """The largest m."""
        return self.high - self.zero

    @property
    def unit(self) -> Array:
        """What y rises by per step."""
        return np.ones(()) if self.stored else self.step

    @property
    def shift(self) -> Array:
        """y at m = 0."""
        return self.zero if self.stored else np.zeros(())

    def _written(self, m: Tensor) -> Tensor:
        return self.tensor("unit", m) * m + self.tensor("shift", m)

    def _within(self, m: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(m, self.tensor("least", m)), self.tensor("most", m))

    def _nearest(self, t: Tensor) -> Tensor:
        """The integer that an exact t is rounded to."""
        return torch.round(t)

    def _reach(self, sign: float) -> float:
        """How far above t (sign 1) or below it (-1) an integer may lie that t is rounded to, without the room."""
        return 0.5 - sign * self.ahead

    def _highest(self, t: Tensor) -> Tensor:
        """The largest m that an execution may take."""
        return self._within(torch.floor(t + self._reach(1.0) + self.tensor("room", t)))

    def _lowest(self, t: Tensor) -> Tensor:
        return self._within(torch.ceil(t - self._reach(-1.0) - self.tensor("room", t)))

    def _ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`a`, `b`, the smallest and the largest m."""
        step = self.tensor("step", lower)
        a, b = lower / step, upper / step
        return a, b, self._lowest(a), self._highest(b)

    def forward(self, *xs: Tensor) -> Tensor:
        z = xs[0]
        t = z / self.tensor("step", z)
        y = self._written(self._within(self._nearest(t)))
        if not (torch.is_grad_enabled() and z.requires_grad):
            return y
        # straight through: the gradient is that of the line which the steps follow, and 0 beyond the limits
        line = self._written(self._within(t - self.ahead))
        return y.detach() + (line - line.detach())

    def interval(self, *boxes: Box) -> Box:
        _, _, low, high = self._ends(*boxes[0])
        return self._written(low), self._written(high)

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        _, _, low, high = self._ends(lower, upper)
        return (low == high) & (lower <= upper)

    def _corners(self, a: Tensor, b: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Steepest slope, t and m of the corner that lines turn about: of the upper lines, and of the lower ones."""
        found = []
        for sign, near, start in ((1.0, self._highest(a), a), (-1.0, self._lowest(b), b)):
            far = self._highest(b) if sign > 0 else self._lowest(a)
            corner = far - sign * (self._reach(sign) + self.tensor("room", a))
            rise, run = sign * (far - near), sign * (corner - start)
            slope = torch.where(run > 0, rise / torch.where(run > 0, run, torch.ones_like(run)), torch.full_like(run, _STEEPEST))
            # two jumps or more: their corners lie on a line of slope 1
            slope = torch.minimum(slope, torch.where(rise > 1, 1.0, _STEEPEST))
            found.append((torch.where(rise > 0, slope, torch.zeros_like(slope)), corner, far))
        return found[0], found[1]

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        """`crown`: of each side's steepest and flat line the one that is better at the middle. `alpha` turns the lower line, or the
        upper one of a unit that reaches its largest value and not its smallest."""
        check_mode(mode)
        a, b, low, high = self._ends(lower, upper)
        (above, top, m_top), (below, bottom, m_bottom) = self._corners(a, b)
        zero = torch.zeros_like(a)
        if alpha is None and mode == "fastlin":
            above = below = torch.minimum(above, below)
        else:
            middle = (a + b) / 2
            flat_above, flat_below = middle >= top, middle <= bottom
            saturated = (b > self.tensor("most", a)) & (a >= self.tensor("least", a))
            best_above, best_below = torch.where(flat_above, zero, above), torch.where(flat_below, zero, below)
            if alpha is not None:
                best_above = torch.where(saturated, alpha * above, best_above)
                best_below = torch.where(saturated, best_below, alpha * below)
            above, below = best_above, best_below
        fixed = low == high
        ends = (above, m_top - above * top, below, m_bottom - below * bottom)
        finite = torch.stack([torch.isfinite(e) for e in ends]).all(0)
        # flat lines where a unit is constant, and at the smallest and largest value where an end is infinite
        flat = fixed | ~finite
        above = torch.where(flat, zero, above)
        below = above if mode == "fastlin" and alpha is None else torch.where(flat, zero, below)
        unit, shift = self.tensor("unit", a), self.tensor("shift", a)
        size = 1 + self._size(m_top, above, top) + self._size(m_bottom, below, bottom)
        slack = torch.where(fixed, zero, 16 * torch.finfo(a.dtype).eps * size)
        upper_offset = torch.where(flat, high, ends[1]) + torch.where(finite, slack, zero)
        lower_offset = torch.where(flat, low, ends[3]) - torch.where(finite, slack, zero)
        share = unit / self.tensor("step", a)
        upper_slope = share * above
        lower_slope = upper_slope if below is above else share * below
        return Elementwise(lower_slope, unit * lower_offset + shift, upper_slope, unit * upper_offset + shift)

    @staticmethod
    def _size(m: Tensor, slope: Tensor, t: Tensor) -> Tensor:
        return m.abs().nan_to_num(0.0, 0.0, 0.0) + slope.abs() * t.abs().nan_to_num(0.0, 0.0, 0.0)

    def tangent(self, z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return torch.zeros_like(z), self.forward(z)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        """The error is affine within a step, and from one step's end to the next one's. So the extremes are at the ends of the
        interval and at either side of the first and of the last jump."""
        step, room = self.tensor("step", lower), self.tensor("room", lower)
        flat, zero = slope == 0, torch.zeros_like(lower)

        def error(z: Tensor, m: Tensor) -> Tensor:
            return self._written(m) - torch.where(flat, zero, slope * z) - offset

        a, b, _, _ = self._ends(lower, upper)
        found = []
        for sign, value in ((1.0, self._highest), (-1.0, self._lowest)):
            first, last = value(a), value(b)
            errors = [error(lower, first), error(upper, last)]
            jumps = first < last
            for j in (first + 1, last):
                z = torch.minimum(torch.maximum(step * (j - self._reach(1.0) - sign * room), lower), upper)
                errors += [torch.where(jumps, error(z, m), errors[0]) for m in (j - 1, j)]
            both = torch.stack(errors)
            found.append(both.amax(0) if sign > 0 else both.amin(0))
        high, low = (e.nan_to_num(nan=s * math.inf, posinf=math.inf, neginf=-math.inf) for e, s in zip(found, (1, -1), strict=True))
        return low, high

    def middle(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Beside the jump nearest to the middle, so that one side at least has one jump less."""
        step, room, half = self.tensor("step", lower), self.tensor("room", lower), self._reach(-1.0)
        a, b, low, high = self._ends(lower, upper)
        # between low and high, each of which begins or ends half a step from the middle that is ahead
        jump = torch.minimum(torch.maximum(torch.floor((a + b) / 2 - self.ahead) + half, low + half), high - self._reach(1.0))
        reach = room + _APART * (1 + jump.abs())
        before, behind = jump - reach, jump + reach
        at = torch.where(before > a, before, torch.where(behind < b, behind, (a + b) / 2))
        return step * at

    def roomier(self, error: Array) -> Quantise:
        return replace(self, room=np.asarray(error / self.step + self.room))

    def passed_on(self, error: Tensor, size: Tensor) -> Tensor:
        return 2.0**-23 * size  # what it may jump is in the relation already

    def grain(self, z: Tensor) -> Tensor:
        # rounding as a rule is far below its bound
        return (_GRAIN * self.tensor("room", z) * self.tensor("step", z)).expand_as(z)

    def take(self, index: Array, *, node: str, inputs: tuple[str, ...], output: str) -> Quantise:
        shape = (len(index),)
        step, zero, room = (self._flat(v)[index] for v in (self.step, self.zero, self.room))
        return replace(
            self, node=node, inputs=inputs, output=output, in_shapes=(shape,), out_shape=shape, step=step, zero=zero, room=room
        )

    def encode_units(self, encoder: Encoder, z: LinExpr, lower: Array, upper: Array) -> LinExpr:
        """Per unit that is not constant an integer m in binary digits, `t - below <= m <= t + above`, and the steepest lines.

        Where t may lie beyond a limit, one binary more: s = 1 above the smallest m, as for a Clip,

            m <= t + above + (1 - s) (m_min - above - a),  m <= m_min + s (m_max - m_min),   above = 1/2 - ahead + room

        and likewise at the other end. So the rows are the relation itself, neither more nor less.
        """
        from onnxsub.ops.encoding import integers

        shape = self.in_shapes[0]
        box = tuple(torch.as_tensor(np.array(e)).reshape(1, *shape) for e in (lower, upper))
        a, b, low, high = (t.reshape(-1).numpy() for t in self._ends(box[0], box[1]))
        corners = self._corners(*(e / self.tensor("step", e) for e in box))
        unit, shift, step = (self._flat(v) for v in (self.unit, self.shift, self.step))
        open_ = ~(low == high)
        y = z.scale(np.zeros(len(z))).shift(np.where(open_, 0.0, unit * np.where(open_, 0.0, low) + shift))
        units = np.flatnonzero(open_)
        if len(units) == 0:
            return y
        bounded = np.isfinite(a[units]) & np.isfinite(b[units]) & np.isfinite(low[units]) & np.isfinite(high[units])
        free, units = units[~bounded], units[bounded]
        if len(free):  # what has no end has no digits
            ends = (unit[free] * e[free] + shift[free] for e in (low, high))
            y = y + encoder.continuous(*ends).spread(free, len(y))
        if len(units) == 0:
            return y
        a, b, low, high, room = a[units], b[units], low[units], high[units], self._flat(self.room)[units]
        t = encoder.variables(z.take(units).scale(1 / step[units]), a, b)

        m = integers(encoder, low, high)
        gap = m - t
        for sign, near, far, end in ((1.0, low, high, a), (-1.0, high, low, b)):
            edge = self._reach(sign) + room
            beyond = sign * (near - end) > edge  # t may lie beyond the limit that m has on this side
            plain, cut = np.flatnonzero(~beyond), np.flatnonzero(beyond)
            if len(plain):
                encoder.rows(gap.take(plain).scale(np.full(len(plain), sign)), -np.inf, edge[plain])
            if len(cut):
                signs, reach = np.full(len(cut), sign), (sign * (near - end) - edge)[cut]
                switch = encoder.binary(len(cut))
                encoder.rows(gap.take(cut).scale(signs) + switch.scale(reach), -np.inf, edge[cut] + reach)
                rise = (sign * (far - near))[cut]
                encoder.rows(m.take(cut).scale(signs) - switch.scale(rise), -np.inf, sign * near[cut])
        for sign, parts in ((1.0, corners[0]), (-1.0, corners[1])):
            slope, at, value = (p.reshape(-1).numpy()[units] for p in parts)
            signs = np.full(len(units), sign)
            end = sign * (value - slope * at)
            encoder.rows((m - t.scale(slope)).scale(signs), -np.inf, end + 1e-12 * (1 + np.abs(end) + slope * np.abs(at)))
        return y + m.scale(unit[units]).shift(shift[units]).spread(units, len(y))

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        if math.isinf(self.low):
            writer.node("Round", inputs, output)
        else:
            steps = Steps(self.step, self.zero, self.low, self.high, self.stored, len(self.in_shapes[0]))
            steps.to_onnx(writer, inputs[0], output)
