"""Small models of the kinds that exporters write, and onnxruntime on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

F = TensorProto.FLOAT
ML = "ai.onnx.ml"
Array = np.ndarray[Any, Any]


def mlp(seed: int, inputs: int = 6, hidden: int = 10, classes: int = 4, scale: float = 1.0) -> dict[str, Array]:
    """Weights of `Gemm, Relu, Gemm`, named A, a, B, b."""
    rng = np.random.default_rng(seed)
    shapes = {"A": (inputs, hidden), "a": (hidden,), "B": (hidden, classes), "b": (classes,)}
    return {k: (scale if k == "A" else 1.0) * rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def body(source: str = "x", output: str = "z") -> list[NodeProto]:
    """Its nodes, on rows or on a vector."""
    return [
        helper.make_node("MatMul", [source, "A"], ["ha"]), helper.make_node("Add", ["ha", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]), helper.make_node("MatMul", ["r", "B"], ["rb"]),
        helper.make_node("Add", ["rb", "b"], [output]),
    ]  # fmt: skip


def tensor(name: str, dims: Sequence[int | str | None], kind: int = F) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(dims))


def file(
    nodes: Sequence[NodeProto],
    inputs: ValueInfoProto,
    outputs: Sequence[ValueInfoProto],
    weights: Mapping[str, Array],
    opset: int | None = 17,
    ml: int | None = None,
) -> ModelProto:
    constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(list(nodes), "g", [inputs], list(outputs), constants)
    imports = [] if opset is None else [helper.make_opsetid("", opset)]
    imports += [] if ml is None else [helper.make_opsetid(ML, ml)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def run(proto: ModelProto, x: Array, *names: str) -> list[Any]:
    """What onnxruntime makes of one input."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(list(names) or None, {session.get_inputs()[0].name: x}))


def points(seed: int, n: int, shape: Sequence[int]) -> Array:
    return np.random.default_rng(seed).random((n, *shape)).astype(np.float32)
