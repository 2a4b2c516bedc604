"""A quantiser as ONNX nodes of opset 13."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.ops.broadcast import leading

if TYPE_CHECKING:
    from onnxsub.ops.onnx_writer import OnnxWriter

__all__ = ["Steps"]

_BYTES: Mapping[tuple[float, float], type[np.integer[Any]]] = {(-128, 127): np.int8, (0, 255): np.uint8}
"""What QuantizeLinear can write before opset 21."""


@dataclass(frozen=True, eq=False)
class Steps:
    """`clip(round(z / step) + zero, low, high)`, and `step (m - zero)` of that unless `stored`; `rank` axes of a sample."""

    step: Array
    zero: Array
    low: float
    high: float
    stored: bool
    rank: int

    def to_onnx(self, writer: OnnxWriter, source: str, output: str) -> None:
        """QuantizeLinear and DequantizeLinear; or, in types that these do not have at opset 13, the arithmetic itself."""
        kind, axes = _BYTES.get((self.low, self.high)), self._axis()
        if kind is None or axes is None or writer.dtype != np.float32:
            self._arithmetic(writer, source, output)
            return
        axis, step, zero = axes
        parameters = writer.weight(output, "step", step), writer.integers(output, "zero", zero, kind)
        stored = writer.step("QuantizeLinear", (source, *parameters), output, "stored", axis=axis)
        if self.stored:
            axis = None
            parameters = writer.weight(output, "one", np.ones(())), writer.integers(output, "none", np.zeros(()), kind)
        writer.node("DequantizeLinear", (stored, *parameters), output, axis=axis)

    def _axis(self) -> tuple[int | None, Array, Array] | None:
        """Axis of the file along which step or zero point differ, None for none, and both; None where there are several axes."""
        step, zero = np.broadcast_arrays(self.step, self.zero)
        axes = [i for i, n in enumerate(leading(step, self.rank).shape) if n > 1]
        if len(axes) > 1:
            return None
        form = (-1,) if axes else ()
        return axes[0] if axes else None, step.reshape(form), zero.reshape(form)

    def _arithmetic(self, writer: OnnxWriter, source: str, output: str) -> None:
        steps = [("Div", self.step), ("Round", None), ("Add", self.zero), ("Clip", None)]
        steps += [] if self.stored else [("Sub", self.zero), ("Mul", self.step)]
        for i, (kind, value) in enumerate(steps):
            more: tuple[str, ...] = () if value is None else (writer.weight(output, kind.lower(), leading(value, self.rank)),)
            if kind == "Clip":
                more = writer.weight(output, "low", np.asarray(self.low)), writer.weight(output, "high", np.asarray(self.high))
            target = output if i == len(steps) - 1 else writer.fresh(f"{output}/{kind.lower()}")
            writer.node(kind, (source, *more), target)
            source = target
