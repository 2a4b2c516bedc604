"""Steps of normalisations and of Softmax that are not nodes of their own: functions that are tame where their node never looks.

A variance is never negative and a logarithm of a probability never positive. Bounds do not know that. These functions are
constant where the node's own numbers cannot lie, so that bounds that are wide make them no worse than that.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.bent import Bent
from onnxsub.ops.partial import Partial

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["InverseNorm", "InversePower", "Probability", "Root", "Step"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Step(Bent, abc.ABC):
    """A function that is constant on one side of 0."""

    @property
    def bends(self) -> tuple[float, ...]:
        return (0.0,)

    def kinks(self, like: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros_like(like),)


@dataclass(frozen=True, eq=False, kw_only=True)
class InversePower(Step):
    """`(max(z, 0) + shift)^-p`, `p > 0`: what a normalisation multiplies by, z a variance, a sum of squares, or a norm.

    Attributes:
        power: p.
        shift: what keeps the sum from 0.
    """

    power: float = 0.5
    shift: float = 1.0

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
class Probability(Step):
    """`exp(min(z, 0))`, z the logarithm of a probability."""

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
