"""An activation of which some units are kept and the others are replaced by lines: what a substitute is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Activation, Array, Box
from onnxsub.ops.relaxation import Elementwise

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Substituted"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Substituted(Activation):
    """`y = s(z)` for the units that are kept, `slope z + offset` for the others.

    Attributes:
        base: the activation s; it reads and writes the same tensors.
        kept: bool, of shape `in_shapes[0]`.
        slope, offset: float64, of that shape; meaningless (but finite) for kept units.
    """

    base: Activation
    kept: Array
    slope: Array
    offset: Array

    def __post_init__(self) -> None:
        shapes = {a.shape for a in (self.kept, self.slope, self.offset)}
        if shapes != {self.in_shapes[0]} or self.base.in_shapes != self.in_shapes or self.kept.dtype != np.bool_:
            raise ValueError(f"{self.op_type} {self.node!r}: kept, slope and offset must have the shape {self.in_shapes[0]}")
        if (self.base.inputs, self.base.output) != (self.inputs, self.output):
            raise ValueError(f"{self.op_type} {self.node!r}: its base reads {self.base.inputs}, itself {self.inputs}")
        if not (np.isfinite(self.slope).all() and np.isfinite(self.offset).all()):
            raise ValueError(f"{self.op_type} {self.node!r}: a slope or an offset is not finite")

    @staticmethod
    def of(base: Activation, kept: Array, slope: Array, offset: Array) -> Substituted:
        """`base` with all units outside `kept` replaced; takes the place of `base` in its network."""
        return Substituted(
            op_type=base.op_type, node=base.node, inputs=base.inputs, output=base.output, in_shapes=base.in_shapes,
            out_shape=base.out_shape, base=base, kept=np.asarray(kept, dtype=np.bool_), slope=np.asarray(slope, dtype=np.float64),
            offset=np.asarray(offset, dtype=np.float64),
        )  # fmt: skip

    @property
    def takes_alpha(self) -> bool:
        return self.base.takes_alpha

    @property
    def piecewise_linear(self) -> bool:
        return self.base.piecewise_linear or not self.kept.any()

    def _mask(self, like: Tensor) -> Tensor:
        mask: Tensor = self.cached(("kept", like.device), lambda: torch.as_tensor(np.array(self.kept), device=like.device))
        return mask

    def _line(self, z: Tensor) -> Tensor:
        return self.tensor("slope", z) * z + self.tensor("offset", z)

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.where(self._mask(xs[0]), self.base.forward(*xs), self._line(xs[0]))

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        kept, (low, high) = self._mask(lower), self.base.interval(*boxes)
        one, other = self._line(lower), self._line(upper)
        return torch.where(kept, low, torch.minimum(one, other)), torch.where(kept, high, torch.maximum(one, other))

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise:
        r, kept = self.base.relax(lower, upper, mode, alpha), self._mask(lower)
        slope, offset = self.tensor("slope", lower), self.tensor("offset", lower)
        below = torch.where(kept, r.lower_slope, slope)
        above = below if r.parallel else torch.where(kept, r.upper_slope, slope)
        return Elementwise(below, torch.where(kept, r.lower_offset, offset), above, torch.where(kept, r.upper_offset, offset))

    def tangent(self, z: Tensor) -> tuple[Tensor, Tensor]:
        kept, (slope, offset) = self._mask(z), self.base.tangent(z)
        return torch.where(kept, slope, self.tensor("slope", z)), torch.where(kept, offset, self.tensor("offset", z))

    def kinks(self, like: Tensor) -> tuple[Tensor, ...]:
        return self.base.kinks(like)

    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        kept, (low, high) = self._mask(lower), self.base.line_error(lower, upper, slope, offset)
        one, other = (self._line(z) - slope * z - offset for z in (lower, upper))
        return torch.where(kept, low, torch.minimum(one, other)), torch.where(kept, high, torch.maximum(one, other))

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        kept, (low, high) = self._mask(lower), self.base.slopes(lower, upper)
        slope = self.tensor("slope", lower)
        return torch.where(kept, low, slope), torch.where(kept, high, slope)

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        return self.base.affine_on(lower, upper) | ~self._mask(lower)

    def take(self, index: Array, *, node: str, inputs: tuple[str, ...], output: str) -> Substituted:
        base = self.base.take(index, node=node, inputs=inputs, output=output)
        kept, slope, offset = (a.reshape(-1)[index] for a in (self.kept, self.slope, self.offset))
        return replace(
            self, node=node, inputs=inputs, output=output, in_shapes=base.in_shapes, out_shape=base.out_shape,
            base=base, kept=kept, slope=slope, offset=offset,
        )  # fmt: skip

    def encode_units(self, encoder: Encoder, z: LinExpr, lower: Array, upper: Array) -> LinExpr:
        kept = self.kept.reshape(-1)
        y = z.scale(np.where(kept, 0.0, self.slope.reshape(-1))).shift(np.where(kept, 0.0, self.offset.reshape(-1)))
        index = np.flatnonzero(kept)
        if len(index) == 0:
            return y
        # the base is asked for its kept units only: one whose function has no rows (Tanh) serves as long as none is kept
        units = self.base.take(index, node=self.node, inputs=self.inputs, output=self.output)
        return y + units.encode_units(encoder, z.take(index), lower[index], upper[index]).spread(index, len(kept))

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """`s(z) kept + (slope z + offset)`, with zeros in the place of what the other units have."""
        slope, offset = (np.where(self.kept, 0.0, a) for a in (self.slope, self.offset))
        scaled = writer.step("Mul", (inputs[0], writer.weight(output, "slope", slope)), output, "scaled")
        sum_ = (scaled, writer.weight(output, "offset", offset))
        if not self.kept.any():
            writer.node("Add", sum_, output)
            return
        line = writer.step("Add", sum_, output, "line")
        function = writer.fresh(f"{output}/function")
        self.base.to_onnx(writer, inputs, function)
        kept = writer.step("Mul", (function, writer.weight(output, "kept", self.kept.astype(np.float64))), output, "masked")
        writer.node("Add", (kept, line), output)
