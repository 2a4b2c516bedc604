"""Operators as ONNX nodes, for files that are built anew. What is not in the table is refused; nothing is approximated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.clip import Clip
from onnxsub.ops.combine import Concat
from onnxsub.ops.dense import Dense
from onnxsub.ops.leaky import Leaky
from onnxsub.ops.maxpool import MaxPool
from onnxsub.ops.movement import Reshape
from onnxsub.ops.relu import Relu
from onnxsub.ops.smooth import Sigmoid, Tanh

__all__ = ["Writer"]


class Writer:
    """Collects nodes and weights, the latter rounded to one element type."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, op: Operator, inputs: tuple[str, ...], output: str) -> None:
        """Writes one operator.

        Raises:
            UnsupportedOperatorError: it has no node here.
        """
        match op:
            case Relu() | Sigmoid() | Tanh():
                self._node(type(op).__name__, inputs, output)
            case Leaky():
                self._node("PRelu", (*inputs, self._weight(output, "slope", np.broadcast_to(op.slope, op.out_shape))), output)
            case Clip():
                self._clip(op, inputs[0], output)
            case Concat() if op.constant is None:
                self._node("Concat", inputs, output, axis=op.axis + 1)
            case Dense() if op.weight.ndim == 2 and len(op.out_shape) == 1:
                self._gemm(op, inputs[0], output)
            case Reshape():
                self.reshape(inputs[0], output, op.out_shape)
            case MaxPool():
                s = op.sliding
                rank = len(s.kernel)
                after = [max(0, a) for a in s.after]
                self._node(
                    "MaxPool", inputs, output, kernel_shape=list(s.kernel), strides=list(s.strides), pads=[*s.before, *after],
                    dilations=None if s.dilations == (1,) * rank else list(s.dilations),
                )  # fmt: skip
            case _:
                raise op.missing("ONNX form in a folded file")

    def reshape(self, source: str, output: str, shape: Shape) -> None:
        """The batch axis stays; the rest becomes `shape`."""
        if len(shape) == 1:
            self._node("Flatten", (source,), output, axis=1)
            return
        name = f"{output}/shape"
        self.weights.append(numpy_helper.from_array(np.array([0, *shape], dtype=np.int64), name))
        self._node("Reshape", (source, name), output)

    def _gemm(self, op: Dense, source: str, output: str) -> None:
        bias = np.zeros(op.out_shape) if op.bias is None else np.broadcast_to(op.bias, op.out_shape)
        self._node(
            "Gemm", (source, self._weight(output, "weight", op.weight), self._weight(output, "bias", bias)), output, transB=1
        )

    def _clip(self, op: Clip, source: str, output: str) -> None:
        """Clip takes scalars only; both ends are the same for all units of one activation."""
        ends = []
        for name, end in (("min", op.lo), ("max", op.hi)):
            ends.append(self._weight(output, name, np.asarray(end)) if math.isfinite(float(end)) else "")
        while ends and not ends[-1]:
            ends.pop()
        self._node("Clip", (source, *ends), output)

    def _weight(self, output: str, name: str, values: Array) -> str:
        full = f"{output}/{name}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=self.dtype), full))
        return full

    def _node(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> None:
        given = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **given))
