"""Functions that are not defined everywhere: logarithm, root, other powers, and the reciprocal.

Where an interval reaches out of the domain nothing is claimed: its image is everything, and no line bounds it. The network has no
value there, so nothing may be proved of it.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Box
from onnxsub.ops.bent import Bent
from onnxsub.ops.relaxation import Elementwise

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Log", "Partial", "Power", "Reciprocal"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Partial(Bent, abc.ABC):
    """A function that has no value at some real numbers."""

    @abc.abstractmethod
    def within(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Boolean per interval: the function has a value at every number of it. False where an end is NaN."""

    def _inside(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`within`, and the intervals with `[1, 1]`, which lies in every domain, in place of those that are not."""
        inside, one = self.within(lower, upper), torch.ones_like(lower)
        return inside, torch.where(inside, lower, one), torch.where(inside, upper, one)

    def interval(self, *boxes: Box) -> Box:
        # between 0 and either side of it each of these functions rises or falls
        inside, lower, upper = self._inside(*boxes[0])
        values = torch.stack([self.forward(z) for z in (lower, upper, torch.zeros_like(lower).clamp(min=lower, max=upper))])
        low, high = values.amin(0), values.amax(0)
        tiny = torch.finfo(low.dtype).tiny  # what underflowed is 0, with no size to widen it by
        low, high = self.widened(low, low, low.abs())[0] - tiny, self.widened(high, high, high.abs())[1] + tiny
        return low.masked_fill(~inside, -math.inf), high.masked_fill(~inside, math.inf)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        inside, lower, upper = self._inside(lower, upper)
        low, high = super().line_error(lower, upper, slope, offset)
        return low.masked_fill(~inside, -math.inf), high.masked_fill(~inside, math.inf)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        """As for `Bent` within the domain; outside a flat line infinitely far away, which stands for none."""
        inside, lower, upper = self._inside(lower, upper)
        found = super().relax(lower, upper, mode, alpha)
        below, zero = torch.where(inside, found.lower_slope, torch.zeros_like(lower)), torch.zeros_like(lower)
        above = below if found.parallel else torch.where(inside, found.upper_slope, zero)
        low, high = found.lower_offset.masked_fill(~inside, -math.inf), found.upper_offset.masked_fill(~inside, math.inf)
        return Elementwise(below, low, above, high)

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        inside, lower, upper = self._inside(lower, upper)
        low, high = super().slopes(lower, upper)
        return low.masked_fill(~inside, math.nan), high.masked_fill(~inside, math.nan)

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        return super().affine_on(lower, upper) & self.within(lower, upper)


@dataclass(frozen=True, eq=False, kw_only=True)
class Log(Partial):
    """`log(z)`, for `z > 0`."""

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.log(xs[0])

    def derivative(self, z: Tensor) -> Tensor:
        return 1 / z

    def within(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower > 0) & (upper >= lower)

    @property
    def bends(self) -> tuple[float, ...]:
        return ()

    @property
    def rises(self) -> tuple[bool, ...]:
        return (False,)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.node("Log", inputs, output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Power(Partial):
    """`z^p`, `p > 0` and not 1; for `z >= 0` unless p is an integer.

    Attributes:
        exponent: p; 0.5 is the square root.
    """

    exponent: float = 0.5

    @property
    def _whole(self) -> bool:
        return float(self.exponent).is_integer()

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.sqrt(xs[0]) if self.exponent == 0.5 else torch.pow(xs[0], self.exponent)

    def derivative(self, z: Tensor) -> Tensor:
        return self.exponent * torch.pow(z, self.exponent - 1)

    def within(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (upper >= lower) & (self._whole | (lower >= 0))

    @property
    def bends(self) -> tuple[float, ...]:
        return (0.0,) if self._whole and self.exponent % 2 == 1 else ()

    @property
    def rises(self) -> tuple[bool, ...]:
        return (False, True) if self.bends else (self.exponent > 1,)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        if self.exponent == 0.5:
            writer.node("Sqrt", inputs, output)
        else:
            writer.node("Pow", (inputs[0], writer.weight(output, "exponent", np.array(self.exponent))), output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reciprocal(Partial):
    """`1 / z`, for `z != 0`."""

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.reciprocal(xs[0])

    def derivative(self, z: Tensor) -> Tensor:
        return -1 / z.square()

    def within(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (upper >= lower) & ((lower > 0) | (upper < 0))

    @property
    def bends(self) -> tuple[float, ...]:
        return (0.0,)

    @property
    def rises(self) -> tuple[bool, ...]:
        return (False, True)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.node("Reciprocal", inputs, output)
