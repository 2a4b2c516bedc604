"""Outputs of a window that lies in the padding altogether: they read nothing, in every pass."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.ops.average import AveragePool
from onnxsub.propagate import METHODS, compute_bounds
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits, MilpOptions

_RNG = np.random.default_rng(5)

_WINDOWS = {
    "conv": ("Conv", [2, 4, 4], {"pads": [3, 0, 0, 3], "kernel_shape": [2, 2]}, (3, 2, 2, 2)),
    "conv of groups": ("Conv", [2, 4, 4], {"pads": [0, 4, 1, 0], "kernel_shape": [2, 2], "group": 2}, (4, 1, 2, 2)),
    "conv with strides": ("Conv", [2, 5, 4], {"pads": [4, 3, 4, 3], "kernel_shape": [2, 1], "strides": [3, 2]}, (2, 2, 2, 1)),
    "conv of one axis": ("Conv", [2, 6], {"pads": [3, 4], "kernel_shape": [2]}, (3, 2, 2)),
    "conv of three axes": ("Conv", [1, 3, 2, 2], {"pads": [3, 0, 0, 0, 2, 0], "kernel_shape": [2, 1, 1]}, (2, 1, 2, 1, 1)),
    "dilated conv": ("Conv", [1, 4, 4], {"pads": [5, 0, 5, 0], "kernel_shape": [2, 2], "dilations": [2, 1]}, (2, 1, 2, 2)),
    "average": ("AveragePool", [2, 4, 4], {"pads": [1, 1, 1, 1], "kernel_shape": [2, 2], "count_include_pad": 1}, None),
}


def _model(name: str, *, twice: bool = False) -> onnx.ModelProto:
    """Conv, Relu, the window in question, Relu, (the same again,) Gemm."""
    op, shape, attributes, weight = _WINDOWS[name]
    one = len(shape) - 1
    constants = {"K": _RNG.normal(size=(shape[0], shape[0], *[1] * one)), "k": _RNG.normal(size=shape[0])}
    nodes = [helper.make_node("Conv", ["x", "K", "k"], ["a"]), helper.make_node("Relu", ["a"], ["r0"])]
    inputs = []
    if weight is not None:
        constants |= {"W": _RNG.normal(size=weight), "b": _RNG.normal(size=weight[0])}
        inputs = ["W", "b"]
    nodes += [helper.make_node(op, ["r0", *inputs], ["c1"], **attributes), helper.make_node("Relu", ["c1"], ["r1"])]
    last = "r1"
    if twice:  # what reads nothing is read by windows again
        channels = weight[0] if weight is not None else shape[0]
        constants["V"] = _RNG.normal(size=(2, channels, *[2] * one))
        nodes += [helper.make_node("Conv", ["r1", "V"], ["c2"], pads=[2] * (2 * one)), helper.make_node("Relu", ["c2"], ["r2"])]
        last = "r2"
    nodes.append(helper.make_node("Flatten", [last], ["f"]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("f", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    size = onnx.shape_inference.infer_shapes(proto).graph.output[0].type.tensor_type.shape.dim[1].dim_value
    proto.graph.node.append(helper.make_node("Gemm", ["f", "G", "g"], ["y"]))
    proto.graph.initializer.append(numpy_helper.from_array(_RNG.normal(size=(size, 3)).astype(np.float32) / 4, "G"))
    proto.graph.initializer.append(numpy_helper.from_array(_RNG.normal(size=3).astype(np.float32), "g"))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3]))
    return proto


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", _WINDOWS)
def test_bounds_contain_what_is_computed(name: str, method: str, *, twice: bool) -> None:
    network = lower(load_model(_model(name, twice=twice)))
    shape = network.input_shape
    found = compute_bounds(network, np.full(shape, 0.2), np.full(shape, 0.7), method)
    rng = np.random.default_rng(1)
    x = torch.as_tensor(np.where(rng.random((200, *shape)) < 0.5, 0.2, 0.7))
    with torch.no_grad():
        z = dict(zip((a.output for a in network.activations), network.preactivations(x), strict=True))
        y = network.forward(x)
    for op, values in z.items():
        l, u = found.pre[op]
        assert ((l <= values) & (values <= u)).all()
    assert ((found.output[0] <= y) & (y <= found.output[1])).all()


@pytest.mark.parametrize("tighten", ["lp", "cut", "none"])
@pytest.mark.parametrize("name", ["conv", "conv of groups", "conv of one axis"])
def test_programs_find_the_distance(name: str, tighten: str) -> None:
    model = load_model(_model(name))
    space = InputSpace(0.0, 255.0, (238.18851229546357,), (407.2866164344325,))
    x0 = np.random.default_rng(2).integers(0, 256, model.input_shape).astype(np.float32)
    query = make_query(model, x0, space=space)
    ours = distance(query, DistanceOptions(Limits(timeout=30), MilpOptions(tighten=tighten), verifier="milp"))
    theirs = distance(query, DistanceOptions(Limits(timeout=30)))
    assert ours.lower <= theirs.upper * (1 + 1e-6)
    assert theirs.lower <= ours.upper * (1 + 1e-6)


def test_an_average_passes_an_empty_window_on() -> None:
    (op,) = (op for op in lower(load_model(_model("average"))).ops if isinstance(op, AveragePool))
    nothing = (slice(0, 2), slice(3, 3))
    found = op.transpose_window(torch.zeros((7, 2, 2, 0), dtype=torch.float64), nothing)
    assert found is not None
    assert found[0].shape[:2] == (7, 2)
    assert not found[0].any()
