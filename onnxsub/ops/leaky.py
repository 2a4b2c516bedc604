"""LeakyRelu, PRelu and Abs: two linear pieces that meet at 0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Activation, Array, Box
from onnxsub.ops.broadcast import of_sample, only_variable, required
from onnxsub.ops.node import Node
from onnxsub.ops.relaxation import Elementwise, check_mode
from onnxsub.ops.relu import relu_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Leaky", "read_abs", "read_leaky_relu", "read_prelu"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Leaky(Activation):
    """`y = z` for z >= 0 and `slope z` for z < 0, which is convex for slope <= 1 and concave for slope >= 1.

    On an interval round 0 one bound is the chord; the other is a line through the kink, whose slope may lie anywhere between
    the slopes of the two pieces. `alpha` says where: `slope + alpha (1 - slope)`.

    Attributes:
        slope: broadcastable to `in_shape`; any finite numbers (-1: Abs).
    """

    slope: Array

    @property
    def takes_alpha(self) -> bool:
        return True

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.where(xs[0] >= 0, xs[0], self.tensor("slope", xs[0]) * xs[0])

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        values = torch.stack([self.forward(z) for z in self._corners(lower, upper)])
        return values.amin(0), values.amax(0)

    @staticmethod
    def _corners(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return lower, upper, torch.zeros_like(lower).clamp(min=lower, max=upper)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        check_mode(mode)
        n = self.tensor("slope", lower)
        unstable = (lower < 0) & (upper > 0)
        one, zero = torch.ones_like(lower), torch.zeros_like(lower)
        stable = torch.where(lower >= 0, one, n)
        convex = n <= 1
        # halves: the width of an interval may overflow where its ends do not; quotients first: products may underflow
        width = torch.where(unstable, upper / 2 - lower / 2, one)
        chord = torch.where(unstable, (upper / 2 - n * (lower / 2)) / width, stable)
        offset = torch.where(unstable, upper * (lower / 2 / width) * (n - 1), zero)
        lost = ~(torch.isfinite(chord) & torch.isfinite(offset))
        lower_offset, upper_offset = torch.where(convex, zero, offset), torch.where(convex, offset, zero)
        if bool(lost.any()):  # no chord, but the smallest or the largest value there is
            parallel = alpha is None and mode == "fastlin"
            chord = torch.where(lost, zero, chord)
            least, most = self.interval((lower, upper))
            lower_offset = torch.where(lost if parallel else lost & ~convex, least, lower_offset)
            upper_offset = torch.where(lost if parallel else lost & convex, most, upper_offset)
        if alpha is None and mode == "fastlin":
            return Elementwise(chord, lower_offset, chord, upper_offset)
        turned = torch.where(upper > -lower, one, n) if alpha is None else n + alpha * (1 - n)
        turned = torch.where(unstable, turned, stable)
        return Elementwise(torch.where(convex, turned, chord), lower_offset, torch.where(convex, chord, turned), upper_offset)

    def tangent(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(z > 0, torch.ones_like(z), self.tensor("slope", z)), torch.zeros_like(z)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        # piecewise linear: the extremes are at the ends and at the kink
        errors = torch.stack([self.forward(z) - slope * z - offset for z in self._corners(lower, upper)])
        return errors.amin(0), errors.amax(0)

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        n = self.tensor("slope", lower)
        one, proper = torch.ones_like(lower), lower <= upper  # not where an end is no number
        on, off = proper & (lower >= 0), proper & (upper <= 0) & (lower < 0)
        low, high = torch.minimum(one, n), torch.maximum(one, n)
        return torch.where(on, one, torch.where(off, n, low)), torch.where(on, one, torch.where(off, n, high))

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower >= 0) | (upper <= 0) | (self.tensor("slope", lower) == 1)

    def take(self, index: Array, *, node: str, inputs: tuple[str, ...], output: str) -> Leaky:
        shape = (len(index),)
        slope = np.broadcast_to(self.slope, self.in_shapes[0]).reshape(-1)[index]
        return replace(self, node=node, inputs=inputs, output=output, in_shapes=(shape,), out_shape=shape, slope=slope)

    def encode_units(self, encoder: Encoder, z: LinExpr, lower: Array, upper: Array) -> LinExpr:
        # y = slope z + (1 - slope) max(0, z); where the slope is 1 no binary is needed: pretend that the unit is stable
        slope = np.broadcast_to(self.slope, self.in_shapes[0]).reshape(-1).astype(np.float64)
        rows = relu_rows(encoder, z, np.where(slope == 1, 0.0, lower), upper)
        return z.scale(slope) + rows.scale(1 - slope)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """Abs, LeakyRelu or PRelu, whichever says it in the simplest way that readers know."""
        slope = np.broadcast_to(self.slope, self.out_shape).astype(np.float64)
        first = float(slope.flat[0])
        if (slope == -1.0).all():
            writer.node("Abs", inputs, output)
        elif writer.dtype == np.float64:
            # onnxruntime has neither LeakyRelu nor PRelu in float64: slope z + (1 - slope) max(0, z)
            relu = writer.step("Relu", inputs, output, "relu")
            bent = writer.step("Mul", (relu, writer.weight(output, "bend", 1.0 - slope)), output, "bent")
            line = writer.step("Mul", (inputs[0], writer.weight(output, "slope", slope)), output, "line")
            writer.node("Add", (bent, line), output)
        elif (slope == first).all() and float(np.float32(first)) == first:
            writer.node("LeakyRelu", inputs, output, alpha=first)
        else:
            writer.node("PRelu", (inputs[0], writer.weight(output, "slope", slope)), output)


def read_leaky_relu(node: Node) -> tuple[Leaky, ...]:
    """`alpha z` for z < 0; alpha is 0.01 where it is left out."""
    return (Leaky(**node.common(), slope=np.array(float(node.attributes.get("alpha", 0.01)))),)


def read_prelu(node: Node) -> tuple[Leaky, ...]:
    """`slope z` for z < 0, with a constant slope per element, broadcast."""
    rank = len(node.shapes[only_variable(node)])
    slope = of_sample(node, required(node, 1, "the slope"), rank)
    common = node.common()
    if np.broadcast_shapes(slope.shape, common["in_shapes"][0]) != common["in_shapes"][0]:
        raise node.refuse(f"a slope of shape {list(slope.shape)} is wider than the tensor")
    return (Leaky(**common, slope=slope),)


def read_abs(node: Node) -> tuple[Leaky, ...]:
    """`|z|`."""
    return (Leaky(**node.common(), slope=np.array(-1.0)),)
