"""Operators as ONNX nodes, for files that are built anew. What is not in the table is refused; nothing is approximated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxsub.errors import UnsupportedOperatorError
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
    """Collects nodes and weights, the latter rounded to one element type.

    Args:
        dtype: that type.
        reserved: names that the file's own input and output have; no other tensor gets one of them.
    """

    def __init__(self, dtype: np.dtype[Any], reserved: Iterable[str] = ()) -> None:
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._names = set(reserved)

    def fresh(self, name: str) -> str:
        """`name`, or what comes near it, for a tensor that nothing else is called."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def add(self, op: Operator, inputs: tuple[str, ...], output: str) -> None:
        """Writes one operator.

        Raises:
            UnsupportedOperatorError: it has no node here.
        """
        match op:
            case Relu() | Sigmoid() | Tanh():
                self._node(type(op).__name__, inputs, output)
            case Leaky():
                self._leaky(op, inputs[0], output)
            case Clip():
                self._clip(op, inputs[0], output)
            case Concat() if op.constant is None:
                self._node("Concat", inputs, output, axis=op.axis + 1)
            case Dense() if op.weight.ndim == 2 and len(op.out_shape) == 1:
                self._gemm(op, inputs[0], output)
            case Reshape():
                self.reshape(inputs[0], output, op.out_shape)
            case MaxPool():
                self._max_pool(op, inputs[0], output)
            case _:
                raise op.missing("ONNX form in a folded file")

    def reshape(self, source: str, output: str, shape: Shape) -> None:
        """The batch axis stays; the rest becomes `shape`."""
        if len(shape) == 1:
            self._node("Flatten", (source,), output, axis=1)
            return
        name = self.fresh(f"{output}/shape")
        self.weights.append(numpy_helper.from_array(np.array([0, *shape], dtype=np.int64), name))
        self._node("Reshape", (source, name), output)

    def cast(self, source: str, output: str, dtype: np.dtype[Any]) -> None:
        """The same values in another element type."""
        self._node("Cast", (source,), output, to=helper.np_dtype_to_tensor_dtype(dtype))

    def _gemm(self, op: Dense, source: str, output: str) -> None:
        bias = np.zeros(op.out_shape) if op.bias is None else np.broadcast_to(op.bias, op.out_shape)
        self._node(
            "Gemm", (source, self._weight(output, "weight", op.weight), self._weight(output, "bias", bias)), output, transB=1
        )

    def _leaky(self, op: Leaky, source: str, output: str) -> None:
        """Abs, LeakyRelu or PRelu, whichever says it in the simplest way that readers know."""
        slope = np.broadcast_to(op.slope, op.out_shape).astype(np.float64)
        first = float(slope.flat[0])
        if (slope == -1.0).all():
            self._node("Abs", (source,), output)
        elif self.dtype == np.float64:
            # onnxruntime has neither LeakyRelu nor PRelu in float64: slope z + (1 - slope) max(0, z)
            relu, bent, line = (self.fresh(f"{output}/{name}") for name in ("relu", "bent", "line"))
            self._node("Relu", (source,), relu)
            self._node("Mul", (relu, self._weight(output, "bend", 1.0 - slope)), bent)
            self._node("Mul", (source, self._weight(output, "slope", slope)), line)
            self._node("Add", (bent, line), output)
        elif (slope == first).all() and float(np.float32(first)) == first:
            self._node("LeakyRelu", (source,), output, alpha=first)
        else:
            self._node("PRelu", (source, self._weight(output, "slope", slope)), output)

    def _max_pool(self, op: MaxPool, source: str, output: str) -> None:
        """MaxPool with the padding that its windows meet, written out."""
        s = op.sliding
        rank = len(s.kernel)
        # onnxruntime takes padding below the kernel's size only; what a dilated window needs beyond, ceil_mode adds behind
        after = [min(max(0, a), k - 1) for a, k in zip(s.after, s.kernel, strict=True)]
        short = [max(0, a) - b for a, b in zip(s.after, after, strict=True)]
        if any(n >= step for n, step in zip(short, s.strides, strict=True)) or not all(
            0 <= b < k for b, k in zip(s.before, s.kernel, strict=True)
        ):
            raise UnsupportedOperatorError(
                f"{op.op_type} (node {op.node!r}) has more padding than a folded file can state (kernel {list(s.kernel)}, "
                f"dilations {list(s.dilations)}); use --layout inplace"
            )
        self._node(
            "MaxPool", (source,), output, kernel_shape=list(s.kernel), strides=list(s.strides), pads=[*s.before, *after],
            dilations=None if s.dilations == (1,) * rank else list(s.dilations), ceil_mode=1 if any(short) else None,
        )  # fmt: skip

    def _clip(self, op: Clip, source: str, output: str) -> None:
        """Clip takes scalars only; both ends are the same for all units of one activation."""
        ends = []
        for name, end in (("min", op.lo), ("max", op.hi)):
            ends.append(self._weight(output, name, np.asarray(end)) if math.isfinite(float(end)) else "")
        while ends and not ends[-1]:
            ends.pop()
        self._node("Clip", (source, *ends), output)

    def _weight(self, output: str, name: str, values: Array) -> str:
        full = self.fresh(f"{output}/{name}")
        # asarray, not ascontiguousarray: the ends of a Clip must stay scalars
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=self.dtype, order="C"), full))
        return full

    def _node(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> None:
        given = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **given))
