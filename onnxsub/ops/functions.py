"""Elementwise functions of today's networks: Elu and its kin, Softplus, Gelu, Swish, Mish, HardSwish."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Box
from onnxsub.ops.bent import Bent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Elu", "Gelu", "HardSwish", "Mish", "Softplus", "Swish"]

_SATURATED = 40.0
"""Beyond, the normal distribution is 0 or 1 in float64, and so are its products with z."""

_LOGISTIC = 750.0
"""Beyond, the logistic function is 0 or 1 in float64, and so are its products with z."""


def _phi(z: Tensor) -> Tensor:
    """The distribution of the standard normal, to full relative precision also far below 0."""
    share: Tensor = torch.special.erfc(-z / math.sqrt(2))
    return share / 2


def _density(z: Tensor) -> Tensor:
    return torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)


def _number(writer: OnnxWriter, output: str, name: str, value: float) -> str:
    return writer.weight(output, name, np.array(value))


@dataclass(frozen=True, eq=False, kw_only=True)
class Elu(Bent):
    """`above z` for `z > 0`, `amplitude (exp(z / rate) - 1)` below: Elu, Selu and Celu."""

    above: float = 1.0
    amplitude: float = 1.0
    rate: float = 1.0

    def forward(self, *xs: Tensor) -> Tensor:
        z = xs[0]
        return torch.where(z > 0, self.above * z, self.amplitude * torch.expm1(z.clamp(max=0) / self.rate))

    def derivative(self, z: Tensor) -> Tensor:
        falling = self.amplitude / self.rate * torch.exp(z.clamp(max=0) / self.rate)
        return torch.where(z >= 0, torch.full_like(z, self.above), falling)

    @property
    def bends(self) -> tuple[float, ...]:
        return (0.0,)

    @property
    def rises(self) -> tuple[bool, ...]:
        return (self.amplitude >= 0, True)

    @property
    def straight(self) -> tuple[tuple[float, float], ...]:
        return ((0.0, math.inf),)

    def kinks(self, like: Tensor) -> tuple[Tensor, ...]:
        return () if self.above == self.amplitude / self.rate else (torch.zeros_like(like),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """One Elu or Selu, so that a unit stays one unit."""
        scaled, gamma = inputs[0], self.above * self.rate
        if self.rate != 1:
            scaled = writer.step("Mul", (scaled, _number(writer, output, "rate", 1 / self.rate)), output, "scaled")
        if gamma == 1:
            writer.node("Elu", (scaled,), output, alpha=self.amplitude)
        else:
            writer.node("Selu", (scaled,), output, alpha=self.amplitude / gamma, gamma=gamma)


@dataclass(frozen=True, eq=False, kw_only=True)
class Softplus(Bent):
    """`log(1 + exp(beta z)) / beta`, beta > 0.

    Attributes:
        apart: by how much the network's own function may differ from it, up or down, and jump: bounds are that much wider.
    """

    beta: float = 1.0
    apart: float = 0.0

    def forward(self, *xs: Tensor) -> Tensor:
        return xs[0].clamp(min=0) + torch.log1p(torch.exp(-self.beta * xs[0].abs())) / self.beta

    def derivative(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.beta * z)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        low, high = super().line_error(lower, upper, slope, offset)
        return low - self.apart, high + self.apart

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        low, high = super().slopes(lower, upper)
        none = torch.full_like(low, math.nan)
        return (none, none) if self.apart else (low, high)  # no number bounds that of a jump

    @property
    def bends(self) -> tuple[float, ...]:
        return ()

    @property
    def rises(self) -> tuple[bool, ...]:
        return (True,)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        if self.beta == 1:
            writer.node("Softplus", inputs, output)
            return
        scaled = writer.step("Mul", (inputs[0], _number(writer, output, "beta", self.beta)), output, "scaled")
        smooth = writer.step("Softplus", (scaled,), output, "smooth")
        writer.node("Mul", (smooth, _number(writer, output, "inverse", 1 / self.beta)), output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Gelu(Bent):
    """`z Phi(rate z)`, Phi the distribution of the standard normal (Hendrycks and Gimpel 2016).

    Attributes:
        tanh: their approximation, `z (1 + tanh(sqrt(2 / pi) (y + cubic y^3))) / 2`, y = rate z.
        rate: 1 but for what a file that spells it out has rounded.
        cubic: of the approximation, as the file has it: within 1e-6 of 0.044715, so that the bends stay where they are.
    """

    tanh: bool = False
    rate: float = 1.0
    cubic: float = 0.044715

    def forward(self, *xs: Tensor) -> Tensor:
        z = xs[0]
        near = z.clamp(-_SATURATED, _SATURATED)
        y = self.rate * near
        # z (1 + tanh(t)) / 2 = z / (1 + exp(-2 t)), which keeps its digits below 0
        share = torch.sigmoid(2 * self._inner(y)) if self.tanh else _phi(y)
        return torch.where(z > _SATURATED, z, near * share)

    def _inner(self, y: Tensor) -> Tensor:
        return math.sqrt(2 / math.pi) * (y + self.cubic * y * y.square())

    def derivative(self, z: Tensor) -> Tensor:
        y = self.rate * z.clamp(-_SATURATED, _SATURATED)
        if not self.tanh:
            return _phi(y) + y * _density(y)
        share = torch.sigmoid(2 * self._inner(y))
        inner = 2 * math.sqrt(2 / math.pi) * (1 + 3 * self.cubic * y.square())
        return share + y * inner * share * torch.sigmoid(-2 * self._inner(y))

    @property
    def bends(self) -> tuple[float, ...]:
        # where s'' = 0: (2 - y^2) phi(y) for the normal distribution; for tanh found with 30 digits
        bend = (1.4185040087908285558 if self.tanh else math.sqrt(2)) / self.rate
        return (-bend, bend)

    @property
    def rises(self) -> tuple[bool, ...]:
        return (False, True, False)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """The spelling of files before opset 20, which has a Gelu."""
        if self.tanh:
            square = writer.step("Mul", inputs * 2, output, "square")
            cubic = writer.step("Mul", (square, _number(writer, output, "cubic", self.cubic * self.rate**2)), output, "cubed")
            one = _number(writer, output, "one", 1.0)
            inner = writer.step("Mul", (inputs[0], writer.step("Add", (cubic, one), output, "sum")), output, "inner")
            factor = _number(writer, output, "factor", 2 * self.rate * math.sqrt(2 / math.pi))
            inner = writer.step("Mul", (inner, factor), output, "outer")
            share = writer.step("Sigmoid", (inner,), output, "share")
            writer.node("Mul", (inputs[0], share), output)
            return
        scaled = writer.step("Mul", (inputs[0], _number(writer, output, "root", self.rate / math.sqrt(2))), output, "scaled")
        one, erf = _number(writer, output, "one", 1.0), writer.step("Erf", (scaled,), output, "erf")
        share = writer.step("Add", (erf, one), output, "share")
        half = writer.step("Mul", (inputs[0], _number(writer, output, "half", 0.5)), output, "half")
        writer.node("Mul", (half, share), output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Swish(Bent):
    """`z / (1 + exp(-alpha z))`, alpha > 0: SiLU where alpha is 1."""

    alpha: float = 1.0

    def forward(self, *xs: Tensor) -> Tensor:
        z, far = xs[0], _LOGISTIC / self.alpha
        near = z.clamp(-far, far)
        return torch.where(z > far, z, near * torch.sigmoid(self.alpha * near))

    def derivative(self, z: Tensor) -> Tensor:
        u = (self.alpha * z).clamp(-_LOGISTIC, _LOGISTIC)
        share = torch.sigmoid(u)
        return share + u * share * torch.sigmoid(-u)

    @property
    def bends(self) -> tuple[float, ...]:
        bend = 2.3993572805154676678 / self.alpha  # u tanh(u / 2) = 2
        return (-bend, bend)

    @property
    def rises(self) -> tuple[bool, ...]:
        return (False, True, False)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        scaled = writer.step("Mul", (inputs[0], _number(writer, output, "alpha", self.alpha)), output, "scaled")
        writer.node("Mul", (inputs[0], writer.step("Sigmoid", (scaled,), output, "share")), output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Mish(Bent):
    """`z tanh(log(1 + exp(z)))` (Misra 2019)."""

    def forward(self, *xs: Tensor) -> Tensor:
        z = xs[0]
        near = z.clamp(-_LOGISTIC, _SATURATED)
        return torch.where(z > _SATURATED, z, near * self._share(near))

    @staticmethod
    def _share(z: Tensor) -> Tensor:
        # tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2), e = exp(z)
        e = torch.exp(z)
        return e * (e + 2) / (e * (e + 2) + 2)

    def derivative(self, z: Tensor) -> Tensor:
        z = z.clamp(-_LOGISTIC, _SATURATED)
        e = torch.exp(z)
        low = e * (e + 2) + 2
        return self._share(z) + z * (4 * e / low) * ((e + 1) / low)

    @property
    def bends(self) -> tuple[float, ...]:
        return (-2.2563763963960793120, 1.4905711794854268593)  # where s'' = 0, found with 30 digits

    @property
    def rises(self) -> tuple[bool, ...]:
        return (False, True, False)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        share = writer.step("Tanh", (writer.step("Softplus", inputs, output, "softplus"),), output, "share")
        writer.node("Mul", (inputs[0], share), output)


@dataclass(frozen=True, eq=False, kw_only=True)
class HardSwish(Bent):
    """`z min(max(alpha z + beta, 0), 1)`, with 1 / 6 and 1 / 2 (Howard et al. 2019), or what a file has rounded them to."""

    alpha: float = 1 / 6
    beta: float = 0.5

    @property
    def bends(self) -> tuple[float, ...]:
        return (-self.beta / self.alpha, (1 - self.beta) / self.alpha)

    def forward(self, *xs: Tensor) -> Tensor:
        z, (first, last) = xs[0], self.bends
        near = z.clamp(first, last)
        return torch.where(z > last, z, near * (self.alpha * near + self.beta).clamp(min=0))

    def derivative(self, z: Tensor) -> Tensor:
        first, last = self.bends
        inner = 2 * self.alpha * z.clamp(first, last) + self.beta
        return torch.where(z >= last, torch.ones_like(z), torch.where(z < first, torch.zeros_like(z), inner))

    @property
    def rises(self) -> tuple[bool, ...]:
        return (True, True, True)

    @property
    def straight(self) -> tuple[tuple[float, float], ...]:
        first, last = self.bends
        return ((-math.inf, first), (last, math.inf))

    def kinks(self, like: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.full_like(like, bend) for bend in self.bends)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """With a Clip, which runs in float64 too."""
        line = writer.step("Mul", (inputs[0], _number(writer, output, "sixth", self.alpha)), output, "scaled")
        line = writer.step("Add", (line, _number(writer, output, "half", self.beta)), output, "line")
        ends = (_number(writer, output, "zero", 0.0), _number(writer, output, "one", 1.0))
        writer.node("Mul", (inputs[0], writer.step("Clip", (line, *ends), output, "share")), output)
