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

_WHAT = {
    "weights": "bytes of constants that its operators read",
    "values": "numbers in its tensors for one sample",
    "operations": "multiplications for one sample",
}
"""What the limits of these names are about."""


class Costs:
    """The sums over the nodes of one graph."""

    def __init__(self, graph: GraphProto, where: str) -> None:
        self._where = where
        self._limits = limits()
        self._stored = float(sum(tensor.ByteSize() for tensor in graph.initializer))
        self._constants = 0.0
        self._kept = dict.fromkeys(_WHAT, 0.0)
        self._largest = dict.fromkeys(_WHAT, (0.0, "none"))

    def constant(self, node: NodeProto, shapes: Mapping[str, Shape], types: Mapping[str, TypeProto], name: str) -> None:
        """Counts the outputs of a node that is computed beforehand. Raises ModelError above the limit."""
        largest = 0.0
        for output in node.output:
            if output in shapes:
                kind = helper.tensor_dtype_to_np_dtype(types[output].tensor_type.elem_type)
                largest = max(largest, float(math.prod(shapes[output])))
                self._constants += math.prod(shapes[output]) * kind.itemsize
        what = f"{self._where}: bytes of the constants that it computes, up to {node.op_type} (node {name!r})"
        self._limits.check("constants", self._constants, what, at_least=8 * self._stored, error=ModelError)
        work = f"{self._where}: multiplications of the constant that {node.op_type} (node {name!r}) computes"
        self._limits.check("operations", largest * _each(node, shapes), work, error=ModelError)

    def kept(self, node: NodeProto, shapes: Mapping[str, Shape], constants: Mapping[str, Array], name: str) -> None:
        """Counts what a node reads and writes that depends on the input; nothing of it takes memory yet."""
        sizes = [float(math.prod(shapes[output])) for output in node.output if output in shapes]
        # onnxruntime packs a weight anew for every node that reads it
        more = {
            "weights": float(sum(constants[n].nbytes for n in node.input if n in constants)),
            "values": sum(sizes),
            "operations": max(sizes, default=0.0) * _each(node, shapes),
        }
        for kind, cost in more.items():
            self._kept[kind] += cost
            if cost > self._largest[kind][0]:
                self._largest[kind] = (cost, f"{node.op_type} (node {name!r})")

    def check(self) -> None:
        """Raises ModelError where what was counted of the whole graph is above a limit, and says which node takes most of it."""
        for kind, what in _WHAT.items():
            least = 8 * self._stored if kind == "weights" else 0.0
            text = f"{self._where}: {what}, most of them by {self._largest[kind][1]}"
            self._limits.check(kind, self._kept[kind], text, at_least=least, error=ModelError)


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
