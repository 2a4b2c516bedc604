"""Readers of Max, Min, ReduceMax and ReduceMin: windows over a table, or a Relu or Clip where that is equal.

A minimum is `-max(-x)`. Several tensors are joined into one, `<output>:joined`, whose windows are the elements that meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.broadcast import of_sample, only_variable
from onnxsub.ops.clip import Clip
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.joined import joined
from onnxsub.ops.movement import Reshape
from onnxsub.ops.node import Node
from onnxsub.ops.reduce import reduced_axes
from onnxsub.ops.relu import Relu
from onnxsub.ops.windows import WindowMax

__all__ = ["read_max", "read_min", "read_reduce_max", "read_reduce_min"]


def read_max(node: Node) -> tuple[Operator, ...]:
    """The largest of tensors and constants, broadcast against each other (from opset 8 on)."""
    return _Reader(node, 1).several()


def read_min(node: Node) -> tuple[Operator, ...]:
    """The smallest of tensors and constants."""
    return _Reader(node, -1).several()


def read_reduce_max(node: Node) -> tuple[Operator, ...]:
    """The maximum over axes; these are an attribute before opset 18."""
    return _Reader(node, 1).reduced()


def read_reduce_min(node: Node) -> tuple[Operator, ...]:
    """The minimum over axes; these are an attribute before opset 18."""
    return _Reader(node, -1).reduced()


class _Reader:
    """Reads one node; sign is 1 for a maximum, -1 for a minimum."""

    def __init__(self, node: Node, sign: int) -> None:
        self.node = node
        self.sign = sign
        self.output = node.outputs[0]
        self.out_shape = node.sample_shape(self.output)
        self.ops: list[Operator] = []

    def reduced(self) -> tuple[Operator, ...]:
        node = self.node
        source = only_variable(node)
        found = reduced_axes(node)
        inner = node.sample_shape(source)
        if math.prod(inner[a] for a in found) == 1:
            return (Reshape(**node.common()),)
        rest = [i for i in range(len(inner)) if i not in found]
        positions = np.arange(math.prod(inner)).reshape(inner).transpose(*rest, *found)
        self._windows(source, inner, positions.reshape(math.prod(self.out_shape), -1))
        return tuple(self.ops)

    def several(self) -> tuple[Operator, ...]:
        node = self.node
        if not all(node.inputs):
            raise node.refuse("an operand is left out")
        rank = len(node.shapes[self.output])
        variables = tuple(dict.fromkeys(node.variables))
        constants = [of_sample(node, node.constants[n], rank) for n in node.inputs if n in node.constants]
        constant = None
        if constants:
            constant = self.sign * np.max(np.stack([np.broadcast_to(self.sign * c, self.out_shape) for c in constants]), axis=0)
        if any(len(node.shapes[n]) != rank for n in variables):
            raise node.refuse("its tensors have different numbers of axes: the batch axis of one meets another axis of the other")
        if len(variables) == 1 and node.sample_shape(variables[0]) == self.out_shape:
            return self._against(variables[0], constant)
        positions, start = [], 0
        for name in variables:
            shape = node.sample_shape(name)
            size = math.prod(shape)
            positions.append(np.broadcast_to(start + np.arange(size).reshape(shape), self.out_shape).reshape(-1))
            start += size
        if constant is not None:
            distinct, index = np.unique(constant, return_inverse=True)
            positions.append(start + index.reshape(-1))
            constant = distinct
        source, shape = self._joined(variables, constant)
        self._windows(source, shape, np.stack(positions, axis=1))
        return tuple(self.ops)

    def _against(self, source: str, constant: Array | None) -> tuple[Operator, ...]:
        """One tensor and a constant of its shape."""
        shape = self.out_shape
        common = self.node.common() | {"inputs": (source,), "in_shapes": (shape,)}
        if constant is None:
            return (Reshape(**common),)
        if (constant == constant.flat[0]).all() if constant.size else True:
            value = float(constant.flat[0]) if constant.size else 0.0
            if self.sign > 0:
                return (Relu(**common),) if value == 0 else (Clip(**common, lo=value, hi=math.inf),)
            return (Clip(**common, lo=-math.inf, hi=value),)
        # max(x, c) = c + relu(x - c), min(x, c) = c - relu(c - x)
        signs = None if self.sign > 0 else np.array(-1.0)
        moved = self._add(Scale, source, shape, "moved", shape, scale=signs, shift=-self.sign * constant)
        bent = self._add(Relu, moved, shape, "bent", shape)
        self._add(Scale, bent, shape, None, shape, scale=signs, shift=constant)
        return tuple(self.ops)

    def _joined(self, variables: Sequence[str], constant: Array | None) -> tuple[str, Shape]:
        """All tensors, flattened, and the constants as one tensor, and its shape."""
        shapes = tuple(self.node.sample_shape(n) for n in variables)
        self.ops += joined(
            tuple(variables), shapes, f"{self.output}:joined", op_type=self.node.op_type, node=self.node.name, behind=constant
        )
        return self.ops[-1].output, self.ops[-1].out_shape

    def _windows(self, source: str, shape: Shape, table: Array) -> None:
        if self.sign < 0:
            source = self._add(Scale, source, shape, "negative", shape, scale=np.array(-1.0))
        last = None if self.sign > 0 else "largest"
        largest = self._add(WindowMax, source, shape, last, self.out_shape, windows=table.astype(np.int64))
        if self.sign < 0:
            self._add(Scale, largest, self.out_shape, None, self.out_shape, scale=np.array(-1.0))

    def _add(
        self, kind: type[Operator], source: str, shape: Shape, name: str | None, out_shape: Shape, **more: object
    ) -> str:
        """An operator that writes `<output>:name`, or the output itself where there is no name."""
        output = self.output if name is None else f"{self.output}:{name}"
        values: dict[str, object] = {
            "op_type": self.node.op_type, "node": self.node.name, "inputs": (source,), "output": output, "in_shapes": (shape,),
            "out_shape": out_shape,
        }  # fmt: skip
        self.ops.append(kind(**values, **more))  # type: ignore[arg-type]
        return output
