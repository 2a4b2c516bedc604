"""Clip: `y = min(max(z, lo), hi)`, either end possibly infinite."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Activation, Array, Box
from onnxsub.ops.broadcast import only_variable, required
from onnxsub.ops.movement import Reshape
from onnxsub.ops.node import Node
from onnxsub.ops.relaxation import Elementwise, check_mode

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Clip", "read_clip"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip(Activation):
    """`min(max(z, lo), hi)` with `lo <= hi`, not both infinite. Relu6 is lo = 0, hi = 6.

    On [l, u] with `p = max(l, lo) < q = min(u, hi)` (the part where it is the identity), every line through (q, s(q)) with a
    slope from 0 to (q - p) / (q - l) is above, every line through (p, s(p)) with a slope from 0 to (q - p) / (u - p) below. A
    side without a kink has one best line, the chord, which is the steepest of these.
    """

    lo: float
    hi: float

    @property
    def takes_alpha(self) -> bool:
        return True

    def forward(self, *xs: Tensor) -> Tensor:
        return xs[0].clamp(self.lo, self.hi)

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        return self.forward(lower), self.forward(upper)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        check_mode(mode)
        one, zero = torch.ones_like(lower), torch.zeros_like(lower)
        p, q = lower.clamp(min=self.lo), upper.clamp(max=self.hi)
        inside = (lower >= self.lo) & (upper <= self.hi)
        kinked = ~self.affine_on(lower, upper)
        # where a unit is affine, any finite numbers serve until the last line replaces them
        p, q = torch.where(kinked, p, zero), torch.where(kinked, q, one)
        above = torch.where(kinked, (q - p) / torch.where(kinked, q - lower, one), inside.to(lower.dtype))
        below = torch.where(kinked, (q - p) / torch.where(kinked, upper - p, one), inside.to(lower.dtype))
        has_low, has_high = kinked & (lower < self.lo), kinked & (upper > self.hi)
        if alpha is None and mode == "fastlin":
            above = below = torch.minimum(above, below)
        elif alpha is None:
            # steepest or flat, whichever leaves less between the line and the function
            middle = (lower + upper) / 2
            above = torch.where(has_high & (middle >= q), zero, above)
            below = torch.where(has_low & (middle <= p), zero, below)
        else:
            above = torch.where(has_high & ~has_low, alpha * above, above)
            below = torch.where(has_low, alpha * below, below)
        constant = torch.where(inside, zero, self.forward(lower))
        upper_offset = torch.where(kinked, q - above * q, constant)
        lower_offset = torch.where(kinked, p - below * p, constant)
        ends = (above, upper_offset, below, lower_offset)
        if not all(bool(torch.isfinite(t).all()) for t in ends):  # flat lines, at the smallest and the largest value there is
            lost = ~torch.stack([torch.isfinite(t) for t in ends]).all(0)
            above, below = torch.where(lost, zero, above), torch.where(lost, zero, below)
            upper_offset = torch.where(lost, self.forward(upper), upper_offset)
            lower_offset = torch.where(lost, self.forward(lower), lower_offset)
            if mode == "fastlin" and alpha is None:
                above = below
        return Elementwise(below, lower_offset, above, upper_offset)

    def tangent(self, z: Tensor) -> tuple[Tensor, Tensor]:
        inside = (z > self.lo) & (z <= self.hi)
        return inside.to(z.dtype), torch.where(inside, torch.zeros_like(z), self.forward(z))

    def kinks(self, like: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.full_like(like, k) for k in (self.lo, self.hi) if math.isfinite(k))

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        proper = lower <= upper  # not where an end is no number
        flat = (proper & ((upper <= self.lo) | (lower >= self.hi))) | (self.lo == self.hi)
        inside = proper & (lower >= self.lo) & (upper <= self.hi) & ~flat
        return inside.to(lower.dtype), (~flat).to(lower.dtype)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        # piecewise linear: the extremes are at the ends and at the kinks
        kinks = [torch.full_like(lower, k).clamp(min=lower, max=upper) for k in (self.lo, self.hi)]
        errors = torch.stack([self.forward(z) - slope * z - offset for z in (lower, upper, *kinks)])
        return errors.amin(0), errors.amax(0)

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        inside = (lower >= self.lo) & (upper <= self.hi)
        return inside | (upper <= self.lo) | (lower >= self.hi) | (self.lo == self.hi)

    def take(self, index: Array, *, node: str, inputs: tuple[str, ...], output: str) -> Clip:
        shape = (len(index),)
        return replace(self, node=node, inputs=inputs, output=output, in_shapes=(shape,), out_shape=shape)

    def encode_units(self, encoder: Encoder, z: LinExpr, lower: Array, upper: Array) -> LinExpr:
        """Per kink inside (l, u) one binary; with p = max(l, lo), q = min(u, hi), a = 1 above lo, b = 1 above hi: p <= y <= q and

            y <= z + (lo - l) (1 - a),  y <= lo + (q - lo) a      (y <= z without a kink at lo)
            y >= z - (u - hi) b,        y >= hi - (hi - p) (1 - b)      (y >= z without a kink at hi)

        Without integrality these are the chords of `relax`: nothing tighter is linear.
        """
        inside = (lower >= self.lo) & (upper <= self.hi)
        fixed = (upper <= self.lo) | (lower >= self.hi) | (self.lo == self.hi)
        y = z.scale((inside & ~fixed).astype(np.float64)).shift(np.where(fixed, np.clip(lower, self.lo, self.hi), 0.0))
        units = np.flatnonzero(~inside & ~fixed)
        if len(units) == 0:
            return y
        l, u = lower[units], upper[units]
        p, q = np.maximum(l, self.lo), np.minimum(u, self.hi)
        zu = encoder.variables(z.take(units), l, u)
        yu = encoder.continuous(p, q)
        gap = yu - zu
        low, high = l < self.lo, u > self.hi
        for kinked, sign in ((low, 1.0), (high, -1.0)):
            # the rows for hi are those for lo with all signs turned round
            free, bent = np.flatnonzero(~kinked), np.flatnonzero(kinked)
            if len(free):
                encoder.rows(gap.take(free).scale(np.full(len(free), sign)), -np.inf, 0.0)
            if len(bent):
                kink = self.lo if sign > 0 else self.hi
                reach = kink - l[bent] if sign > 0 else u[bent] - kink
                rise = q[bent] - kink if sign > 0 else kink - p[bent]
                # switch: the unit has left the constant piece beyond this kink
                switch = encoder.binary(len(bent))
                signs = np.full(len(bent), sign)
                encoder.rows(gap.take(bent).scale(signs) + switch.scale(reach), -np.inf, reach)
                encoder.rows(yu.take(bent).scale(signs) - switch.scale(rise), -np.inf, sign * kink)
        return y + yu.spread(units, len(y))

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """Both ends are scalars; one that is infinite is left out."""
        ends = []
        for name, end in (("min", self.lo), ("max", self.hi)):
            ends.append(writer.weight(output, name, np.asarray(end)) if math.isfinite(float(end)) else "")
        while ends and not ends[-1]:
            ends.pop()
        writer.node("Clip", (inputs[0], *ends), output)


def read_clip(node: Node) -> tuple[Clip | Reshape, ...]:
    """Limits are attributes before opset 11. Without limits it is the identity; `min > max` gives `max` everywhere."""
    only_variable(node)
    limits = []
    for i, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        value = float(required(node, i, name).reshape(-1)[0]) if node.has(i) else float(node.attributes.get(name, default))
        if math.isnan(value):
            raise node.refuse(f"{name} is not a number")
        # the largest float32 is how old opsets, and exporters since, write "no limit"
        limits.append(math.copysign(math.inf, value) if abs(value) >= float(np.finfo(np.float32).max) else value)
    lo, hi = limits
    lo = min(lo, hi)
    if lo == -math.inf and hi == math.inf:
        return (Reshape(**node.common()),)
    if math.inf in (lo, -hi):
        raise node.refuse(f"limits {lo} and {hi}")
    return (Clip(**node.common(), lo=lo, hi=hi),)
