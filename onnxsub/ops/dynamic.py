r"""DynamicQuantizeLinear and what undoes it: steps that depend on the largest and the smallest element of the sample.

    s = (max(0, max x) - min(0, min x)) / 255,   z = round(-min(0, min x) / s),   y = s (clip(round(x / s) + z, 0, 255) - z)

An element is at most half a step from its y, at the two limits as well: there `x / s + z` lies within 1/2 of [0, 255], since z lies
within 1/2 of a number for which it lies inside. On a box s lies between the steps of its ends, and m = y / s is an integer
within `1/2 + room` of `x / s`. So y lies within half a largest step of x, and between the smallest and the largest m times a step.
Lines are the first, of slope 1, where they are nearer together than the second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onnxsub.ops.base import Array, Box
from onnxsub.ops.broadcast import only_variable
from onnxsub.ops.interval_rows import Rows
from onnxsub.ops.node import Node
from onnxsub.ops.relaxation import Elementwise, check_mode
from onnxsub.ops.splitting import Splittable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["UNDONE", "DynamicSteps", "read_dynamic_quantize"]

UNDONE = "undone"
"""Attribute of a DynamicQuantizeLinear whose integers are multiplied by its scale again (`spelled_dynamic.py`)."""

_LAST = 255
_ROOM = 2.0**-14  # in steps: what float32 may round x / s by, which is 255 at the most, the rounding of s included
_SCALE = 2.0**-20  # relative: what the scale may be off by


@dataclass(frozen=True, eq=False, kw_only=True)
class DynamicSteps(Splittable):
    """`s m` for every element, m an integer.

    Attributes:
        room: broadcastable: what the element that is executed may be off by from the real one.
    """

    unsupported: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "slopes": "it jumps, so no number bounds its slope; Lipschitz constants need a model without quantisers",
            "milp": "its steps depend on the input; choose --verifier bab, or quantise with calibration data (statically)",
        }
    )

    room: Array

    @staticmethod
    def _ends(lower: Tensor, upper: Tensor) -> Box:
        """`min(0, min x)` of one tensor and `max(0, max x)` of the other, `(N, 1, ..., 1)`."""
        form = (lower.shape[0], *[1] * (lower.dim() - 1))
        return lower.flatten(1).amin(1).clamp(max=0).reshape(form), upper.flatten(1).amax(1).clamp(min=0).reshape(form)

    def forward(self, *xs: Tensor) -> Tensor:
        x = xs[0]
        with torch.no_grad():
            low, high = self._ends(x, x)
            step = (high - low) / _LAST
            step = torch.where(step > 0, step, torch.ones_like(step))
            zero = torch.round((-low / step).clamp(0, _LAST))
            y = step * ((torch.round(x / step) + zero).clamp(0, _LAST) - zero)
        # straight through: the gradient is that of x
        return y + (x - x.detach()) if torch.is_grad_enabled() and x.requires_grad else y

    def _relation(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far y may be from x, and the smallest and the largest y."""
        room = self.tensor("room", lower)
        l, u = lower - room, upper + room
        low, high = self._ends(l, u)
        most = (high - low) / _LAST * (1 + _SCALE)
        inner_low, inner_high = self._ends(u, l)
        least = ((inner_high - inner_low) / _LAST * (1 - _SCALE)).clamp(min=0)
        half = most * (0.5 + _ROOM) + room
        ends = []
        for end, sign in ((l, -1.0), (u, 1.0)):
            # an end of x / s: with the smallest step where that leads further out
            t = end / torch.where(sign * end > 0, least, most)
            t = torch.where(end == 0, torch.zeros_like(t), t).clamp(-_LAST - 1.0, _LAST + 1.0)
            m = torch.ceil(t - 0.5 - _ROOM) if sign < 0 else torch.floor(t + 0.5 + _ROOM)
            y = m * torch.where(sign * m > 0, most, least)
            ends.append(torch.where(m == 0, torch.zeros_like(y), y))
        first, last = torch.maximum(ends[0], lower - half), torch.minimum(ends[1], upper + half)
        # no box, or one without ends
        sane = (lower <= upper) & torch.isfinite(half) & torch.isfinite(first) & torch.isfinite(last) & (first <= last)
        endless = torch.full_like(first, math.inf)
        return torch.where(sane, half, endless), torch.where(sane, first, -endless), torch.where(sane, last, endless)

    def interval(self, *boxes: Box) -> Box:
        _, first, last = self._relation(*boxes[0])
        return first, last

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        check_mode(mode)
        half, first, last = self._relation(lower, upper)
        follow = (2 * half < last - first) & torch.isfinite(half)
        slope = follow.to(lower.dtype)
        # what adding and multiplying rounds where lines are evaluated
        slack = 16 * torch.finfo(lower.dtype).eps * (half + torch.maximum(lower.abs(), upper.abs()))
        reach = torch.where(follow, half + slack, torch.zeros_like(half))
        return Elementwise(slope, torch.where(follow, -reach, first), slope, torch.where(follow, reach, last))

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        """One number: steps may still depend on the other elements, but no smaller interval of this one helps."""
        return ~(upper > lower)

    def losses(self, a: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """`|a|` times the distance of the lines; almost nothing for an interval of many steps, half of which loses as much."""
        half, first, last = self._relation(lower, upper)
        width = upper - lower
        lost = torch.minimum(2 * half, last - first) * torch.where(width > 4 * half, 1e-3, 1.0)
        return a.abs() * lost.nan_to_num(nan=0.0, posinf=0.0)

    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        raise self.missing("milp")

    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        raise self.missing("slopes")

    def roomier(self, error: Array) -> DynamicSteps:
        """The operator with room for what it reads being off by `error`."""
        return replace(self, room=np.asarray(error + self.room))

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """The arithmetic itself, sample by sample."""
        axes = list(range(1, len(self.in_shapes[0]) + 1))
        zero, last = (writer.weight(output, name, np.asarray(v)) for name, v in (("none", 0.0), ("last", float(_LAST))))

        def step(kind: str, *names: str, name: str) -> str:
            return writer.step(kind, names, output, name)

        low = writer.step("ReduceMin", inputs, output, "smallest", axes=axes, keepdims=1)
        high = writer.step("ReduceMax", inputs, output, "largest", axes=axes, keepdims=1)
        low, high = step("Min", low, zero, name="low"), step("Max", high, zero, name="high")
        scale = step("Div", step("Sub", high, low, name="range"), last, name="scale")
        scale = step("Max", scale, writer.weight(output, "least", np.asarray(np.finfo(np.float32).tiny)), name="positive")
        shift = step("Clip", step("Div", step("Neg", low, name="below"), scale, name="offset"), zero, last, name="clipped")
        shift = step("Round", shift, name="zero")
        whole = step("Round", step("Div", inputs[0], scale, name="steps"), name="rounded")
        stored = step("Clip", step("Add", whole, shift, name="shifted"), zero, last, name="stored")
        writer.node("Mul", (step("Sub", stored, shift, name="whole"), scale), output)


def read_dynamic_quantize(node: Node) -> tuple[DynamicSteps, ...]:
    """Where its integers are multiplied by its scale again, as onnxruntime's `quantize_dynamic` writes it."""
    only_variable(node)
    if not node.attributes.get(UNDONE):
        raise node.refuse(
            "its scale depends on the input, and what it writes is read otherwise than by MatMulInteger or ConvInteger by "
            "constants, a Cast and a Mul by its scale; quantise the model statically (with calibration data)"
        )
    return (DynamicSteps(**node.common(), room=np.zeros(())),)
