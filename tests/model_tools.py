"""Small classifiers, the prepared nodes run by the reference implementation, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxsub.errors import ModelError
from onnxsub.model import Model, load_model

__all__ = ["B", "Dims", "F", "W", "classifier", "evaluate", "external", "linear", "refused", "rng"]


F = TensorProto.FLOAT
Dims = list[int | str | None]


def classifier(
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, Any] | None = None,
    x: Dims | None = None,
    y: Dims | None = None,
    opset: int = 13,
    ir: int = 8,
    kind: int = F,
    domains: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model from input `x` (default (N, 6)) to output `y` (default (N, 3))."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["N", 6] if x is None else x)],
        [helper.make_tensor_value_info("y", kind, ["N", 3] if y is None else y)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


W = rng().normal(size=(6, 3)).astype(np.float32)
B = rng().normal(size=3).astype(np.float32)


def linear(**changes: Any) -> ModelProto:
    return classifier([helper.make_node("Gemm", ["x", "W", "b"], ["y"])], {"W": W, "b": B}, **changes)


def evaluate(model: Model, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The prepared nodes, rebuilt as a graph and run by ONNX's reference implementation on one sample."""
    nodes = []
    constants: dict[str, Any] = {}
    for n in model.nodes:
        nodes.append(helper.make_node(n.op_type, list(n.inputs), list(n.outputs), **n.attributes))
        constants |= n.constants
    graph = helper.make_graph(
        nodes,
        "rebuilt",
        [helper.make_tensor_value_info(model.input, F, [1, *model.input_shape])],
        [helper.make_tensor_value_info(model.output, F, [1, *model.output_shape])],
        [numpy_helper.from_array(np.array(v), k) for k, v in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", model.opset)], ir_version=8)
    (y,) = ReferenceEvaluator(proto).run(None, {model.input: x[None].astype(model.input_dtype)})
    return np.asarray(y)


def refused(source: Any, *words: str, error: type[Exception] = ModelError) -> str:
    """The message of the refusal, after a check that it is one line that holds `words` and says what to do."""
    with pytest.raises(error) as caught:
        load_model(source)
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, f"says what is wrong but not what to do: {message}"
    for word in words:
        assert word in message, message
    return message


def external(folder: Path, **changes: str) -> Path:
    """A model whose weights lie in weights.bin, with `changes` in the first tensor's entries."""
    path = folder / "m.onnx"
    proto = linear()
    onnx.save(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    if changes:
        proto = onnx.load(str(path), load_external_data=False)
        tensor = proto.graph.initializer[0]
        entries = {e.key: e.value for e in tensor.external_data} | changes
        del tensor.external_data[:]
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        path.write_bytes(proto.SerializeToString())
    return path
