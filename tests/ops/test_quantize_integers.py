"""Integer operators between quantisers: what they are read as, what is refused, the cases of onnx, and a real quantised file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower, lower_nodes
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.moved_batch import sample_of
from onnxsub.ops.quantize import Quantise
from onnxsub.propagate import compute_bounds
from onnxsub.quantised import with_room
from onnxsub.query import make_query
from onnxsub.runtime import Runtime
from tests.ops.test_backend_cases import _cases as node_cases
from tests.ops.test_quantize import graph, pair, scalar
from tests.ops.tools import nodes_of, random, run

F32 = np.float32
SHAPE = (2, 3, 4)

INT8 = {"s": scalar(0.04), "z": scalar(5, np.int8), "t": scalar(0.11), "u": scalar(-7, np.int8)}


def _integers(
    kind: str, constants: dict[str, Array], tail: list[str], domain: str = "", before: Sequence[tuple[str, list[str], str]] = (),
    **attributes: Any,
) -> ModelProto:  # fmt: skip
    """x, quantised to int8, and nodes `before`; the operator on it; back to real numbers where it writes integers of a scale."""
    shape = (3, 5, 4) if "Conv" in kind or "Pool" in kind else (6,)
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise"),
             helper.make_node(kind, tail, ["i"], name="inner", domain=domain, **attributes)]  # fmt: skip
    if kind.endswith("Integer"):
        nodes.append(helper.make_node("Cast", ["i"], ["y"], to=1))
    elif "t" in tail:
        nodes.append(helper.make_node("DequantizeLinear", ["i", "t", "u"], ["y"], name="back"))
    else:
        nodes[1].output[0] = "y"
    nodes[1:1] = [helper.make_node(op, inputs, [output], name=output) for op, inputs, output in before]
    nodes.append(helper.make_node("Flatten", ["y"], ["flat"]))
    return graph(nodes, {"x": shape}, "flat", INT8 | constants)


def _int8(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


W, B = _int8((4, 3, 3, 2)), np.array([100, -2000, 7, 500], np.int32)
INTEGER = {
    "QLinearConv": _integers(
        "QLinearConv", {"w": W, "ws": scalar(0.01), "wz": scalar(0, np.int8), "b": B},
        ["q", "s", "z", "w", "ws", "wz", "t", "u", "b"], pads=[1, 0, 1, 1], strides=[2, 1],
    ),
    "QLinearConv, per channel": _integers(
        "QLinearConv", {"w": W, "ws": np.array([0.01, 0.02, 0.005, 0.03], F32), "wz": np.zeros(4, np.int8), "b": B},
        ["q", "s", "z", "w", "ws", "wz", "t", "u", "b"],
    ),
    "ConvInteger": _integers(
        "ConvInteger", {"w": W.view(np.uint8), "wz": scalar(9, np.uint8), "z": scalar(100, np.uint8)}, ["q", "w", "z", "wz"],
        pads=[1, 1, 1, 1],
    ),
    "QLinearMatMul": _integers(
        "QLinearMatMul", {"w": _int8((6, 5)), "ws": scalar(0.02), "wz": scalar(3, np.int8)},
        ["q", "s", "z", "w", "ws", "wz", "t", "u"],
    ),
    "QLinearMatMul, per column": _integers(
        "QLinearMatMul", {"w": _int8((6, 2)), "ws": np.array([0.02, 0.05], F32), "wz": np.array([3, -4], np.int8)},
        ["q", "s", "z", "w", "ws", "wz", "t", "u"],
    ),
    "MatMulInteger": _integers("MatMulInteger", {"w": _int8((6, 5)), "wz": scalar(2, np.int8)}, ["q", "w", "z", "wz"]),
    "QGemm": _integers(
        "QGemm", {"w": _int8((5, 6)), "ws": scalar(0.02), "wz": scalar(0, np.int8), "b": _int8((5,), 1).astype(np.int32) * 50},
        ["q", "s", "z", "w", "ws", "wz", "b", "t", "u"], "com.microsoft", transB=1,
    ),
    "QGemm, real": _integers(
        "QGemm", {"w": _int8((6, 5)), "ws": scalar(0.02), "wz": scalar(0, np.int8)}, ["q", "s", "z", "w", "ws", "wz"],
        "com.microsoft",
    ),
    "QLinearAdd": _integers("QLinearAdd", {}, ["q", "s", "z", "q", "s", "z", "t", "u"], "com.microsoft"),
    "QLinearAdd, a constant": _integers(
        "QLinearAdd", {"w": _int8((6,)), "ws": scalar(0.02), "wz": scalar(3, np.int8)}, ["q", "s", "z", "w", "ws", "wz", "t", "u"],
        "com.microsoft",
    ),
    "QLinearAveragePool": _integers(
        "QLinearAveragePool", {}, ["q", "s", "z", "t", "u"], "com.microsoft", kernel_shape=[2, 3], strides=[1, 2],
    ),
    "QLinearMul": _integers("QLinearMul", {}, ["q", "s", "z", "q", "s", "z", "t", "u"], "com.microsoft"),
    "QLinearMul, a constant": _integers(
        "QLinearMul", {"w": _int8((6,)), "ws": scalar(0.02), "wz": scalar(3, np.int8)}, ["w", "ws", "wz", "q", "s", "z", "t", "u"],
        "com.microsoft",
    ),
    "QLinearConcat": _integers(
        "QLinearConcat", {"w": _int8((1, 2)), "ws": scalar(0.02), "wz": scalar(3, np.int8)},
        ["t", "u", "q", "s", "z", "w", "ws", "wz", "q", "s", "z"], "com.microsoft", axis=1,
    ),
    "QLinearSigmoid": _integers(
        "QLinearSigmoid", {"t": scalar(0.01), "u": scalar(-100, np.int8)}, ["q", "s", "z", "t", "u"], "com.microsoft"
    ),
    "QLinearSoftmax": _integers(
        "QLinearSoftmax", {"t": scalar(1 / 256), "u": scalar(-128, np.int8)}, ["q", "s", "z", "t", "u"], "com.microsoft", opset=12,
    ),
    "QLinearSoftmax, another scale": _integers(
        "QLinearSoftmax", {"t": scalar(0.0039), "u": scalar(-128, np.int8)}, ["q", "s", "z", "t", "u"], "com.microsoft",
        opset=13, axis=-1,
    ),
    "QLinearMatMul of two tensors": _integers(
        "QLinearMatMul", {"three": np.array([0, 2, 3]), "back": np.array([0, 3, 2])}, ["a", "s", "z", "b", "s", "z", "t", "u"],
        before=[("Reshape", ["q", "three"], "a"), ("Reshape", ["q", "back"], "b")],
    ),
    "QLinearLeakyRelu": _integers("QLinearLeakyRelu", {}, ["q", "s", "z", "t", "u"], "com.microsoft", alpha=0.2),
    "QLinearGlobalAveragePool": _integers("QLinearGlobalAveragePool", {}, ["q", "s", "z", "t", "u"], "com.microsoft"),
}  # fmt: skip


@pytest.mark.parametrize("name", INTEGER)
def test_integer_operators_and_their_bounds(name: str) -> None:
    model = load_model(INTEGER[name])
    shape = model.input_shape
    network = with_room(lower(model), -3.0, 3.0)
    rng = np.random.default_rng(0)
    runtime = Runtime(model)
    x = rng.uniform(-3, 3, (40, *shape)).astype(F32)
    with torch.no_grad():
        found = network.forward(torch.from_numpy(x.astype(np.float64))).numpy()
    want = runtime.logits(x)
    step = 0.11 if name != "QGemm, real" and not name.endswith("Integer") else 1e-4 * (1 + np.abs(want).max())
    # sums that lie in the middle of two steps go either way, by one step and seldom
    difference = np.abs(found - want)
    assert difference.max() <= 1.0001 * step
    assert (difference > 0.01 * step).mean() <= 0.05
    for width in (0.01, 0.3):
        centre = rng.uniform(-2, 2, shape)
        for method in ("ibp", "crown"):
            bounds = compute_bounds(network, centre - width, centre + width, method)
            y = runtime.logits((centre + rng.uniform(-width, width, (40, *shape))).astype(F32))
            low, high = (e[0].numpy() for e in bounds.output)
            assert (y >= low - 1e-5).all()
            assert (y <= high + 1e-5).all()


@pytest.mark.parametrize("per_axis", [False, True])
def test_quantisers_of_onnxruntime_are_those_of_onnx(per_axis: bool) -> None:
    step = np.array([0.1, 0.02], F32) if per_axis else scalar(0.05)
    zero = np.array([3, -7], np.int8) if per_axis else scalar(3, np.int8)
    attributes = {"axis": 1} if per_axis else {}
    model = pair(step, zero, 13, **attributes)
    for node in model.graph.node:
        node.domain = "com.microsoft"
    model.graph.node.append(helper.make_node("Flatten", ["y"], ["flat"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [1, 24]))
    network = lower(load_model(model))
    x = random((1, *SHAPE), 3, 2.0)
    (want,) = run(model, {"x": x})
    assert [type(op).__name__ for op in network.ops] == ["Quantise", "Reshape"]
    np.testing.assert_array_equal(network.forward(torch.from_numpy(x)).numpy(), want)


def test_the_error_of_a_product_is_that_of_float32() -> None:
    """Else a quantiser behind it would have all of the product's interval for room."""
    network = with_room(lower(load_model(INTEGER["QLinearMul"])), -3.0, 3.0)
    last = [op for op in network.activations if isinstance(op, Quantise)][-1]
    assert 0 < float(last.room.max()) < 1e-2


