"""What curved functions share: tangents, no linear pieces, hence no rows of a program."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from onnxsub.ops.base import Activation, Array, Box

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
else:
    from onnxsub.lazy import torch

__all__ = ["Curve"]

_SLACK = 16.0
"""Bounds are widened by this many units in the last place of the largest number that enters them."""

_FAR = 1e6
"""Where the tangent of an infinite point is drawn: what is straight out there has one line."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve(Activation, abc.ABC):
    """A continuous `s` that is differentiable but at its kinks."""

    @abc.abstractmethod
    def derivative(self, z: Tensor) -> Tensor:
        """`s'(z)`, at a kink the slope on its right; relative errors of a few units in the last place but below 1e-50."""

    @property
    def piecewise_linear(self) -> bool:
        return False

    def tangent(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.nan_to_num(nan=torch.nan, posinf=_FAR, neginf=-_FAR)  # a line at infinity has no offset
        slope = self.derivative(z)
        return slope, self.forward(z) - slope * z

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        # a single point is all that it is affine on
        return lower == upper

    def take(self, index: Array, *, node: str, inputs: tuple[str, ...], output: str) -> Self:
        shape = (len(index),)
        return replace(self, node=node, inputs=inputs, output=output, in_shapes=(shape,), out_shape=shape)

    def encode_units(self, encoder: Encoder, z: LinExpr, lower: Array, upper: Array) -> LinExpr:
        raise self.missing("milp")

    @staticmethod
    def widened(low: Tensor, high: Tensor, size: Tensor | float) -> Box:
        """The interval moved outward by what evaluating numbers of this size may round."""
        slack = _SLACK * torch.finfo(low.dtype).eps * size
        return low - slack, high + slack
