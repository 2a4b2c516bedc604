"""Sigmoid, Tanh, Softsign and Erf: odd round their value at 0, convex below it and concave above."""

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
from onnxsub.ops.node import Node
from onnxsub.ops.relaxation import Elementwise, check_mode

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Erf", "Sigmoid", "Smooth", "Softsign", "Tanh", "read_erf", "read_sigmoid", "read_softsign", "read_tanh"]

_STEPS = 40
"""Bisection steps for a tangent point. Soundness does not rest on it: see `Smooth.relax`."""

_NARROW = 1e-4
"""On shorter intervals a difference quotient loses its digits; the tangent at the middle serves as the chord."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Smooth(Curve, abc.ABC):
    """An S-shaped `s` with `s(-z) = 2 s(0) - s(z)`, `s''(z) z <= 0`."""

    unsupported: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"milp": "it is not piecewise linear; replace all its units (methods con and lin) or use a method without a MILP"}
    )

    @abc.abstractmethod
    def stationary(self, slope: Tensor) -> Tensor:
        """The `z >= 0` with `s'(z) = slope`; 0 for larger slopes than s has, some large number for `slope <= 0`."""

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        return self.widened(self.forward(lower), self.forward(upper), 1.0)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        # s(z) - line(z) has its extremes at the ends and where s' equals the slope; any other point inside does no harm
        z = self.stationary(slope)
        points = (lower, upper, z.clamp(min=lower, max=upper), (-z).clamp(min=lower, max=upper))
        # a flat line has no term in z, not even where z is infinite
        flat, zero = slope == 0, torch.zeros_like(lower)
        errors = torch.stack([self.forward(p) - torch.where(flat, zero, slope * p) - offset for p in points])
        size = 1 + offset.abs() + torch.where(flat, zero, slope.abs() * torch.maximum(lower.abs(), upper.abs()))
        return self.widened(errors.amin(0), errors.amax(0), size)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        """Only the slopes are chosen here. The offsets come from `line_error`, so the lines are sound whatever the slopes.

        `fastlin`: the smaller of the two end derivatives, for both lines. `crown`: the chord where it bounds, else the tangent
        from the other end, else (one-sided) the tangent at the middle (Zhang et al. 2018, table 2).
        """
        check_mode(mode)
        if mode == "fastlin":
            slope = torch.minimum(self.derivative(lower), self.derivative(upper))
            low, high = self.line_error(lower, upper, slope, torch.zeros_like(slope))
            return Elementwise(slope, low, slope, high)
        above, below = self._slope_above(lower, upper), self._slope_above(-upper, -lower)
        zero = torch.zeros_like(lower)
        return Elementwise(
            below, self.line_error(lower, upper, below, zero)[0], above, self.line_error(lower, upper, above, zero)[1]
        )

    def _slope_above(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Slope of a tight upper line; that of a lower line is the same for the mirrored interval."""
        width = upper - lower
        middle = self.derivative((lower + upper) / 2)
        narrow = width < _NARROW
        start = self.forward(lower)
        chord = torch.where(narrow, middle, (self.forward(upper) - start) / torch.where(narrow, torch.ones_like(width), width))
        touching = (lower < 0) & (upper > 0) & (self.derivative(upper) < chord)
        slope = torch.where(lower >= 0, middle, chord)
        if bool(touching.any()):
            left, right = torch.zeros_like(upper), upper.clamp(min=0)
            for _ in range(_STEPS):
                d = (left + right) / 2
                short = self.derivative(d) * (d - lower) > self.forward(d) - start
                left, right = torch.where(short, d, left), torch.where(short, right, d)
            slope = torch.where(touching, self.derivative(right), slope)
        return slope

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        # s' is even and falls away from 0
        ends = torch.minimum(self.derivative(lower), self.derivative(upper))
        return outward(ends, self.derivative(torch.zeros_like(lower).clamp(min=lower, max=upper)), lower <= upper)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.node(type(self).__name__, inputs, output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sigmoid(Smooth):
    """`1 / (1 + exp(-z))`; `s'(z) = 1 / (4 cosh^2(z / 2))`."""

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.sigmoid(xs[0])

    def derivative(self, z: Tensor) -> Tensor:
        return 0.25 / torch.cosh(z / 2).square()

    def stationary(self, slope: Tensor) -> Tensor:
        return 2 * _arcosh_of_inverse_root(4 * slope)


@dataclass(frozen=True, eq=False, kw_only=True)
class Tanh(Smooth):
    """`tanh(z)`; `s'(z) = 1 / cosh^2(z)`."""

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.tanh(xs[0])

    def derivative(self, z: Tensor) -> Tensor:
        return 1 / torch.cosh(z).square()

    def stationary(self, slope: Tensor) -> Tensor:
        return _arcosh_of_inverse_root(slope)


@dataclass(frozen=True, eq=False, kw_only=True)
class Softsign(Smooth):
    """`z / (1 + |z|)`; `s'(z) = 1 / (1 + |z|)^2`."""

    def forward(self, *xs: Tensor) -> Tensor:
        # without a quotient of two infinite numbers
        return xs[0].sign() * (1 - 1 / (1 + xs[0].abs())) if bool(torch.isinf(xs[0]).any()) else xs[0] / (1 + xs[0].abs())

    def derivative(self, z: Tensor) -> Tensor:
        return 1 / (1 + z.abs()).square()

    def stationary(self, slope: Tensor) -> Tensor:
        return (slope.clamp(min=torch.finfo(slope.dtype).tiny).rsqrt() - 1).clamp(min=0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Erf(Smooth):
    """`erf(z)`; `s'(z) = 2 exp(-z^2) / sqrt(pi)`."""

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.erf(xs[0])

    def derivative(self, z: Tensor) -> Tensor:
        return 2 / math.sqrt(math.pi) * torch.exp(-z.square())

    def stationary(self, slope: Tensor) -> Tensor:
        k = (slope * (math.sqrt(math.pi) / 2)).clamp(min=torch.finfo(slope.dtype).tiny, max=1.0)
        return (-k.log()).clamp(min=0).sqrt()


def _arcosh_of_inverse_root(k: Tensor) -> Tensor:
    """The z >= 0 with `cosh^2(z) = 1 / k`."""
    return torch.acosh(k.clamp(min=torch.finfo(k.dtype).tiny, max=1.0).rsqrt().clamp(min=1.0))


def read_sigmoid(node: Node) -> tuple[Sigmoid, ...]:
    """Sigmoid."""
    return (Sigmoid(**node.common()),)


def read_tanh(node: Node) -> tuple[Tanh, ...]:
    """Tanh."""
    return (Tanh(**node.common()),)


def read_softsign(node: Node) -> tuple[Softsign, ...]:
    """Softsign."""
    return (Softsign(**node.common()),)


def read_erf(node: Node) -> tuple[Erf, ...]:
    """Erf."""
    return (Erf(**node.common()),)