REFUSED = {
    "block_size": pair(np.full((1, 2, 3, 2), 0.1, F32), np.zeros((1, 2, 3, 2), np.int8), 21, axis=3, block_size=2),
    "not positive": pair(scalar(-0.1), scalar(0, np.int8)),
    "its scale depends on the input": graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="dynamic"),
         helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])], {"x": (6,)}, "y", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals(reason: str) -> None:
    model = REFUSED[reason]
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    with pytest.raises(UnsupportedOperatorError, match=reason) as raised:
        lower_nodes(nodes_of(model), "x", shape, "y")
    assert "\n" not in str(raised.value)


def test_what_ceil_mode_adds_is_refused_where_onnxruntime_counts_it() -> None:
    """A window of three columns of which one is there: AveragePool divides its sum by one, QLinearAveragePool by three."""

    def pooled(width: int, **given: int) -> ModelProto:
        return _integers(
            "QLinearAveragePool", {}, ["q", "s", "z", "t", "u"], "com.microsoft", kernel_shape=[1, width], strides=[1, width],
            ceil_mode=1, **given,
        )  # fmt: skip

    with pytest.raises(UnsupportedOperatorError, match="ceil_mode"):
        lower(load_model(pooled(3, count_include_pad=1)))
    assert lower(load_model(pooled(3))).classes == 30
    assert lower(load_model(pooled(2, count_include_pad=1))).classes == 30  # four columns hold two windows of two


