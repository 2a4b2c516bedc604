"""Small models that ask for much."""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxsub.ops.base import Array

__all__ = ["functions", "loop", "model_of"]


def model_of(nodes: list[NodeProto], constants: dict[str, Array], out: str, size: int = 4) -> ModelProto:
    """A classifier of 4 inputs: `nodes` lead from `x` to the tensor `out` of `size` numbers, a dense layer to 3 logits."""
    weight = np.random.default_rng(0).standard_normal((size, 3)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", 4), ("y", 3)))
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", [out, "w"], ["y"])], "g", [x], [y],
        [numpy_helper.from_array(v, k) for k, v in {**constants, "w": weight}.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("evil", 1)], ir_version=8)


def loop(turns: int) -> ModelProto:
    """`x` plus itself, so many times."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c1"]), helper.make_node("Tanh", ["v"], ["v1"])], "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 4]),
        ],
        [helper.make_tensor_value_info("c1", TensorProto.BOOL, []), helper.make_tensor_value_info("v1", TensorProto.FLOAT, [1, 4])],
    )  # fmt: skip
    node = helper.make_node("Loop", ["n", "t", "x"], ["h"], body=body)
    return model_of([node], {"n": np.array(turns, dtype=np.int64), "t": np.array(True)}, "h")


def functions(depth: int) -> ModelProto:
    """Functions that call each other twice: 2^depth nodes."""
    model = model_of([helper.make_node(f"F{depth}", ["x"], ["h"], domain="evil")], {}, "h")
    for i in range(depth + 1):
        name, domain = ("Relu", "") if i == 0 else (f"F{i - 1}", "evil")
        nodes = [helper.make_node(name, ["a"], ["b"], domain=domain), helper.make_node(name, ["b"], ["c"], domain=domain)]
        imports = [helper.make_opsetid("", 13), helper.make_opsetid("evil", 1)]
        model.functions.append(helper.make_function("evil", f"F{i}", ["a"], ["c"], nodes, imports))
    assert isinstance(model.functions[0], FunctionProto)
    assert not any(a.type == AttributeProto.GRAPH for n in model.graph.node for a in n.attribute)
    return model
