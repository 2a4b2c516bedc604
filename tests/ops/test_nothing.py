"""Empty tensors: lists of no axis, nothing scattered, sums over nothing. What onnxruntime runs is read as it runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxsub.errors import OnnxsubError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.propagate import compute_bounds
from onnxsub.runtime import Runtime

NONE = np.zeros(0, np.int64)
X = np.array([[0.3, -0.7, 0.2, 0.9]], np.float32)

RUN: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
    **{
        f"Reduce{op}": (["x", "i0"], {"i0": NONE}, {"noop_with_empty_axes": 1})
        for op in ("L1", "L2", "Sum", "SumSquare", "Max", "Prod")
    },
    "Pad": (["x", "i0", "", "i1"], {"i0": NONE, "i1": NONE}, {}),
    "ScatterND": (["x", "i0", "i1"], {"i0": np.zeros((0, 2), np.int64), "i1": np.zeros(0, np.float32)}, {}),
    "ScatterND add": (["x", "i0", "i1"], {"i0": np.zeros((0, 2), np.int64), "i1": np.zeros(0, np.float32)}, {"reduction": "add"}),
    "ScatterElements": (["x", "i0", "i1"], {"i0": np.zeros((1, 0), np.int64), "i1": np.zeros((1, 0), np.float32)}, {"axis": 1}),
    "Slice": (["x", "i0", "i0", "i0"], {"i0": NONE}, {}),
    "Unsqueeze": (["x", "i0"], {"i0": NONE}, {}),
    "Expand": (["x", "i0"], {"i0": NONE}, {}),
    "Concat": (["x", "i0"], {"i0": np.zeros((1, 0), np.float32)}, {"axis": 1}),
    **{
        f"Reduce{op} of nothing": (["i0"], {"i0": np.zeros(0, np.float32)}, {"keepdims": 0})
        for op in ("L1", "L2", "Sum", "SumSquare", "Prod")
    },
}
REFUSED: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
    "Pad": (["x", "i0", "i1"], {"i0": np.array([0, 1, 0, -1]), "i1": np.zeros(0, np.float32)}, {}),
    "Pad nothing": (["x", "i0"], {"i0": NONE}, {}),
    "Clip": (["x", "i0"], {"i0": np.zeros(0, np.float32)}, {}),
    "ReduceMax of nothing": (["i0"], {"i0": np.zeros(0, np.float32)}, {"keepdims": 0}),
    "ReduceLogSum of nothing": (["i0"], {"i0": np.zeros(0, np.float32)}, {"keepdims": 0}),
}


def _file(path: Path, name: str, cases: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]]) -> Path:
    """The operator, added to the input where it does not read it, and a layer of three outputs."""
    inputs, constants, attributes = cases[name]
    nodes = [helper.make_node(name.split()[0], inputs, ["a"], **attributes)]
    nodes.append(helper.make_node("Identity", ["a"], ["h"]) if "x" in inputs else helper.make_node("Add", ["x", "a"], ["h"]))
    nodes.append(helper.make_node("MatMul", ["h", "w"], ["y"]))
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in {**constants, "w": weight}.items()]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k])] for n, k in (("x", 4), ("y", 3))]
    model = helper.make_model(helper.make_graph(nodes, "g", *ends, held), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", list(RUN))
def test_it_is_what_onnxruntime_makes_of_it(name: str, tmp_path: Path) -> None:
    model = load_model(_file(tmp_path / "m.onnx", name, RUN))
    network, expected = lower(model), Runtime(model, threads=1).raw(X)[0]
    with torch.no_grad():
        found = network.forward(torch.as_tensor(X, dtype=torch.float64))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    low, high = (end[0].double().numpy() for end in compute_bounds(network, X[0] - 0.01, X[0] + 0.01, "crown").output)
    assert ((low <= found) & (found <= high)).all()


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_has_no_value_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(OnnxsubError) as caught:
        lower(load_model(_file(tmp_path / "m.onnx", name, REFUSED)))
    assert "\n" not in str(caught.value)
    assert name.split()[0] in str(caught.value) or "NaN or infinite" in str(caught.value)