def test_weights_that_are_dequantised_are_constants() -> None:
    constants = {"w": _int8((5, 6)), "s": np.array([0.1, 0.2, 0.3, 0.4, 0.5], F32), "z": np.arange(5).astype(np.int8)}
    nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"], axis=0),
             helper.make_node("Gemm", ["x", "v"], ["y"], transB=1)]  # fmt: skip
    model = load_model(graph(nodes, {"x": (6,)}, "y", constants))
    assert [type(op).__name__ for op in lower(model).ops] == ["Dense"]
    x = random((3, 6))
    with torch.no_grad():
        found = lower(model).forward(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, np.concatenate([Runtime(model).logits(v[None]) for v in x]), rtol=1e-5, atol=1e-4)


def test_what_lies_on_the_steps_already_is_a_view() -> None:
    twice = pair(scalar(0.05), scalar(3, np.int8))
    again = [helper.make_node("MaxPool", ["y"], ["p"], kernel_shape=[2, 2]),
             helper.make_node("QuantizeLinear", ["p", "s", "z"], ["r"]),
             helper.make_node("DequantizeLinear", ["r", "s", "z"], ["out"])]  # fmt: skip
    twice.graph.node.extend(again)
    twice.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2, 2, 3]))
    network = lower_nodes(nodes_of(twice), "x", SHAPE, "out")
    assert [type(op).__name__ for op in network.ops] == ["Quantise", "MaxPool", "Reshape"]
    x = random((1, *SHAPE), 2, 9.0)
    np.testing.assert_array_equal(network.values(torch.from_numpy(x))["out"].numpy(), run(twice, {"x": x})[0])


