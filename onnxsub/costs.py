"""What a model costs for one sample, added up while its shapes are found and held against the limits before it is run.

Sizes are known from the shapes alone, so a file of a kilobyte that asks for gigabytes is refused in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnx import GraphProto, NodeProto, TypeProto, helper

from onnxsub.errors import ModelError
from onnxsub.limits import limits
from onnxsub.ops.base import Array, Shape

__all__ = ["Costs"]


class Costs:
    """The sums over the nodes of one graph."""

    def __init__(self, graph: GraphProto, where: str) -> None:
        self._where = where
        self._limits = limits()
        self._stored = float(sum(tensor.ByteSize() for tensor in graph.initializer))
        self._constants = self._weights = self._values = self._operations = 0.0

    def constant(self, node: NodeProto, shapes: Mapping[str, Shape], types: Mapping[str, TypeProto], name: str) -> None:
        """Counts the outputs of a node that is computed beforehand. Raises ModelError above the limit."""
        for output in node.output:
            if output in shapes:
                kind = helper.tensor_dtype_to_np_dtype(types[output].tensor_type.elem_type)
                self._constants += math.prod(shapes[output]) * kind.itemsize
        what = f"{self._where}: bytes of the constants that it computes, up to {node.op_type} (node {name!r})"
        self._limits.check("constants", self._constants, what, at_least=8 * self._stored, error=ModelError)

    def kept(self, node: NodeProto, shapes: Mapping[str, Shape], constants: Mapping[str, Array], name: str) -> None:
        """Counts what a node reads and writes that depends on the input. Raises ModelError above a limit."""
        sizes = [float(math.prod(shapes[output])) for output in node.output if output in shapes]
        self._values += sum(sizes)
        # onnxruntime packs a weight anew for every node that reads it
        self._weights += sum(constants[n].nbytes for n in node.input if n in constants)
        self._operations += max(sizes, default=0.0) * _each(node, shapes)
        most = self._limits
        if self._weights <= most.weights and self._values <= most.values and self._operations <= most.operations:
            return
        at = f"up to {node.op_type} (node {name!r})"
        what = f"{self._where}: bytes of constants that its operators read, {at}"
        self._limits.check("weights", self._weights, what, at_least=8 * self._stored, error=ModelError)
        self._limits.check("values", self._values, f"{self._where}: numbers in its tensors for one sample, {at}", error=ModelError)
        what = f"{self._where}: multiplications for one sample, {at}"
        self._limits.check("operations", self._operations, what, error=ModelError)


def _each(node: NodeProto, shapes: Mapping[str, Shape]) -> float:
    """About how many multiplications one number of the output takes."""
    for attribute in node.attribute:
        if attribute.name == "kernel_shape" and node.op_type not in ("Conv", "ConvTranspose"):
            return float(math.prod(max(1, n) for n in attribute.ints))
    if node.op_type in ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"):
        weight = shapes.get(node.input[3 if node.op_type == "QLinearConv" else 1], ())
        return float(math.prod(weight[1:]))
    if node.op_type in ("MatMul", "Gemm", "MatMulInteger"):
        return float(max((n for name in node.input[:2] for n in shapes.get(name, ())[-2:]), default=1))
    if node.op_type == "Einsum":
        return float(max((math.prod(shapes.get(name, ())) for name in node.input), default=1))
    return 1.0
