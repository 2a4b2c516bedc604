"""Steps of normalisations and of Softmax that are not nodes of their own: functions that are tame where their node never looks.

A variance is never negative and a logarithm of a probability never positive. Bounds do not know that. These functions are
constant where the node's own numbers cannot lie, so that bounds that are wide make them no worse than that.

**Executed.** Between functions that jump, where float32 decides, `InversePower` and `Probability` may stand for every execution of
them, with a room for what they read being off and 65 * 2^-24 of the value for their own rounding. Both are then known as well as
the box at hand allows: somewhere else, where the variance is nearly 0, an inverse root is a thousand times as steep.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from onnxsub.ops.base import Array, Box
from onnxsub.ops.bent import Bent
from onnxsub.ops.partial import Partial

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Executed", "InverseNorm", "InversePower", "Probability", "Root", "Step"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Step(Bent, abc.ABC):
    """A function that is constant on one side of 0."""

    @property
    def bends(self) -> tuple[float, ...]:
        return (0.0,)

    def kinks(self, like: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros_like(like),)


_RELATIVE = 65 * 2.0**-24
"""What float32 may round a value by, and what float64 may round that by."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Executed(Step, abc.ABC):
    """A monotone function, constant on one side of 0 and ever less steep on the other, that may have a room.

    Attributes:
        room: what the z of an execution may be off by; None: the function over the real numbers.
        sign: 1: it rises, 0 is the end of its flat side from above; -1: it falls.
    """

    room: float | None = None
    sign: ClassVar[float]

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        return super().affine_on(lower, upper) if self.room is None else torch.zeros_like(lower, dtype=torch.bool)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        """With a room wider by what an execution may be above the function and below it."""
        low, high = super().line_error(lower, upper, slope, offset)
        if self.room is None:
            return low, high
        rise, fall = self._off(lower, upper, self.room)
        return low - fall, high + rise

    def _off(self, lower: Tensor, upper: Tensor, room: float) -> Box:
        """Its steepest part is beside 0: it rises most over the room where that ends at 0, falls most where that begins there."""
        most = upper if self.sign > 0 else lower
        rounded = _RELATIVE * self.forward(most + self.sign * room)
        before, behind = (torch.full_like(lower, z).maximum(lower).minimum(upper) for z in (-self.sign * room, 0.0))
        rise = self.forward(before + self.sign * room) - self.forward(before)
        fall = self.forward(behind) - self.forward(behind - self.sign * room)
        return tuple((off + rounded).nan_to_num(nan=math.inf) for off in (rise, fall))  # type: ignore[return-value]

    def roomier(self, error: Array) -> Self:
        """The function as it is executed on numbers that are off by `error`."""
        return replace(self, room=float(np.max(error)))


