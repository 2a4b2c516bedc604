r"""Convex functions: the exponential, the square, and the odds by which scores become outputs of a network.

A chord bounds a convex function from above and a tangent from below; both touch it where the interval is one point. So a tree
that splits these units too decides about softmax scores and Euclidean norms as it does about logits.
"""

from __future__ import annotations

import abc
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

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Convex", "Exp", "Odds", "Square"]

_NARROW = 1e-6
"""On shorter intervals, relative to their ends, a difference quotient loses its digits; the slope at the middle serves."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Convex(Curve, abc.ABC):
    """A convex `s`."""

    unsupported: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"milp": "it is not piecewise linear, so no linear program decides about it; choose --verifier bab"}
    )

    @abc.abstractmethod
    def stationary(self, slope: Tensor) -> Tensor:
        """A z with `s'(z) = slope`, any finite number where there is none."""

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        zero = torch.zeros_like(lower)
        return self.line_error(lower, upper, zero, zero)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        # s(z) - line(z) is convex: largest at an end, smallest where s' equals the slope, or at the end that is nearer to it
        points = (lower, upper, self.stationary(slope).clamp(min=lower, max=upper))
        # a flat line has no term in z, not even where z is infinite
        flat, zero = slope == 0, torch.zeros_like(lower)
        errors = torch.stack([self.forward(p) - torch.where(flat, zero, slope * p) - offset for p in points])
        ends = torch.where(flat, zero, slope.abs() * torch.maximum(lower.abs(), upper.abs()))
        size = 1 + offset.abs() + ends + torch.maximum(self.forward(lower), self.forward(upper)).abs()
        return self.widened(errors.amin(0), errors.amax(0), size)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        """The chord above, the tangent at the middle below; `fastlin`: the chord and its parallel tangent.

        Only the slopes are chosen here. The offsets come from `line_error`, so the lines are sound whatever the slopes.
        """
        check_mode(mode)
        middle, width = (lower + upper) / 2, upper - lower
        narrow = width <= _NARROW * (1 + torch.maximum(lower.abs(), upper.abs()))
        rise = self.forward(upper) - self.forward(lower)
        at_middle = self.derivative(middle)
        above = torch.where(narrow, at_middle, rise / torch.where(narrow, torch.ones_like(width), width))
        zero = torch.zeros_like(lower)
        # where the chord or the middle is none, any slope is sound
        above, at_middle = (torch.where(torch.isfinite(t), t, zero) for t in (above, at_middle))
        high = self.line_error(lower, upper, above, zero)
        if mode == "fastlin":
            return Elementwise(above, high[0], above, high[1])
        return Elementwise(at_middle, self.line_error(lower, upper, at_middle, zero)[0], above, high[1])

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        return outward(self.derivative(lower), self.derivative(upper), lower <= upper)  # s' does not fall


@dataclass(frozen=True, eq=False, kw_only=True)
class Exp(Convex):
    """`exp(z)`."""

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.exp(xs[0])

    def derivative(self, z: Tensor) -> Tensor:
        return torch.exp(z)

    def stationary(self, slope: Tensor) -> Tensor:
        return slope.clamp(min=torch.finfo(slope.dtype).tiny).log()

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.node("Exp", inputs, output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Odds(Convex):
    """`exp(z)` for `z <= 0` and `1 + z` above: the exponential as far as sums of it that stay below 1 are concerned.

    `sum_t Odds(z_t) < 1` and `sum_t exp(z_t) < 1` say the same, since each says that all z are negative; no bound of it overflows.
    """

    def forward(self, *xs: Tensor) -> Tensor:
        z = xs[0]
        return torch.exp(z.clamp(max=0)) + z.clamp(min=0)

    def derivative(self, z: Tensor) -> Tensor:
        return torch.exp(z.clamp(max=0))

    def stationary(self, slope: Tensor) -> Tensor:
        return slope.clamp(min=torch.finfo(slope.dtype).tiny, max=1).log()

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        above = writer.step("Relu", inputs, output, "above")
        below = writer.step("Sub", (inputs[0], above), output, "below")
        writer.node("Add", (writer.step("Exp", (below,), output, "exp"), above), output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Square(Convex):
    """`z^2`."""

    def forward(self, *xs: Tensor) -> Tensor:
        return xs[0].square()

    def derivative(self, z: Tensor) -> Tensor:
        return 2 * z

    def stationary(self, slope: Tensor) -> Tensor:
        return slope / 2

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.node("Mul", inputs * 2, output)
