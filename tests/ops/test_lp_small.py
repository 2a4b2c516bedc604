"""LpNormalization of small numbers: bounds hold what the real numbers say and what float32 makes of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.propagate import compute_bounds


def _model(p: int) -> onnx.ModelProto:
    node = helper.make_node("LpNormalization", ["x"], ["y"], axis=1, p=p)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("power", [0, -45, -62, -66, -74, -100, -130, -145, None])
@pytest.mark.parametrize("p", [1, 2])
def test_small_numbers_have_their_norm(p: int, power: int | None) -> None:
    model = _model(p)
    network = lower(load_model(model))
    x = np.array([[1.0, -0.5, 0.25]]) * (0.0 if power is None else 2.0**power)
    norm = np.abs(x).sum() if p == 1 else np.sqrt((x**2).sum())
    truth = x / norm if norm else x
    np.testing.assert_allclose(network.forward(torch.from_numpy(x)).numpy(), truth, rtol=1e-14)
    file = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x.astype(np.float32)})[0]
    width = 1e-3 * np.abs(x).max()
    for method in ("ibp", "crown"):
        low, high = (t.numpy() for t in compute_bounds(network, x - width, x + width, method).output)
        for value in (truth, file):
            assert (low - 1e-7 <= value).all(), method
            assert (value <= high + 1e-7).all(), method
