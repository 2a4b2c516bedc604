"""Small tools on a `GraphProto`: who writes a tensor, what a tensor depends on, constants, fresh names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, ValueInfoProto, numpy_helper

from onnxsub.errors import ModelError
from onnxsub.ops.base import Array

__all__ = ["Names", "attribute", "constant_value", "keep_only", "name_of", "only_input", "producers", "reads", "replace_nodes"]


class Names:
    """Names that no tensor of a graph has."""

    def __init__(self, graph: GraphProto) -> None:
        self._taken = {v.name for v in (*graph.input, *graph.output, *graph.initializer)}
        self._taken |= {name for node in graph.node for name in (*node.input, *node.output)}

    def fresh(self, name: str) -> str:
        """`name`, with underscores behind it where it is taken."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def only_input(graph: GraphProto, where: str) -> ValueInfoProto:
    """The one input of a graph that is no initializer. Raises ModelError where there is not exactly one."""
    initializers = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    inputs = [v for v in graph.input if v.name not in initializers]
    if len(inputs) != 1:
        names = ", ".join(repr(v.name) for v in inputs) or "none"
        raise ModelError(f"{where} has {len(inputs)} inputs ({names}), onnxsub reads models with one; make the others constants")
    (value,) = inputs
    found: ValueInfoProto = value
    return found


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """The node that writes each tensor."""
    return {name: node for node in graph.node for name in node.output if name}


def name_of(node: NodeProto) -> str:
    """How messages call a node."""
    return node.name or next((n for n in node.output if n), node.op_type)


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of an attribute, text as `str`."""
    for a in node.attribute:
        if a.name == name:
            value = onnx.helper.get_attribute_value(a)
            if isinstance(value, bytes):
                return value.decode("utf-8", errors="replace")
            if isinstance(value, list) or (not isinstance(value, str) and hasattr(value, "__iter__")):
                return [v.decode("utf-8", errors="replace") if isinstance(v, bytes) else v for v in value]
            return value
    return default


def constant_value(graph: GraphProto, name: str) -> Array | None:
    """Value of an initializer or of a Constant node with a tensor; None for anything else."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return np.asarray(numpy_helper.to_array(tensor))
    node = producers(graph).get(name)
    if node is None or node.op_type != "Constant" or len(node.attribute) != 1 or node.attribute[0].type != AttributeProto.TENSOR:
        return None
    return np.asarray(numpy_helper.to_array(node.attribute[0].t))


def reads(node: NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those that its subgraphs capture included."""
    yield from (name for name in node.input if name)
    for a in node.attribute:
        for inner in (a.g, *a.graphs) if a.HasField("g") or a.graphs else ():
            yield from (v.name for v in inner.output)
            for n in inner.node:
                yield from reads(n)


def keep_only(graph: GraphProto, output: str) -> None:
    """Removes the nodes that `output` does not depend on, and the constants that only those read."""
    needed = {output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(reads(node))
    replace_nodes(graph, list(reversed(kept)))
    tensors = [t for t in graph.initializer if t.name in needed]
    dropped = {t.name for t in graph.initializer} - needed
    if dropped:
        del graph.initializer[:]
        graph.initializer.extend(tensors)
        inputs = [v for v in graph.input if v.name not in dropped]
        del graph.input[:]
        graph.input.extend(inputs)


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Gives a graph other nodes."""
    copies = list(nodes)
    del graph.node[:]
    graph.node.extend(copies)
