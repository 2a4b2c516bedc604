"""GroupNormalization of opset 18 to 20, which onnx calls deprecated and onnxruntime runs: read, replayed, pruned, written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxsub.errors import ModelError, UnsupportedOperatorError
from onnxsub.layouts.compact import compact
from onnxsub.layouts.inplace import inplace
from onnxsub.lower import lower
from onnxsub.model import load_model, save_model
from onnxsub.ops.base import Activation
from onnxsub.ops.substituted import Substituted
from onnxsub.propagate import compute_bounds
from tests.ops.tools import random, run

F32 = np.float32


def grouped(opset: int, groups: int = 2, parameters: int | None = None, batch: int | str = "N") -> ModelProto:
    """Four channels, normalised in groups, a Relu, and two classes."""
    count = (groups if opset < 21 else 4) if parameters is None else parameters
    weights = {"scale": np.linspace(0.5, 1.5, count), "bias": np.linspace(-0.5, 0.5, count), "W": random((36, 2), 3)}
    make = helper.make_node
    nodes = [make("GroupNormalization", ["x", "scale", "bias"], ["g"], num_groups=groups), make("Relu", ["g"], ["r"]),
             make("Flatten", ["r"], ["f"]), make("MatMul", ["f", "W"], ["y"])]  # fmt: skip
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, *s]) for n, s in (("x", (4, 3, 3)), ("y", (2,)))]
    tensors = [numpy_helper.from_array(v.astype(F32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("opset", [18, 19, 20, 21])
def test_values_bounds_and_files_are_those_of_onnxruntime(opset: int, groups: int, batch: int | str, tmp_path: Path) -> None:
    proto = grouped(opset, groups, batch=batch)
    model = load_model(proto)
    network = lower(model)
    x = random((5, 4, 3, 3), 1)
    want = np.concatenate([run(proto, {"x": one[None]})[0] for one in x])
    with torch.no_grad():
        found = network.forward(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
    low, high = (t.numpy() for t in compute_bounds(network, x.min(0).astype(float), x.max(0).astype(float), "crown").output)
    assert ((want >= low) & (want <= high)).all()
    (relu,) = [op for op in network.activations if not op.inner]
    assert isinstance(relu, Activation)
    part = Substituted.of(relu, np.arange(36).reshape(4, 3, 3) % 2 == 0, random((4, 3, 3), 5), random((4, 3, 3), 6))
    substitute = network.replace({relu.output: part})
    with torch.no_grad():
        values = substitute.forward(torch.from_numpy(x).double()).numpy()
    for layout in (inplace, compact):
        path = tmp_path / f"{layout.__name__}.onnx"
        save_model(layout(model, substitute), path)
        again = load_model(path)
        got = np.concatenate([run(again.source, {again.input: one[None]})[0] for one in x])
        np.testing.assert_allclose(got, values, rtol=1e-4, atol=1e-4)


def test_parameters_per_channel_are_refused_where_the_opset_has_them_per_group() -> None:
    """onnxruntime does not run that file either."""
    proto = grouped(18, 2, parameters=4)
    with pytest.raises(Exception, match="broadcast an axis"):
        run(proto, {"x": random((1, 4, 3, 3))})
    with pytest.raises(UnsupportedOperatorError, match="GroupNormalization"):
        lower(load_model(proto))


def test_the_rest_of_such_a_file_is_still_checked() -> None:
    proto = grouped(18)
    proto.graph.node[1].input[0] = "nothing"
    with pytest.raises(ModelError, match="not valid ONNX"):
        load_model(proto)


def test_other_deprecated_operators_are_still_refused() -> None:
    proto = grouped(18)
    proto.graph.node[1].op_type = "Upsample"
    with pytest.raises(ModelError, match=r"not valid ONNX.*Upsample"):
        load_model(proto)
