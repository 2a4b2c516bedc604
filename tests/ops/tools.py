"""One-node models for the tests of the operator table: built with onnx.helper, run by onnxruntime, read as `Node`s."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxsub.ops import READERS
from onnxsub.ops.base import Affine, Array, Operator, Shape
from onnxsub.ops.node import Node

torch.set_num_threads(1)

Input = Shape | Array | None
"""A per-sample shape (a variable tensor), a constant, or an input that is left out."""


@dataclass(frozen=True, eq=False)
class Case:
    """A node on random data: `inputs` in order, every variable one with a batch axis in front of its shape."""

    op: str
    inputs: tuple[Input, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opsets: tuple[int, ...] = (13,)
    outputs: int = 1
    dynamic: bool = True
    note: str = ""
    positive: bool = False
    """Whether the node is defined for positive numbers only."""
    truths: tuple[int, ...] = ()
    """Numbers of the variable inputs that are BOOL."""

    def feeds(self, batch: int, scale: float = 2.0) -> dict[str, Array]:
        """Random numbers for the variable tensors, 1 and 0 for truths."""
        found = {n: random((batch, *s), seed=i, scale=scale) for i, (n, s) in enumerate(self.variables.items())}
        found |= {n: (found[n] > 0).astype(np.float32) for n in (f"x{i}" for i in self.truths)}
        return {n: np.abs(v) + np.float32(0.1) for n, v in found.items()} if self.positive else found

    def __str__(self) -> str:
        parts = ["x".join(map(str, i)) if isinstance(i, tuple) else "-" if i is None else f"c{list(i.shape)}" for i in self.inputs]
        given = ",".join(f"{k}={v}" for k, v in self.attributes.items() if not isinstance(v, np.ndarray))
        return f"{self.op}({';'.join(parts)})[{given}]{self.note}"

    @property
    def variables(self) -> dict[str, Shape]:
        return {f"x{i}": s for i, s in enumerate(self.inputs) if isinstance(s, tuple)}

    def model(self, opset: int, batch: int | str = 1) -> onnx.ModelProto:
        names = [("" if v is None else f"x{i}" if isinstance(v, tuple) else f"c{i}") for i, v in enumerate(self.inputs)]
        outputs = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, outputs, name="node", **self.attributes)
        constants = [numpy_helper.from_array(v, f"c{i}") for i, v in enumerate(self.inputs) if isinstance(v, np.ndarray)]
        kinds = {f"x{i}": TensorProto.BOOL for i in self.truths}
        inputs = [
            helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), [batch, *s]) for n, s in self.variables.items()
        ]
        infos = [helper.make_empty_tensor_value_info(n) for n in outputs]
        graph = helper.make_graph([node], "g", inputs, infos, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    def node(self, opset: int) -> Node:
        return nodes_of(self.model(opset))[0]

    def ops(self, opset: int) -> tuple[Operator, ...]:
        return READERS[self.op](self.node(opset))

    def op1(self, opset: int | None = None) -> Operator:
        """The one operator that the case is read as, at its last opset by default."""
        (op,) = self.ops(self.opsets[-1] if opset is None else opset)
        return op


def nodes_of(model: onnx.ModelProto) -> tuple[Node, ...]:
    """The nodes of a small model whose inputs have batch 1 and whose constants are initializers."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = inferred.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    infos = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
    shapes = {n: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for n, v in infos.items()}
    shapes |= {n: c.shape for n, c in constants.items()}
    # a function, for which nothing is inferred
    shapes |= {n.output[0]: shapes[n.input[0]] for n in graph.node if n.op_type == "GroupNormalization"}
    opset = next(o.version for o in model.opset_import if o.domain == "")
    return tuple(
        Node(
            op_type=n.op_type,
            name=n.name,
            opset=opset,
            attributes={a.name: _decoded(helper.get_attribute_value(a)) for a in n.attribute},
            inputs=tuple(n.input),
            outputs=tuple(n.output),
            constants={i: constants[i] for i in n.input if i in constants},
            shapes={i: shapes[i] for i in (*n.input, *n.output) if i},
        )
        for n in graph.node
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    truths = {i.name for i in session.get_inputs() if i.type == "tensor(bool)"}
    return [np.asarray(y) for y in session.run(None, {n: v.astype(bool) if n in truths else v for n, v in feeds.items()})]


def random(shape: Shape, seed: int = 0, scale: float = 1.0) -> Array:
    """Float32 normal numbers."""
    return (np.random.default_rng([seed, *shape]).normal(size=shape) * scale).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def normal(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Float64 normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boxes(op: Operator, batch: int = 3, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random input intervals, some of them points."""
    found = []
    for i, shape in enumerate(op.in_shapes):
        centre = normal((batch, *shape), seed + i)
        radius = normal((batch, *shape), seed + i + 100).clamp(min=0)
        found.append((centre - radius, centre + radius))
    return found


def inside(box: tuple[torch.Tensor, torch.Tensor], seed: int) -> torch.Tensor:
    """A random point of a box: half of the coordinates at an end."""
    lower, upper = box
    share = torch.rand(lower.shape, generator=torch.Generator().manual_seed(seed), dtype=lower.dtype)
    return (lower + (share * 2 - 0.5).clamp(0, 1) * (upper - lower)).clamp(min=lower, max=upper)


def default_transpose(op: Affine, a: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The vector-Jacobian product that every `transpose` must equal."""
    return Affine.transpose(op, a)
