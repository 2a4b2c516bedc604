"""Pooling and convolutions with attributes drawn at random: what is read computes what onnxruntime does, or is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import load_model

KINDS = ("MaxPool", "AveragePool", "LpPool", "Conv", "ConvTranspose")
MODES = ("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET")


def drawn(kind: str, seed: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """One node on a few channels, then Flatten, and the shape of the sample."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    rank, channels, opset = int(rng.choice([1, 2, 2, 2, 3])), int(rng.integers(1, 4)), int(rng.choice([9, 12, 19, 22]))
    spatial = [int(n) for n in rng.integers(1, 9, rank)]
    kernel, strides, dilations = ([int(v) for v in rng.integers(1, most, rank)] for most in (4, 4, 3))
    given: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    pool = kind.endswith("Pool")
    first = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}.get(kind, 7)  # of dilations and, nearly, of ceil_mode
    if opset >= first and rng.random() < 0.5:
        given["dilations"] = dilations
    if rng.random() < 0.5:
        given["auto_pad"] = str(rng.choice(MODES))
    if given.get("auto_pad", "NOTSET") == "NOTSET" and rng.random() < 0.6:
        given["pads"] = [int(v) for v in rng.integers(0, 3, 2 * rank)]
    if pool and opset >= (10 if kind == "AveragePool" else first) and rng.random() < 0.5:
        given["ceil_mode"] = 1
    if kind == "AveragePool" and rng.random() < 0.5:
        given["count_include_pad"] = 1
    if kind == "ConvTranspose" and rng.random() < 0.4:
        given["output_padding"] = [int(v) for v in rng.integers(0, 2, rank)]
    shape = (channels, 2) if kind == "ConvTranspose" else (2, channels)
    kernels = [] if pool else [numpy_helper.from_array(rng.normal(size=(*shape, *kernel)).astype(np.float32), "w")]
    nodes = [helper.make_node(kind, ["x", *(w.name for w in kernels)], ["o"], **given), helper.make_node("Flatten", ["o"], ["y"])]
    ends = [helper.make_tensor_value_info("x", 1, [1, channels, *spatial]), helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph(nodes, "drawn", ends[:1], ends[1:], kernels)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), (channels, *spatial)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_onnxruntime_computes(kind: str) -> None:
    compared = refused = 0
    for seed in range(100):
        model, shape = drawn(kind, seed)
        x = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            y = np.asarray(session.run(None, {"x": x})[0]).reshape(-1)
        except Exception:
            continue
        if y.size < 2:
            continue
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [1, y.size]))
        try:
            network = lower(load_model(model))
        except UnsupportedOperatorError:
            refused += 1
            continue
        with torch.no_grad():
            f = network.forward(torch.from_numpy(x.astype(np.float64))).numpy().reshape(-1)
        assert f.shape == y.shape, model.graph.node[0]
        np.testing.assert_allclose(f, y, rtol=1e-4, atol=1e-4, err_msg=str(model.graph.node[0]))
        compared += 1
    assert compared > 3 * refused
    assert compared > 20


def test_a_window_in_the_front_padding_alone_is_cropped_after_it_is_padded() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["o"], pads=[2, 0], strides=[3])
    ends = [helper.make_tensor_value_info("x", 1, [1, 1, 1]), helper.make_tensor_value_info("y", 1, [1, 2])]
    graph = helper.make_graph(
        [node, helper.make_node("Flatten", ["o"], ["y"])], "front", ends[:1], ends[1:],
        [numpy_helper.from_array(np.array([[[2.0]], [[3.0]]], dtype=np.float32), "w")],
    )  # fmt: skip
    network = lower(load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)))
    with torch.no_grad():
        assert network.forward(torch.ones((1, 1, 1), dtype=torch.float64)).tolist() == [[0.0, 0.0]]
        (back,) = network.ops[0].transpose(torch.ones((1, 2, 1), dtype=torch.float64))  # type: ignore[union-attr]
    assert back.tolist() == [[[0.0]]]