@dataclass(frozen=True, eq=False, kw_only=True)
class InversePower(Executed):
    """`(max(z, 0) + shift)^-p`, `p > 0`: what a normalisation multiplies by, z a variance, a sum of squares, or a norm.

    Attributes:
        power: p.
        shift: what keeps the sum from 0.
        terms: of the mean of squares that z is, the room being what their roots may be off by; 0: z is just a number.
        raw: whether what is executed in place of z may be negative.
    """

    sign: ClassVar[float] = -1.0

    power: float = 0.5
    shift: float = 1.0
    terms: int = 0
    raw: bool = False

    def _off(self, lower: Tensor, upper: Tensor, room: float) -> Box:
        """Of a mean of n squares the root w is off by no more than the room, and z by g z of its own, `g = k u / (1 - k u)`,
        k = n + 80. The steepest slope `2 p w (w^2 + shift)^(-p - 1)` lies at `w^2 = shift / (2 p + 1)`, or beside it."""
        if not self.terms:
            rise, fall = super()._off(lower, upper, room)
            if self.raw:  # z is not negative, z - room may be: convex as far as -shift, and without a value beyond
                end = lower.clamp(min=0)
                base = end + self.shift - room
                most = torch.pow(base.clamp(min=0), -self.power) * (1 + _RELATIVE)
                rise = (1.000001 * most - self.forward(end)).masked_fill(~(base > 0), math.inf)
            return rise, fall
        first, last = (lower.clamp(min=0).sqrt() - room).clamp(min=0), upper.clamp(min=0).sqrt() + room
        steepest = torch.full_like(lower, math.sqrt(self.shift / (2 * self.power + 1))).maximum(first).minimum(last)
        slope = 2 * self.power * steepest * torch.pow(steepest.square() + self.shift, -self.power - 1)
        k = (self.terms + 80) * 2.0**-24
        own = (1 - k / (1 - k)) ** -self.power - 1 + _RELATIVE if k < 0.4 else math.inf
        off = 1.000001 * (room * slope + own * torch.pow(first.square() + self.shift, -self.power))
        off = off.nan_to_num(nan=math.inf)
        return off, off

    def of_squares(self, error: Array, terms: int) -> InversePower:
        """The function as it is executed on a mean of squares of numbers that are off by `error`."""
        return replace(self.roomier(error), terms=terms)

    def of_raw_moments(self) -> InversePower:
        """The function as it is executed on a mean square less a squared mean."""
        return replace(self, raw=True)

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.pow(xs[0].clamp(min=0) + self.shift, -self.power)

    def derivative(self, z: Tensor) -> Tensor:
        slope = -self.power * torch.pow(z.clamp(min=0) + self.shift, -self.power - 1)
        return torch.where(z >= 0, slope, torch.zeros_like(z))

    @property
    def rises(self) -> tuple[bool, ...]:
        return (True, True)

    @property
    def straight(self) -> tuple[tuple[float, float], ...]:
        return ((-math.inf, 0.0),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        positive = writer.step("Relu", inputs, output, "positive")
        shifted = writer.step("Add", (positive, writer.weight(output, "shift", np.array(self.shift))), output, "shifted")
        if self.power == 0.5:
            writer.node("Reciprocal", (writer.step("Sqrt", (shifted,), output, "root"),), output)
        else:
            writer.node("Pow", (shifted, writer.weight(output, "power", np.array(-self.power))), output)


_ROUGH = 2.0**-96
"""Sums of squares, and norms, below which float32 may lose digits or all: squares are then below its smallest normal number."""


@dataclass(frozen=True, eq=False, kw_only=True)
class InverseNorm(Partial):
    """`z^-p`, and 0 where z is 0 (or less): what numbers are divided by their norm with, z the norm or the sum of their squares.

    Nothing is claimed near 0, where it has no bound and float32 takes z for 0; the product has the limit of a normalisation.

    Attributes:
        power: p, 1 or 0.5.
    """

    power: float = 0.5

    def forward(self, *xs: Tensor) -> Tensor:
        positive = xs[0] > 0
        safe = torch.where(positive, xs[0], torch.ones_like(xs[0]))
        return torch.where(positive, torch.pow(safe, -self.power), torch.where(xs[0].isnan(), xs[0], torch.zeros_like(safe)))

    def derivative(self, z: Tensor) -> Tensor:
        return -self.power * torch.pow(z, -self.power - 1)

    def within(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower >= _ROUGH) & (upper >= lower)

    @property
    def bends(self) -> tuple[float, ...]:
        return ()

    @property
    def rises(self) -> tuple[bool, ...]:
        return (True,)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        zero = writer.weight(output, "zero", np.zeros(()))
        positive = writer.step("Greater", (inputs[0], zero), output, "above")
        safe = writer.step("Where", (positive, inputs[0], writer.weight(output, "one", np.ones(()))), output, "safe")
        root = writer.step("Sqrt", (safe,), output, "root") if self.power == 0.5 else safe
        writer.node("Where", (positive, writer.step("Reciprocal", (root,), output, "inverse"), zero), output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Root(Step):
    """`sqrt(max(z, 0))`: a norm, z a sum of squares."""

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.sqrt(xs[0].clamp(min=0))

    def derivative(self, z: Tensor) -> Tensor:
        return torch.where(z >= 0, 0.5 / torch.sqrt(z.clamp(min=0)), torch.zeros_like(z))

    @property
    def rises(self) -> tuple[bool, ...]:
        return (True, False)

    @property
    def straight(self) -> tuple[tuple[float, float], ...]:
        return ((-math.inf, 0.0),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.node("Sqrt", (writer.step("Relu", inputs, output, "positive"),), output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Probability(Executed):
    """`exp(min(z, 0))`, z the logarithm of a probability."""

    sign: ClassVar[float] = 1.0

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.exp(xs[0].clamp(max=0))

    def derivative(self, z: Tensor) -> Tensor:
        return torch.where(z >= 0, torch.zeros_like(z), torch.exp(z.clamp(max=0)))

    @property
    def rises(self) -> tuple[bool, ...]:
        return (True, True)

    @property
    def straight(self) -> tuple[tuple[float, float], ...]:
        return ((0.0, math.inf),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        negative = writer.step("Neg", inputs, output, "negative")
        positive = writer.step("Relu", (negative,), output, "positive")
        writer.node("Exp", (writer.step("Neg", (positive,), output, "below"),), output)
