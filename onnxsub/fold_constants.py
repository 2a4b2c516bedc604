"""From a graph to `Node`s: shapes known at batch 1, everything that does not depend on the input computed.

One pass in file order (which ONNX requires to be topological). Shapes come from ONNX's own inference, called node by node with the
values of the constants known so far, so that Shape-Gather-Concat-Reshape chains are resolved exactly and not by guessing;
constant nodes are evaluated (`computed.py`).

A tensor of zero elements is a constant too, whatever it is computed from (a Slice of width 0, the empty part of a Split).
Nothing depends on it: the node that writes it is left out, and a Concat is read without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from onnxsub.attributes import decode_attributes
from onnxsub.branches import Branches
from onnxsub.computed import by_reference, by_runtime, computable
from onnxsub.contrib import as_cast, standard_form
from onnxsub.costs import Costs
from onnxsub.errors import ModelError
from onnxsub.files import one_line
from onnxsub.inferred import Inferred
from onnxsub.ops.base import Array, Shape
from onnxsub.ops.node import Node

__all__ = ["Prepared", "prepare"]

_DEFAULT = ("", "ai.onnx")
_OF_NOTHING = frozenset({"Concat", "Gemm", "MatMul", "ReduceSum", "Shape", "Size"})
"""What may read an empty part of the data and give values: a sum over nothing is zero. Others (a maximum, a mean) have no value."""
_OF_FINITE = ("IsInf", "IsNaN")
"""False of every number that is analysed: of real numbers none is infinite, and masks that would give NaN are refused."""
_SMALL = 4096
"""Elements up to which shape inference is told a constant's value: shapes, axes and pads are small, weights are not."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Nodes that depend on the input, in topological order, with the shape of every tensor whose shape is known; `inside`: the
    graph's nodes with those of the branches that are taken, None where it has none."""

    nodes: tuple[Node, ...]
    shapes: Mapping[str, Shape]
    constants: Mapping[str, Array]
    inside: tuple[NodeProto, ...] | None


def prepare(
    graph: GraphProto,
    opset: int,
    imports: Iterable[onnx.OperatorSetIdProto],
    ir_version: int,
    input_shape: Shape,
    input_name: str,
    where: str,
    *,
    bare: bool = False,
) -> Prepared:
    """Fold the constants of `graph` for an input of shape `(1, *input_shape)`; `bare`: of `input_shape` without the 1.

    Raises:
        ModelError: shapes that do not fit at batch 1, a constant that cannot be read or computed.
    """
    return _Folder(graph, opset, tuple(imports), ir_version, input_name, input_shape if bare else (1, *input_shape), where).run()


