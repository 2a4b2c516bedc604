"""Layout `inplace`: the original graph, each touched activation replaced where it stands.

A partly pruned activation becomes `Relu(z) * kept + z * slope + offset`, with the terms that are zero left out; a wholly pruned one
keeps its affine part only, or an Identity. The products are elementwise (`Mul` by a constant of the tensor's shape): as a
`MatMul` the diagonal of a convolution's output would take billions of weights. Kept units are exact: times one, plus zero.
MaxPool and the like keep their node for kept windows; the others become a `Gather` of two elements (`inplace_windows.py`).
Shapes, names, inputs, outputs, metadata and a trailing Softmax are as in the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import ModelProto, helper

from onnxsub.budget import Budget
from onnxsub.errors import ModelError, UnsupportedOperatorError
from onnxsub.layouts.inplace_windows import replace_windows
from onnxsub.model import Model
from onnxsub.network import Network
from onnxsub.ops.base import Array, Shape
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.quantize import Quantise
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.surgery import edit

__all__ = ["inplace"]


def inplace(model: Model, network: Network, *, budget: Budget | None = None) -> ModelProto:
    """The model's own graph with the substituted activations of `network` in it.

    Raises:
        ModelError: an activation stands inside a function or a subgraph of the file.
        UnsupportedOperatorError: it reads a value that is no tensor of the file, or stands where the open batch axis is merged.
        OutOfTime: the budget ended; it is looked at before every activation.
    """
    budget = budget or Budget()
    touched = [op for op in network.prunable if isinstance(op, Substituted | SubstitutedMax)]
    types = _element_types(model)
    shapes = {name: shape for node in model.nodes for name, shape in node.shapes.items()}

    def change(graph: gs.Graph) -> None:
        writers = {tensor.name: node for node in graph.nodes for tensor in node.outputs}
        for op in touched:
            budget.check()
            if isinstance(op, SubstitutedMax):
                kind = model.input_dtype if types is None else types.get(op.output, model.input_dtype)
                replace_windows(graph, network, op, kind)
                continue
            node = writers.get(op.output)
            if node is None:
                raise ModelError(
                    f"{model.where}: activation {op.node!r} is not a node of the main graph and cannot be replaced in place; "
                    "use --layout compact"
                )
            line = _line(network, op, set(graph.tensors()))
            dtype = model.input_dtype if types is None else types.get(line.source)
            if dtype is None:
                raise ModelError(
                    f"{model.where}: the element type of tensor {line.source!r} cannot be inferred; use --layout compact"
                )
            _replace(graph, node, op, dtype, _shape(model, op, shapes), line)
        graph.cleanup().toposort()

    return edit(model.form, change)


def _element_types(model: Model) -> dict[str, np.dtype[Any]] | None:
    """Element type of every tensor of a file with casts in it; None for the others, where all are of the input's type."""
    if not any(node.op_type in ("Cast", "CastLike") for node in model.nodes):
        return None
    graph = onnx.shape_inference.infer_shapes(model.form).graph
    known = (v for v in (*graph.input, *graph.value_info, *graph.output) if v.type.tensor_type.elem_type)
    return {v.name: np.dtype(helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)) for v in known}


def _shape(model: Model, op: Substituted, shapes: Mapping[str, Shape]) -> Shape:
    """The shape, at batch 1, of the constants that are multiplied with an activation of the file.

    Raises:
        UnsupportedOperatorError: the batch axis is open and merged with another one, so that no constant fits any batch.
    """
    shape = shapes.get(op.output, (1, *op.out_shape))
    if shape[:1] == (1,) or model.batch_fixed:
        return shape
    for value in onnx.shape_inference.infer_shapes(model.form, data_prop=True).graph.value_info:
        if value.name == op.output:
            lengths = [d.dim_value if d.HasField("dim_value") else 0 for d in value.type.tensor_type.shape.dim]
            if [n for n, m in zip(shape, lengths, strict=True) if n != m] == [1]:
                return shape
    raise UnsupportedOperatorError(
        f"{model.where}: {op.op_type} (node {op.node!r}) stands where the open batch axis is merged with another one; "
        "use --layout compact"
    )


class _Line(NamedTuple):
    """What pruned units become: `slope source + offset` of a tensor of the file, zero for kept ones."""

    source: str
    slope: Array
    offset: Array


def _line(network: Network, op: Substituted, tensors: set[str]) -> _Line:
    """The lines of an activation. One that the file writes with a factor of its own (HardSigmoid) has it in them."""
    slope, offset = np.where(op.kept, 0.0, op.slope), np.where(op.kept, 0.0, op.offset)
    # not an input of the node: a function that the file spells out ends in a node that reads something else
    source, before = op.inputs[0], network.producers.get(op.inputs[0])
    if source not in tensors and isinstance(before, Scale) and before.in_shapes[0] == before.out_shape:
        source = before.inputs[0]
        offset = offset if before.shift is None else offset + slope * before.shift
        slope = slope if before.scale is None else slope * before.scale
    if source not in tensors:
        raise UnsupportedOperatorError(
            f"{op.op_type} (node {op.node!r}) reads a value that is no tensor of the file; use --layout compact"
        )
    return _Line(source, slope, offset)


def _replace(graph: gs.Graph, node: gs.Node, op: Substituted, dtype: np.dtype[Any], shape: Shape, line: _Line) -> None:
    output = node.outputs[0]
    if isinstance(op.base, Quantise) and op.base.stored:
        raise UnsupportedOperatorError(
            f"{op.op_type} (node {op.node!r}) writes integers that not only DequantizeLinear reads, and a line has none; "
            "use --layout compact"
        )
    stem = f"{output.name}/onnxsub"
    tensors = graph.tensors()
    taken, z = set(tensors), tensors[line.source]
    while any(name.startswith(stem) for name in taken):
        stem += "_"
    terms: list[gs.Tensor] = []

    def apply(kind: str, name: str, *inputs: gs.Tensor) -> gs.Variable:
        result = gs.Variable(f"{stem}/{name}", dtype=dtype)
        graph.nodes.append(gs.Node(kind, name=f"{stem}/{name}", inputs=list(inputs), outputs=[result]))
        return result

    def constant(name: str, values: Array) -> gs.Constant:
        return gs.Constant(f"{stem}/{name}", np.ascontiguousarray(values.reshape(shape), dtype=dtype))

    node.outputs.clear()
    if op.kept.any():
        activated = gs.Variable(f"{stem}/activated", dtype=dtype)
        node.outputs.append(activated)
        terms.append(apply("Mul", "kept", activated, constant("mask", op.kept)))
    slope, offset = line.slope, line.offset
    if (slope == 1.0).all():
        terms.append(z)
    elif slope.any() or not terms:  # a constant activation still hangs on its input, so that the graph stays connected
        terms.append(apply("Mul", "scaled", z, constant("slope", slope)))
    if offset.any():
        terms.append(constant("offset", offset))
    while len(terms) > 1:
        first, second = terms.pop(0), terms.pop(0)
        terms.insert(0, apply("Add", f"sum{len(terms)}", first, second))
    last = terms[0]
    if last is not z and last.inputs and last.inputs[0] is not node:
        last.inputs[0].outputs[0] = output  # the last node writes the activation's own tensor
    else:
        graph.nodes.append(gs.Node("Identity", name=f"{stem}/identity", inputs=[last], outputs=[output]))
