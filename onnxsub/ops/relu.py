"""Relu: `y = max(0, z)`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Activation, Array, Box
from onnxsub.ops.node import Node
from onnxsub.ops.relaxation import Elementwise, check_mode

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Relu", "read_relu", "relu_rows"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Relu(Activation):
    """`max(0, z)`; linear bounds after Weng et al. 2018 (Fast-Lin, eq. 5-6) and Zhang et al. 2018 (CROWN, table 2)."""

    @property
    def takes_alpha(self) -> bool:
        return True

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.relu(xs[0])

    def interval(self, *boxes: Box) -> Box:
        (lower, upper), = boxes
        return lower.clamp(min=0), upper.clamp(min=0)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        check_mode(mode)
        unstable = (lower < 0) & (upper > 0)
        on = (lower >= 0).to(lower.dtype)
        zero = torch.zeros_like(lower)
        # halves: the width of an interval may overflow where its ends do not
        width = torch.where(unstable, upper / 2 - lower / 2, torch.ones_like(lower))
        endless = torch.isinf(width)
        slope = torch.where(unstable, torch.where(endless, zero, upper / 2 / width), on)
        offset = torch.where(unstable, torch.where(endless, upper, -slope * lower), zero)
        if alpha is not None:
            return Elementwise(torch.where(unstable, alpha, on), zero, slope, offset)
        if mode == "fastlin":
            return Elementwise(slope, zero, slope, offset)
        return Elementwise(torch.where(unstable, (upper > -lower).to(lower.dtype), on), zero, slope, offset)

    def tangent(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return (z > 0).to(z.dtype), torch.zeros_like(z)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        # s(z) - line(z) is piecewise linear: its extremes are at the ends and, where it is inside, at the kink
        ends = [torch.relu(z) - slope * z - offset for z in (lower, upper, torch.zeros_like(lower).clamp(min=lower, max=upper))]
        errors = torch.stack(ends)
        return errors.amin(0), errors.amax(0)

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        proper = lower <= upper  # not where an end is no number
        on, off = proper & (lower >= 0), proper & (upper <= 0)
        return on.to(lower.dtype), (on | ~off).to(lower.dtype)

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower >= 0) | (upper <= 0)

    def take(self, index: Array, *, node: str, inputs: tuple[str, ...], output: str) -> Relu:
        shape = (len(index),)
        return replace(self, node=node, inputs=inputs, output=output, in_shapes=(shape,), out_shape=shape)

    def encode_units(self, encoder: Encoder, z: LinExpr, lower: Array, upper: Array) -> LinExpr:
        return relu_rows(encoder, z, lower, upper)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.node("Relu", inputs, output)


def relu_rows(encoder: Encoder, z: LinExpr, lower: Array, upper: Array) -> LinExpr:
    """`y = max(0, z)` for `lower <= z <= upper` (Tjeng et al. 2019, eq. 6-10).

    Stable units are affine and add nothing; an unstable one adds a binary a and y >= 0, y >= z, y <= u a, y <= z - l (1 - a).
    """
    on = lower >= 0
    unstable = np.flatnonzero((lower < 0) & (upper > 0))
    y = z.scale(on.astype(np.float64))
    if len(unstable) == 0:
        return y
    l, u = lower[unstable], upper[unstable]
    zu = encoder.variables(z.take(unstable), l, u)
    yu = encoder.continuous(np.zeros_like(u), u)
    a = encoder.binary(len(unstable))
    encoder.rows(yu - zu, 0.0, np.inf)
    encoder.rows(yu - a.scale(u), -np.inf, 0.0)
    encoder.rows(yu - zu - a.scale(l), -np.inf, -l)
    return y + yu.spread(unstable, len(y))


def read_relu(node: Node) -> tuple[Relu, ...]:
    """Relu."""
    return (Relu(**node.common()),)