def test_integers_that_two_operators_read_are_units_once() -> None:
    """QLinearAdd reads one tensor twice; DequantizeLinear behind a quantiser that others read is a tensor of the file by itself."""
    ops = lower(load_model(INTEGER["QLinearAdd"])).ops
    assert [type(op).__name__ for op in ops] == ["Quantise", "Reshape", "Sum", "Quantise", "Reshape"]


def test_onnx_node_cases() -> None:
    ran, refused, others = set(), 0, 0
    kinds = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
    for name, model, given, wanted in node_cases():
        if model.graph.node[0].op_type not in kinds:
            continue
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        names = [v.name for v in copy.graph.input]
        node = copy.graph.node[0]
        source = names[0]
        kind = copy.graph.input[0].type.tensor_type.elem_type
        x = given[0].astype(np.float64)
        # the whole case is one sample: the axis of scales moves by one
        shape = list(x.shape) if x.ndim > 1 and x.shape[0] == 1 else [1, *x.shape]
        if shape != list(x.shape):
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                shape = list(x.shape)
            for a in node.attribute:
                if a.name == "axis" and a.i >= 0 and shape != list(x.shape):
                    a.i += 1
        del copy.graph.input[:]
        copy.graph.input.append(helper.make_tensor_value_info(source, kind, shape))
        copy.graph.output[0].type.tensor_type.ClearField("shape")
        copy.graph.initializer.extend(numpy_helper.from_array(v, n) for v, n in zip(given[1:], names[1:], strict=True) if n)
        try:
            (read,) = nodes_of(copy)
            network = lower_nodes((read,), source, sample_of(tuple(shape)), read.outputs[0])
        except onnx.shape_inference.InferenceError:
            continue  # its types go together with its shape only
        except UnsupportedOperatorError as error:
            others += node.op_type not in str(error)
            refused += 1
            continue
        got = network.values(torch.from_numpy(x.reshape(1, *sample_of(tuple(shape)))))[read.outputs[0]].numpy()
        np.testing.assert_allclose(got.reshape(wanted[0].shape), wanted[0].astype(np.float64), rtol=1e-3, atol=1e-6, err_msg=name)
        ran.add(node.op_type)
    assert ran >= kinds - {"QLinearMatMul"}
    assert others == 0
    assert refused > 0  # blocks, and floats of 8 bits


def _network(path: Path) -> Network:
    return make_query(path, np.random.default_rng(0).random(load_model(path).input_shape).astype(F32)).network


def test_a_real_quantised_file(data_dir: Path) -> None:
    path = data_dir / "models" / "qdq_int8.onnx"
    model = load_model(path)
    x = np.random.default_rng(0).random((8, *model.input_shape)).astype(F32)
    with torch.no_grad():
        found = lower(model).forward(torch.from_numpy(x)).numpy()
    step = 0.00087
    assert np.abs(found - Runtime(model).logits(x)).max() <= 1.01 * step
    network = _network(path)
    assert network.units == 784 + 6272 + 3136 + 784 + 10  # pooled and flattened values lie on their steps already
    rng = np.random.default_rng(1)
    for eps in (1e-3, 1e-2):
        low, high = np.clip(x[0] - eps, 0, 1), np.clip(x[0] + eps, 0, 1)
        bounds = compute_bounds(network, low, high, "ibp")
        y = Runtime(model).logits(rng.uniform(low, high, (32, *model.input_shape)).astype(F32))
        assert (y >= bounds.output[0].numpy() - 1e-6).all()
        assert (y <= bounds.output[1].numpy() + 1e-6).all()
