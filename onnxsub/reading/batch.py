"""The batch axis: models without one, and models with a fixed one of more than one sample, as models with a batch axis of 1.

*Without one* (a vector in, a vector out): every tensor t of the file becomes `t[None]`, or stays as it is where it has an axis of
length 1 in front already, which then is the batch axis. Operators whose meaning counts axes get their numbers moved by one. Where
there is one for which this is not known, the graph stays as it is between two views, from and to tensors with the axis: what
stands between them is read as what a Transpose or a Reshape has moved the batch axis of (`ops/moved_batch.py`).

*A fixed one* of B: the form has batch 1 and the file is run on B copies of the sample, the first row counts. Lengths B that Reshape
and Expand state in front become 1, and constants of B equal rows one row. That rows do not mix is checked by running both on random
inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from onnxsub.errors import ModelError, UnsupportedOperatorError
from onnxsub.ops.base import Array, Shape
from onnxsub.reading.graphs import Names, attribute, constant_value, keep_only, name_of, replace_nodes

__all__ = ["Feed", "bare_layout", "one_of_many", "with_batch_axis"]


@dataclass(frozen=True)
class Feed:
    """How the file is given rows `(N, *shape)`.

    Attributes:
        dtype: of its input.
        copies: how many copies of one sample it takes at once (a fixed batch); 1: rows as they are.
        bare: it has no batch axis: one sample is given without.
    """

    dtype: np.dtype[Any]
    copies: int = 1
    bare: bool = False

    @property
    def whole(self) -> bool:
        """Whether the input is of whole numbers."""
        return self.dtype.kind in "iu"

    @property
    def plain(self) -> bool:
        """Whether rows may be given as they are."""
        return self.copies == 1 and not self.bare


_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_SAME = frozenset(
    {"Abs", "Cast", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish"}
    | {"Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"}
)
_PAIRS = frozenset({"Add", "Div", "Mul", "PRelu", "Pow", "Sub", "Sum", "Max", "Min"})
_AXIS = frozenset({"Concat", "Softmax", "LogSoftmax", "Split"})
_OLD_SOFTMAX = 13  # up to here all axes from `axis` on are one


def bare_layout(outputs: Shape, batch: int | None) -> bool:
    """Whether a file with a fixed first axis of `batch` (None: one axis only) and an output of that shape has no batch axis."""
    if batch is None:
        return True
    is_list = math.prod(outputs) == max(outputs, default=1)
    return is_list and (not outputs or outputs[0] != batch)


def with_batch_axis(graph: GraphProto, input_name: str, shapes: Mapping[str, Shape], opset: int, where: str) -> Shape:
    """Gives the input and the output of a graph an axis of 1 in front, in place. Returns the shape of the output.

    Args:
        shapes: of the tensors of the file as it is.
    """
    try:
        return _everywhere(graph, input_name, shapes, opset, where)
    except UnsupportedOperatorError:
        return _around(graph, input_name, shapes)


def _around(graph: GraphProto, input_name: str, shapes: Mapping[str, Shape]) -> Shape:
    """The nodes as they are, between two views."""
    names, (output,) = Names(graph), graph.output
    inner = {input_name: names.fresh(f"{input_name}/sample"), output.name: names.fresh(f"{output.name}/sample")}
    for node in graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    after = shapes[output.name]
    after = after if after[:1] == (1,) else (1, *after)
    for source, target, shape in (
        (input_name, inner[input_name], shapes[input_name]), (inner[output.name], output.name, after)
    ):  # fmt: skip
        lengths = numpy_helper.from_array(np.array(shape, dtype=np.int64), names.fresh(f"{target}/shape"))
        graph.initializer.append(lengths)
        graph.node.append(helper.make_node("Reshape", [source, lengths.name], [target], name=names.fresh(f"{target}/view")))
    nodes = list(graph.node)
    replace_nodes(graph, [nodes[-2], *nodes[:-2], nodes[-1]])
    keep_only(graph, output.name)
    return after


def _everywhere(graph: GraphProto, input_name: str, shapes: Mapping[str, Shape], opset: int, where: str) -> Shape:
    """Puts an axis of 1 in front of every tensor that the input leads to, in place.

    Raises:
        UnsupportedOperatorError: an operator of which it is not known what that does to it.
    """
    # whether a tensor gets a new axis; False: its own first axis of 1 is the batch axis
    added = {input_name: True}
    names = Names(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        variable = [n for n in node.input if n in added]
        if not variable:
            nodes.append(node)
            continue
        if node.domain in ("", "ai.onnx") and node.op_type in _VIEWS:
            shape = shapes[node.output[0]]
            new = shape[:1] != (1,)
            lengths = np.array([1, *shape] if new else shape, dtype=np.int64)
            target = numpy_helper.from_array(lengths, names.fresh(f"{node.output[0]}/shape"))
            graph.initializer.append(target)
            nodes.append(helper.make_node("Reshape", [node.input[0], target.name], [node.output[0]], name=node.name))
            added[node.output[0]] = new
            continue
        if len({added[n] for n in variable}) > 1:
            raise _refuse(node, "joins a tensor with a batch axis and one without", where)
        new = added[variable[0]]
        nodes.append(_moved(graph, node, variable, shapes, names, opset, where) if new else node)
        added.update(dict.fromkeys((n for n in node.output if n), new))
    replace_nodes(graph, nodes)
    (output,) = graph.output
    return (1, *shapes[output.name]) if added.get(output.name, True) else shapes[output.name]


def _moved(
    graph: GraphProto, node: NodeProto, variable: list[str], shapes: Mapping[str, Shape], names: Names, opset: int, where: str
) -> NodeProto:
    """The node over tensors with one more axis in front."""
    kind = node.op_type if node.domain in ("", "ai.onnx") else ""
    rank = len(shapes[node.input[0]])
    if kind in _SAME:
        return node
    if kind in _PAIRS:
        # numpy aligns axes from the right; a constant with more axes than the data would stand in the place of the batch axis
        most = max(len(shapes[n]) for n in variable)
        if any(len(shapes.get(n, ())) > most for n in node.input if n):
            raise _refuse(node, "reads a constant with more axes than the data", where)
        return node
    if kind == "MatMul":
        left, right = (constant_value(graph, n) for n in node.input)
        if right is not None and right.ndim == 2:
            return node
        if left is not None and left.ndim == 2 and rank == 2 and len(shapes[node.input[1]]) == 1:
            weight = numpy_helper.from_array(np.ascontiguousarray(left.T), names.fresh(f"{node.output[0]}/transposed"))
            graph.initializer.append(weight)
            return helper.make_node("MatMul", [node.input[1], weight.name], list(node.output), name=node.name)
    if kind in _AXIS and not (kind in ("Softmax", "LogSoftmax") and opset < _OLD_SOFTMAX and rank != 1):
        default = 0 if kind == "Split" else 1 if opset < _OLD_SOFTMAX else -1
        axis = int(attribute(node, "axis", default))
        axis += rank if axis < 0 else 0
        if kind == "Softmax" and rank == 1:
            axis = 0
        copy = NodeProto()
        copy.CopyFrom(node)
        kept = [a for a in copy.attribute if a.name != "axis"]
        del copy.attribute[:]
        copy.attribute.extend([*kept, helper.make_attribute("axis", axis + 1)])
        if kind != "Concat" or not any(constant_value(graph, n) is not None for n in node.input):
            return copy
    raise _refuse(node, "is not known to work with a batch axis in front", where)


def one_of_many(graph: GraphProto, batch: int, constants: Mapping[str, Array]) -> None:
    """Makes a graph of a fixed batch one of batch 1, in place: the first length of the shape that a Reshape or an Expand states,
    and constants of equal rows that stand beside those of the batch (class tokens, positions).

    A first length of k times the batch becomes k: the rows of a batch in k parts each (windows of attention, one head a row).

    Args:
        constants: what does not depend on the input, computed at that batch.
    """
    names = Names(graph)

    def instead(node: NodeProto, i: int, value: Array) -> None:
        tensor = numpy_helper.from_array(value, names.fresh(f"{node.output[0]}/one{i}"))
        graph.initializer.append(tensor)
        node.input[i] = tensor.name

    for node in graph.node:
        if node.output[0] in constants:
            continue
        if node.op_type in ("Reshape", "Expand") and len(node.input) > 1:
            shape = constants.get(node.input[1])
            first = 0 if shape is None or shape.size < 2 else int(shape.reshape(-1)[0])
            if shape is not None and first > 0 and first % batch == 0:
                instead(node, 1, np.concatenate([np.array([first // batch], dtype=shape.dtype), shape.reshape(-1)[1:]]))
        elif node.op_type == "Concat" or node.op_type in _PAIRS:
            for i, name in enumerate(node.input):
                value = constants.get(name)
                along = value is not None and node.op_type == "Concat" and attribute(node, "axis", 0) in (0, -value.ndim)
                if value is None or along or value.ndim < 2 or len(value) != batch or bool((value != value[:1]).any()):
                    continue
                instead(node, i, value[:1])


def _refuse(node: NodeProto, why: str, where: str) -> ModelError:
    return UnsupportedOperatorError(
        f"{where}: the model has no batch axis, and operator {node.op_type} (node {name_of(node)!r}) {why}; "
        "export the model with an input of shape (1, ...)"
    )