class _Folder:
    """The state of the one pass."""

    def __init__(
        self,
        graph: GraphProto,
        opset: int,
        imports: tuple[onnx.OperatorSetIdProto, ...],
        ir_version: int,
        input_name: str,
        input_shape: Shape,
        where: str,
    ) -> None:
        self.graph, self.opset, self.where = graph, opset, where
        self.imports = [helper.make_opsetid("", opset), *(i for i in imports if i.domain not in _DEFAULT)]
        self.versions = {i.domain: i.version for i in self.imports}
        self.costs = Costs(graph, where)
        self.inferred = Inferred(self.imports, ir_version)
        self.types: dict[str, TypeProto] = {}
        self.shapes: dict[str, Shape] = {}
        self.constants: dict[str, Array] = {}
        self.small: dict[str, TensorProto] = {}
        self.empty: set[str] = set()  # tensors without elements that the input leads to; an empty list of axes is none of them
        if graph.sparse_initializer:
            raise ModelError(f"{where} has sparse initializers, which onnxsub does not read; store them as dense tensors")
        for tensor in graph.initializer:
            self.constant(tensor.name, self.value(tensor, f"initializer {tensor.name!r}"))
        element = next(v.type.tensor_type.elem_type for v in graph.input if v.name == input_name)
        self.types[input_name] = helper.make_tensor_type_proto(element, input_shape)
        self.shapes[input_name] = tuple(input_shape)

    def run(self) -> Prepared:
        nodes, graph = [], Branches(self.graph, self.constants)
        for written in graph:
            node = as_cast(written, self.types)
            if not self.folded(node) and (kept := self.keep(node)) is not None:
                nodes.append(kept)
        self.costs.check()
        return Prepared(tuple(nodes), self.shapes, self.constants, tuple(graph.nodes) if graph.taken else None)

    def folded(self, node: NodeProto) -> bool:
        """Whether `node` does not depend on the input's values; if so its outputs are constants from here on."""
        if node.domain not in _DEFAULT and computable(node) is None:
            return False
        if node.op_type in ("Shape", "Size") and node.input[0] in self.shapes:
            self.constant(node.output[0], self.shape_of(node))
            return True
        if node.op_type in _OF_FINITE and node.input[0] in self.shapes.keys() - self.constants.keys():
            self.constant(node.output[0], np.zeros(self.shapes[node.input[0]], dtype=bool))
            return True
        if any(name and name not in self.constants for name in node.input):
            return False
        if node.op_type == "Constant":
            value = self.constant_node(node)
            if value is None:
                return False
            self.constant(node.output[0], value)
            return True
        how = computable(node)
        if how is None:
            return False
        self.infer(node)
        if how == "runtime" and any(name and name not in self.shapes for name in node.output):
            return False
        self.costs.constant(node, self.shapes, self.types, self.name(node))
        self.check_empty(node)
        values = by_runtime(node, self.opset, self.constants) if how == "runtime" else self.evaluate(node)
        if values is None:
            return False
        for name, value in zip(node.output, values, strict=False):
            if name:
                self.constant(name, value)
                if value.size == 0 and self.empty.intersection(node.input):
                    self.empty.add(name)
        return True

    def check_empty(self, node: NodeProto) -> None:
        """Raises ModelError where `node` makes values of an empty part of the data that are not defined."""
        parts = self.empty.intersection(node.input)
        made = any(math.prod(self.shapes.get(name, (1,))) for name in node.output if name)
        if parts and made and (node.domain or node.op_type not in _OF_NOTHING):
            part = min(parts)
            raise ModelError(
                f"{self.at(node)} makes values of tensor {part!r} of shape {list(self.shapes[part])}, which is empty; "
                "export the model without that branch"
            )

    def forget_empty(self, node: NodeProto) -> list[str]:
        """Makes the outputs of `node` that have no elements constants. Returns all outputs, "" for these."""
        names = []
        for name in node.output:
            if name and 0 in self.shapes.get(name, ()):
                dtype = helper.tensor_dtype_to_np_dtype(self.types[name].tensor_type.elem_type)
                self.constant(name, np.zeros(self.shapes[name], dtype=dtype))
                self.empty.add(name)
                name = ""
            names.append(name)
        return names

    def keep(self, node: NodeProto) -> Node | None:
        """`node` as the operator table reads it; None where nothing is left of its outputs."""
        self.infer(node)
        self.costs.kept(node, self.shapes, self.constants, self.name(node))
        self.check_empty(node)
        outputs = self.forget_empty(node)
        if not any(outputs):
            return None
        op_type, inputs = node.op_type, list(node.input)
        if op_type == "Concat" and not node.domain:
            inputs = [n for n in inputs if 0 not in self.shapes.get(n, ())] or inputs
            if len(inputs) == 1 < len(node.input):
                op_type = "Identity"
        if op_type == "Cast" and not node.domain and self.casts_to_its_type(node):
            op_type = "Identity"  # a truth stays one: as a test of a number it would jump there
        names = [n for n in (*inputs, *outputs) if n]
        if node.op_type == "Reshape" and not node.domain and node.input[0] in self.shapes and node.output[0] in self.shapes:
            before, after = self.shapes[node.input[0]], self.shapes[node.output[0]]
            if math.prod(before) != math.prod(after):
                raise ModelError(
                    f"{self.at(node)} turns {list(before)} into {list(after)}, which does not fit at batch 1; "
                    "export the model with batch 1 or an open batch axis"
                )
        return Node(
            op_type=f"{node.domain}.{op_type}" if node.domain else op_type,
            name=node.name or next((n for n in node.output if n), node.op_type),
            opset=self.version(node),
            attributes=decode_attributes(node),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            constants={n: self.constants[n] for n in inputs if n in self.constants},
            shapes={n: self.shapes[n] for n in names if n in self.shapes},
        )

    def casts_to_its_type(self, node: NodeProto) -> bool:
        kind = self.types.get(node.input[0])
        return kind is not None and kind.tensor_type.elem_type == next(a.i for a in node.attribute if a.name == "to")

    def infer(self, node: NodeProto) -> None:
        """Record the outputs' types, as far as ONNX knows the operator and its inputs' types are known."""
        node, known, element = standard_form(node, self.types, self.version(node))
        defined = (node.op_type, self.version(node), node.domain)
        if any(name and name not in known for name in node.input) or not onnx.defs.has(*defined):
            return
        schema = onnx.defs.get_schema(*defined)
        # subgraphs see every tensor of the graph around them
        types = dict(known) if any(a.HasField("g") for a in node.attribute) else {n: known[n] for n in node.input if n}
        values = {n: self.small[n] for n in node.input if n in self.small}
        try:
            # a function, for which nothing is inferred, and a padding of no axis
            nowhere = node.op_type == "Pad" and any(self.shapes.get(name) == (0,) for name in node.input[3:])
            same = node.op_type == "GroupNormalization" or nowhere
            alike = {node.output[0]: self.types[node.input[0]]} if same else None
            found = alike or self.inferred.outputs(schema, node, types, values)
        except (InferenceError, ValidationError) as error:
            shapes = ", ".join(f"{n!r} {list(self.shapes[n])}" for n in node.input if n in self.shapes)
            raise ModelError(f"{self.at(node)} does not fit its inputs {shapes}: {one_line(error)}; check the model") from error
        for name, kind in found.items():
            kind.tensor_type.elem_type = element or kind.tensor_type.elem_type
            self.types[name] = kind
            dims = kind.tensor_type.shape.dim
            if kind.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
                self.shapes[name] = tuple(d.dim_value for d in dims)

    def constant(self, name: str, value: Array) -> None:
        value.setflags(write=False)
        self.constants[name] = value
        self.shapes[name] = value.shape
        element = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.types[name] = helper.make_tensor_type_proto(element, value.shape)
        if value.size <= _SMALL and element != TensorProto.STRING:
            self.small[name] = numpy_helper.from_array(value, name)

    def shape_of(self, node: NodeProto) -> Array:
        shape = self.shapes[node.input[0]]
        if node.op_type == "Size":
            return np.array(math.prod(shape), dtype=np.int64)
        attributes = decode_attributes(node)
        return np.array(shape[attributes.get("start", 0) : attributes.get("end", len(shape))], dtype=np.int64)

    def constant_node(self, node: NodeProto) -> Array | None:
        """Value of a Constant node; None for strings and sparse tensors, which the operator table refuses."""
        if len(node.attribute) != 1:
            raise ModelError(f"{self.at(node)} has {len(node.attribute)} values instead of one; export the model again")
        attribute = node.attribute[0]
        if attribute.name == "value":
            return self.value(attribute.t, f"node {self.name(node)!r}")
        if attribute.name in ("value_int", "value_ints"):
            return np.array(helper.get_attribute_value(attribute), dtype=np.int64)
        if attribute.name in ("value_float", "value_floats"):
            return np.array(helper.get_attribute_value(attribute), dtype=np.float32)
        return None

    def evaluate(self, node: NodeProto) -> list[Array]:
        return by_reference(node, self.opset, self.constants, self.shapes.get(node.output[0]), self.at(node))

    def value(self, tensor: TensorProto, what: str) -> Array:
        try:
            return numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{self.where}: {what} cannot be read ({one_line(error)}); export the model again") from error

    def version(self, node: NodeProto) -> int:
        """Every domain counts its own; 1 where the file does not import it."""
        return self.opset if node.domain in _DEFAULT else int(self.versions.get(node.domain, 1))

    def name(self, node: NodeProto) -> str:
        return node.name or next((n for n in node.output if n), node.op_type)

    def at(self, node: NodeProto) -> str:
        return f"{self.where}: {node.op_type} (node {self.name(node)!r})"
