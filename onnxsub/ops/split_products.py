"""Gemm and MatMul as simpler nodes, where their own readers ask for a constant matrix or for rows behind a batch axis.

    Gemm: alpha A' B' + beta C    as Transpose, MatMul, Mul and Add, each of A, B and C constant or not
    MatMul of a vector            as that of a matrix of one row, or of one column
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnxsub.ops.base import Array, Shape
from onnxsub.ops.node import Node

__all__ = ["as_matrices", "gemm_parts"]


class _Parts:
    """Nodes in the place of one, in order."""

    def __init__(self, node: Node) -> None:
        self.node, self.nodes = node, list[Node]()
        self.shapes: dict[str, Shape] = dict(node.shapes)
        self.constants: dict[str, Array] = dict(node.constants)

    def constant(self, name: str, value: Array) -> str:
        made = f"{self.node.outputs[0]}:{name}"
        self.constants[made], self.shapes[made] = value, value.shape
        return made

    def add(self, kind: str, inputs: tuple[str, ...], shape: Shape, name: str, **attributes: Any) -> str:
        made = f"{self.node.outputs[0]}:{name}"
        self.shapes[made] = shape
        self.nodes.append(self._node(kind, inputs, made, attributes))
        return made

    def _node(self, kind: str, inputs: tuple[str, ...], output: str, attributes: Mapping[str, Any]) -> Node:
        return replace(
            self.node, op_type=kind, inputs=inputs, outputs=(output,), attributes=attributes,
            constants={n: self.constants[n] for n in inputs if n in self.constants},
            shapes={n: self.shapes[n] for n in (*inputs, output)},
        )  # fmt: skip

    def done(self) -> tuple[Node, ...]:
        """The last node writes what the one node wrote."""
        last = self.nodes.pop()
        return *self.nodes, self._node(last.op_type, last.inputs, self.node.outputs[0], last.attributes)


def gemm_parts(node: Node) -> tuple[Node, ...]:
    """Nodes that compute a Gemm; numbers are multiplied into a constant where there is one."""
    parts, given = _Parts(node), node.attributes
    factors, alpha = [], float(given.get("alpha", 1.0))
    for i, name in enumerate("AB"):
        source, turned, value = node.inputs[i], bool(given.get(f"trans{name}", 0)), node.constant(i)
        if value is not None:
            value = np.asarray(value, dtype=np.float64) * alpha
            alpha = 1.0
            source = parts.constant(name, value.T if turned else value)
        elif turned:
            rows, columns = node.shapes[source]
            source = parts.add("Transpose", (source,), (columns, rows), f"{name}turned", perm=[1, 0])
        factors.append(source)
    shape = node.shapes[node.outputs[0]]
    left, right = (parts.constants.get(name) for name in factors)
    if left is not None and right is not None:
        product = parts.constant("rows", left @ right)
    else:
        product = parts.add("MatMul", (factors[0], factors[1]), shape, "rows")
    if alpha != 1:
        product = parts.add("Mul", (product, parts.constant("alpha", np.array(alpha))), shape, "scaled")
    if node.has(2):
        beta, value, third = float(given.get("beta", 1.0)), node.constant(2), node.inputs[2]
        if value is not None:
            third = parts.constant("C", np.asarray(value, dtype=np.float64) * beta)
        elif beta != 1:
            third = parts.add("Mul", (third, parts.constant("beta", np.array(beta))), node.shapes[third], "C scaled")
        parts.add("Add", (product, third), shape, "sum")
    return parts.done()


def as_matrices(node: Node) -> tuple[Mapping[str, tuple[str, Shape]], Node, Shape] | None:
    """A MatMul of vectors that depend on the input as one of matrices; None where there is no such vector.

    Returns:
        By vector the name and the full shape of its matrix, the MatMul of these, and the shape that this one writes.
    """
    vectors = [i for i, n in enumerate(node.inputs) if n in node.variables and len(node.shapes[n]) == 1]
    if not vectors:
        return None
    views: dict[str, tuple[str, Shape]] = {}
    shapes, inputs, out = dict(node.shapes), list(node.inputs), list(node.shapes[node.outputs[0]])
    if 0 in vectors:  # its row stands before the columns, of which a second vector has none
        out.insert(len(out) - (len(node.shapes[node.inputs[1]]) > 1), 1)
    if 1 in vectors:
        out.append(1)
    for i in vectors:
        (size,) = node.shapes[node.inputs[i]]
        inputs[i] = f"{node.outputs[0]}:matrix{i}"
        shapes[inputs[i]] = (1, size) if i == 0 else (size, 1)
        views[inputs[i]] = (node.inputs[i], shapes[inputs[i]])
    target = f"{node.outputs[0]}:matrix"
    shapes[target] = tuple(out)
    part = replace(node, inputs=tuple(inputs), outputs=(target,), shapes={n: shapes[n] for n in (*inputs, target)})
    return views, part, tuple(out)
