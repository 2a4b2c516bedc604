"""Curved units on estimated intervals: what is between some points of the function is not looked at. Rankings only, no proof."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxsub.ops.base import Activation, Box
from onnxsub.passes.substitute import original_activation

__all__ = ["curved", "rough_chord", "rough_error"]

_POINTS = 9
_FAR = 1e18  # for ends that are infinite


def curved(op: Activation) -> bool:
    """Whether extremes of the function, or of its error against a line, lie elsewhere than at ends and kinks."""
    return not original_activation(op).piecewise_linear


def rough_error(op: Activation, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
    """Smallest and largest of `s(z) - slope z - offset` at points of `[lower, upper]`, `(1, *shape)` each."""
    low, high = lower.clamp(-_FAR, _FAR), upper.clamp(-_FAR, _FAR)
    least = most = op.forward(low) - slope * low - offset
    for share in torch.linspace(0, 1, _POINTS)[1:].tolist():
        z = low + share * (high - low)
        error = op.forward(z) - slope * z - offset
        least, most = torch.minimum(least, error), torch.maximum(most, error)
    return least, most


def rough_chord(op: Activation, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The chord's slope, and the offsets of the two lines with it that enclose the function."""
    low, high = lower.clamp(-_FAR, _FAR), upper.clamp(-_FAR, _FAR)
    width = high - low
    slope = (op.forward(high) - op.forward(low)) / torch.where(width > 0, width, torch.ones_like(width))
    return (slope, *rough_error(op, lower, upper, slope, torch.zeros_like(slope)))
