"""The node tests that come with onnx as whole files, each of one sample: Reshape, the node, Reshape.

Every input of floats or truths that a case has may be the variable one. onnxruntime computes the same file; what is refused is
refused for one of the reasons below.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxsub.errors import ModelError, UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.ops.base import Array
from tests.ops.test_backend_cases import _cases
from tests.ops.tools import run

OTHERS = frozenset({
    "Add", "And", "Concat", "Div", "Equal", "Gemm", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "MatMul", "Max", "Min",
    "Mod", "Mul", "Or", "Pow", "ScatterElements", "ScatterND", "Sub", "Sum", "Where", "Xor",
})  # fmt: skip
"""Operators whose other inputs may be variable too."""

REFUSED = {
    "And|Or|Xor": "a constant of shape .* differs along the batch axis",  # it makes several rows of one sample
    "BatchNormalization|Dropout": "training mode",
    "ConvTranspose": "larger than what its windows span",
    "Gemm": "a constant of shape .* (differs along|moves) the batch axis",  # the product of A and B makes rows of one sample
    "LpPool": "p is 3; 1, 2 and 4 are read",
    "MatMul": "has no batch axis of length 1 in front",  # a constant makes several rows of one sample
    "Mod": "fmod is 0|only input 0 may depend|NaN or infinite",
    "Not": "uses opset 1",
    "Pow": "its base is not positive",
    "Sigmoid": "has no batch axis in front",  # taken off as a head, and nothing is left
    "SpaceToDepth": "Unrecognized attribute: mode",
}
"""By operator, why a file is refused."""

LEAST_RUN = 560
HEADS = ("test_logsoftmax_example_1", "test_softmax_example")
"""The node is taken off as the head of a classifier, and its input are the logits."""


def whole(model: onnx.ModelProto, inputs: list[Array], outputs: list[Array], variable: int) -> onnx.ModelProto:
    node = onnx.NodeProto()
    node.CopyFrom(model.graph.node[0])
    names, make = [i.name for i in model.graph.input], helper.make_node
    truths = [v.dtype == np.bool_ for v in (inputs[variable], outputs[0])]
    nodes = [make("Reshape", ["in", "shape"], ["before" if truths[0] else names[variable]])]
    if truths[0]:
        nodes.append(make("Cast", ["before"], [names[variable]], to=TensorProto.BOOL))
    last = model.graph.output[0].name
    nodes += [node, *([make("Cast", [last], ["behind"], to=TensorProto.FLOAT)] if truths[1] else [])]
    nodes.append(make("Reshape", ["behind" if truths[1] else last, "row"], ["out"]))
    weights = {n: v for k, (n, v) in enumerate(zip(names, inputs, strict=True)) if k != variable}
    weights |= {"shape": np.array(inputs[variable].shape, np.int64), "row": np.array([1, -1])}
    sizes = (("in", inputs[variable].size), ("out", outputs[0].size))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n, size in sizes]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(v, n) for n, v in weights.items()])
    version = next(o.version for o in model.opset_import if o.domain == "")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", min(version, 26))], ir_version=10)


def outcome(name: str, file: onnx.ModelProto, op: str, x: Array) -> str:
    try:
        network = lower(load_model(file))
    except (ModelError, UnsupportedOperatorError) as error:
        why = str(error)
        assert "\n" not in why
        listed = [reason for ops, reason in REFUSED.items() if re.fullmatch(ops, op)]
        return "refused" if any(re.search(reason, why) for reason in listed) else f"{name}: {why}"
    try:
        (want,) = run(file, {"in": x})
    except Exception as error:  # whatever onnxruntime raises
        return "not run" if "NOT_IMPLEMENTED" in str(error) else f"{name}: read, but onnxruntime says {error}"
    with torch.no_grad():
        found = network.forward(torch.from_numpy(x).double()).numpy()
    if name in HEADS:
        want = x
    assert found.shape == want.shape, name
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5, err_msg=name)
    return "run"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # building the data of other operators overflows
def test_every_node_case_as_a_file() -> None:
    counts: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = _cases()
    for name, model, inputs, outputs in cases:
        op = model.graph.node[0].op_type
        if outputs[0].dtype.kind not in "fb" or not outputs[0].size:
            continue
        for variable, x in enumerate(inputs):
            if x.dtype in (np.float32, np.bool_) and x.size and (variable == 0 or op in OTHERS):
                found = outcome(name, whole(model, inputs, outputs, variable), op, x.reshape(1, -1).astype(np.float32))
                counts[found] = counts.get(found, 0) + 1
    assert set(counts) <= {"run", "refused", "not run"}, counts
    assert counts["run"] >= LEAST_RUN
