"""Both layouts on what random networks do not meet: element types, names, output shapes, every pooling; and on random DAGs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.layouts.compact import compact
from onnxsub.layouts.inplace import inplace
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.substituted import Substituted
from onnxsub.passes.fold import fold
from onnxsub.passes.substitute import METHODS, lines, substitute
from tests.handmade import Net, run
from tests.random_dags import random_dag
from tests.random_models import PIECEWISE

LAYOUTS = {"inplace": inplace, "compact": compact}


def values(network: Network, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        y = network.values(torch.as_tensor(x, dtype=torch.float64))[network.output]
    return y.reshape(len(x), -1).numpy()


def check(
    proto: ModelProto,
    *,
    methods: tuple[str, ...] = METHODS,
    shares: tuple[float, ...] = (0.0, 0.4, 1.0),
    tol: float = 1e-4,
    layouts: tuple[str, ...] = ("inplace", "compact"),
) -> None:
    """Files of both layouts are valid, of the original's input and output, and compute what the substitute in memory does."""
    model = load_model(proto)
    network = lower(model)
    rng = np.random.default_rng(0)
    x0 = rng.random(network.input_shape).astype(np.float32)
    x_adv = np.clip(x0 + rng.choice([-0.1, 0.1], x0.shape), 0, 1).astype(np.float32)
    xs = np.concatenate([x0[None], x_adv[None], rng.random((3, *x0.shape)).astype(np.float32)])
    f = values(network, xs)
    limit = tol * (1 + np.abs(f).max())
    for method in methods:
        for share in shares:
            kept = {a.output: rng.random(a.out_shape) < share for a in network.activations}
            g = substitute(network, lines(network, method, x0.astype(np.float64), x_adv.astype(np.float64)), kept)
            expected = values(g, xs)
            for name in layouts:
                file = LAYOUTS[name](model, g)
                onnx.checker.check_model(file, full_check=True)
                assert file.graph.input[0].type == proto.graph.input[0].type
                assert _shape(file.graph.output[0]) == _shape(proto.graph.output[0])
                again = load_model(file)
                assert again.outputs == model.outputs
                assert lower(again).classes == network.classes
                if name == "inplace" and model.stripped:
                    continue
                one_by_one = np.concatenate([run(file, x[None]) for x in xs])
                assert np.abs(one_by_one - expected).max() <= tol * (1 + np.abs(expected).max()), (name, method, share)
                assert np.abs(one_by_one[0] - f[0]).max() <= limit, (name, method, share)
                if not model.batch_fixed:
                    assert np.abs(run(file, xs) - one_by_one).max() <= tol * (1 + np.abs(expected).max())


def _shape(value: ValueInfoProto) -> tuple[str, int, list[int]]:
    """Name, element type and lengths, 0 for an open one: its name is the reader's own affair."""
    kind = value.type.tensor_type
    return value.name, kind.elem_type, [d.dim_value for d in kind.shape.dim]


# --- outputs


def test_outputs_that_are_not_flat() -> None:
    n = Net(2, 6, 6)
    y = n.node("GlobalAveragePool", [n.filters(n.node("Relu", [n.filters("x", 2, 4, 3)]), 4, 3, 1)])
    check(n.model(y, 3, 1, 1))
    n = Net(5)
    y = n.node("Unsqueeze", [n.gemm(n.node("Relu", [n.gemm("x", 5, 6)]), 6, 3), n.weight([1], np.int64)])
    check(n.model(y, 1, 3))


@pytest.mark.parametrize("tail", ["none", "Add", "Relu", "Sigmoid"])
def test_a_single_logit_without_a_class_axis(tail: str) -> None:
    n = Net(4)
    y = n.node("Squeeze", [n.gemm(n.node("Relu", [n.gemm("x", 4, 4)]), 4, 1), n.weight([1], np.int64)])
    if tail == "Add":
        y = n.node("Add", [y, n.weight(0.3)])
    elif tail != "none":
        y = n.node(tail, [y])
    check(n.model(y))


def test_an_output_that_is_an_activation() -> None:
    n = Net(5)
    y = n.node("Relu", [n.gemm(n.node("Relu", [n.gemm("x", 5, 6)]), 6, 3)])
    check(n.model(y, 3))


def test_a_head_stays_inplace_and_is_dropped_in_compact() -> None:
    n = Net(4)
    y = n.node("Softmax", [n.gemm(n.node("Relu", [n.gemm("x", 4, 4)]), 4, 3)], axis=1)
    proto = n.model(y, 3)
    check(proto)
    model = load_model(proto)
    network = lower(model)
    x0 = np.full(4, 0.5)
    g = substitute(network, lines(network, "con", x0), {a.output: np.zeros(a.out_shape, dtype=bool) for a in network.activations})
    kept, dropped = inplace(model, g), compact(model, g)
    assert "Softmax" in [node.op_type for node in kept.graph.node]
    assert "Softmax" not in [node.op_type for node in dropped.graph.node]
    np.testing.assert_allclose(run(kept, x0[None]).sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(run(kept, x0[None]), run(proto, x0[None]), rtol=1e-5)
    np.testing.assert_allclose(run(dropped, x0[None]), values(network, x0[None]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, "N", None])
def test_batch_axes(batch: int | str | None) -> None:
    n = Net(4)
    proto = n.model(n.gemm(n.node("Relu", [n.gemm("x", 4, 4)]), 4, 3), 3, batch=batch)
    check(proto)


def test_a_batch_axis_of_minus_one_stays_open() -> None:
    n = Net(4)
    proto = n.model(n.gemm(n.node("Relu", [n.gemm("x", 4, 4)]), 4, 3), 3, batch=-1)
    model = load_model(proto)
    assert not model.batch_fixed
    network = lower(model)
    dim = compact(model, network).graph.output[0].type.tensor_type.shape.dim[0]
    assert not dim.HasField("dim_value")


# --- graphs


def test_activations_on_the_input() -> None:
    n = Net(5)
    parts = [n.node("Relu", ["x"]), n.node("Abs", ["x"]), "x"]
    y = n.gemm(n.node("Tanh", [n.gemm(n.node("Concat", parts, axis=1), 15, 6)]), 6, 3)
    check(n.model(y, 3), methods=("con", "lin"))


def test_two_activations_and_a_sum_read_one_tensor() -> None:
    n = Net(5)
    z = n.gemm("x", 5, 6)
    r, leaky = n.node("Relu", [z]), n.node("LeakyRelu", [z], alpha=0.3)
    s = n.node("Add", [n.node("Sub", [r, leaky]), n.node("Add", [r, r])])
    check(n.model(n.gemm(n.node("Concat", [n.node("Add", [s, z]), r], axis=1), 12, 3), 3))


def test_without_any_activation_and_with_none_that_matters() -> None:
    n = Net(4)
    check(n.model(n.gemm("x", 4, 3), 3))
    n = Net(4)
    zero = n.node("Mul", ["x", n.weight(np.zeros(4))])
    check(n.model(n.gemm(n.node("Relu", [zero]), 4, 2), 2))


def test_con_of_everything_is_a_constant_file_in_both_layouts() -> None:
    n = Net(4)
    proto = n.model(n.gemm(n.node("Relu", [n.gemm("x", 4, 4)]), 4, 3), 3)
    model = load_model(proto)
    network = lower(model)
    x0 = np.random.default_rng(0).random(4)
    kept = {a.output: np.zeros(a.out_shape, dtype=bool) for a in network.activations}
    g = substitute(network, lines(network, "con", x0), kept)
    x = np.random.default_rng(1).random((7, 4))
    for layout in LAYOUTS.values():
        y = run(layout(model, g), x)
        np.testing.assert_allclose(y, np.broadcast_to(values(network, x0[None]), y.shape), rtol=1e-5, atol=1e-6)


def test_lines_of_kept_units_are_not_read() -> None:
    n = Net(4)
    model = load_model(n.model(n.gemm(n.node("Relu", [n.gemm("x", 4, 5)]), 5, 3), 3))
    network = lower(model)
    op = network.activations[0]
    kept = np.array([True, False, True, False, True])
    g = network.replace({op.output: Substituted.of(op, kept, np.full(5, 7.0), np.full(5, -3.0))})
    x = np.random.default_rng(0).random((5, 4))
    np.testing.assert_allclose(values(fold(g), x), values(g, x), rtol=1e-9, atol=1e-9)
    for layout in LAYOUTS.values():
        np.testing.assert_allclose(run(layout(model, g), x), values(g, x), rtol=1e-4, atol=1e-4)


# --- names


def test_names_that_the_folded_form_uses_itself() -> None:
    n = Net(4)
    r = n.named("Relu", [n.gemm("x", 4, 4)], "folded:x")
    r = n.named("Relu", [n.gemm(r, 4, 4, "folded:0:z")], "folded:0:h")
    check(n.model(n.gemm(r, 4, 3, "folded:logits:all"), 3))


@pytest.mark.parametrize("source", ["folded:x", "y/weight", "y:all", "folded:logits:all", "y/bias", "folded:input"])
def test_an_input_of_such_a_name(source: str) -> None:
    n = Net(4, source=source)
    check(n.model(n.gemm(n.node("Relu", [n.gemm(source, 4, 4)]), 4, 3, "y"), 3))


@pytest.mark.parametrize("output", ["folded:0:h", "folded:x", "folded:0:z/weight"])
def test_a_head_that_writes_such_a_name(output: str) -> None:
    n = Net(4)
    check(n.model(n.named("Softmax", [n.gemm(n.node("Relu", [n.gemm("x", 4, 4)]), 4, 3)], output, axis=1), 3))


def test_names_that_inplace_makes_itself() -> None:
    n = Net(4)
    r = n.named("Relu", [n.gemm("x", 4, 4)], "r")
    r = n.named("Relu", [n.gemm(r, 4, 4, "r/onnxsub/kept")], "r/onnxsub_/sum1")
    check(n.model(n.gemm(r, 4, 3), 3))


# --- element types


@pytest.mark.parametrize("kind", ["Relu", "Abs", "Clip", "Sigmoid"])
def test_float64(kind: str) -> None:
    n = Net(4, dtype=np.float64)
    z = n.gemm("x", 4, 4)
    r = n.node(kind, [z, n.weight(0.1)] if kind == "Clip" else [z])
    methods = METHODS if kind != "Sigmoid" else ("con", "lin")
    check(n.model(n.gemm(r, 4, 3), 3), tol=1e-10, methods=methods)


def test_float16() -> None:
    n = Net(2, 6, 6, dtype=np.float16)
    r = n.node("MaxPool", [n.node("Relu", [n.filters("x", 2, 3, 3)])], kernel_shape=[2, 2])
    check(n.model(n.gemm(n.node("Flatten", [r]), 27, 3), 3), tol=5e-3)


@pytest.mark.parametrize(
    ("source", "inner", "result"), [("f4", "f8", "f8"), ("f4", "f8", "f4"), ("f2", "f4", "f4"), ("f8", "f4", "f4")]
)
def test_casts_inside(source: str, inner: str, result: str) -> None:
    n = Net(4, dtype=source)
    code = helper.np_dtype_to_tensor_dtype(np.dtype(inner))
    z = n.node("MatMul", [n.node("Cast", ["x"], to=code), n.weight(n.gauss(4, 5, fan=4), inner)])
    r = n.node("Relu", [z]) if inner == "f8" else n.node("LeakyRelu", [z], alpha=0.3)
    y = n.node("MatMul", [r, n.weight(n.gauss(5, 3, fan=5), inner)])
    if result != inner:
        y = n.node("Cast", [y], to=helper.np_dtype_to_tensor_dtype(np.dtype(result)))
    check(n.model(y, 3, result=result), tol=2e-3 if source == "f2" else 1e-4)  # a float16 input rounds the anchor itself


def test_leaky_in_float64_without_the_operators_that_runtimes_lack() -> None:
    # the float32 part is in front, so the folded file computes in float64
    n = Net(4)
    z = n.node("MatMul", ["x", n.weight(n.gauss(4, 5, fan=4))])
    r = n.node("PRelu", [z, n.weight([0.1, -0.3, 1.7, 0.0, 0.5])])
    y = n.node("MatMul", [n.node("Cast", [r], to=TensorProto.DOUBLE), n.weight(n.gauss(5, 3, fan=5), np.float64)])
    check(n.model(y, 3, result=np.float64))


# --- activations and pooling


@pytest.mark.parametrize("kind", ["Relu", "Abs", "LeakyRelu"])
def test_activations_of_images(kind: str) -> None:
    n = Net(2, 5, 5)
    y = n.gemm(n.node("Flatten", [n.node(kind, [n.filters("x", 2, 3, 3)])]), 27, 3)
    check(n.model(y, 3))


def test_prelu_with_a_slope_per_channel() -> None:
    n = Net(2, 5, 5)
    slope = n.weight(np.array([0.1, -0.5, 1.7]).reshape(3, 1, 1))
    check(n.model(n.gemm(n.node("Flatten", [n.node("PRelu", [n.filters("x", 2, 3, 3), slope])]), 27, 3), 3))


@pytest.mark.parametrize(("lo", "hi"), [(None, 0.2), (0.0, None), (-0.2, 0.3), (0.1, 0.1)])
def test_clip_with_one_end_or_two(lo: float | None, hi: float | None) -> None:
    n = Net(5)
    inputs = [n.gemm("x", 5, 6), *("" if end is None else n.weight(end) for end in (lo, hi))]
    proto = n.model(n.gemm(n.node("Clip", inputs[:3] if inputs[2] else inputs[:2]), 6, 3), 3)
    check(proto)
    model = load_model(proto)
    file = compact(model, lower(model))
    limits = {t.name: list(t.dims) for t in file.graph.initializer}
    (clip,) = [node for node in file.graph.node if node.op_type == "Clip"]
    assert all(limits[name] == [] for name in clip.input[1:] if name)  # ONNX wants scalars


def test_leaky_is_written_in_the_form_that_most_readers_know() -> None:
    n = Net(5)
    z = n.node("Abs", [n.node("LeakyRelu", [n.gemm("x", 5, 6)], alpha=0.1)])
    model = load_model(n.model(n.gemm(z, 6, 3), 3))
    kinds = [node.op_type for node in compact(model, lower(model)).graph.node]
    assert "Abs" in kinds
    assert "LeakyRelu" in kinds
    assert "PRelu" not in kinds


POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2]},
    {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 0, 0, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "dilations": [2, 3]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "strides": [3, 3], "dilations": [3, 3], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [3, 3], "dilations": [3, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    {"kernel_shape": [2, 2], "strides": [5, 5]},
    {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [2, 1, 2, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"},
]


@pytest.mark.parametrize("size", [(7, 7), (8, 9)])
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_pooling_of_every_geometry(pool: dict[str, Any], size: tuple[int, int]) -> None:
    def build(width: int) -> tuple[Net, str]:
        n = Net(2, *size)
        return n, n.node("Flatten", [n.node("Relu", [n.node("MaxPool", [n.filters("x", 2, 2, 1)], **pool)])])

    n, flat = build(0)
    width = run(n.model(flat, 0, batch=1), np.zeros((1, 2, *size))).shape[1]  # onnxruntime says the shape
    n, flat = build(width)
    check(n.model(n.gemm(flat, width, 2), 2), shares=(0.3,), methods=("lin",))


def test_pooling_of_one_axis_of_everything_and_of_the_input() -> None:
    n = Net(2, 9)
    z = n.node("Conv", ["x", n.weight(n.gauss(3, 2, 3, fan=6))])
    r = n.node("Relu", [n.node("MaxPool", [z], kernel_shape=[2], strides=[2], ceil_mode=1)])
    check(n.model(n.gemm(n.node("Flatten", [r]), 12, 2), 2))
    n = Net(2, 5, 5)
    check(n.model(n.node("Flatten", [n.node("GlobalMaxPool", [n.node("Relu", [n.filters("x", 2, 3, 3)])])]), 3))
    n = Net(2, 5, 5)
    r = n.node("Relu", [n.node("MaxPool", ["x"], kernel_shape=[2, 2])])
    check(n.model(n.gemm(n.node("Flatten", [r]), 32, 3), 3))


def test_padding_that_no_file_can_state_is_refused() -> None:
    from dataclasses import replace

    from onnxsub.layouts.emit import Writer
    from onnxsub.ops.maxpool import MaxPool

    n = Net(1, 6, 6)
    y = n.node("GlobalMaxPool", [n.node("MaxPool", ["x"], kernel_shape=[2, 2])])
    (pool, _) = (op for op in lower(load_model(n.model(n.gemm(n.node("Flatten", [y]), 1, 2), 2))).ops if isinstance(op, MaxPool))
    odd = replace(pool, sliding=replace(pool.sliding, before=(3, 0)))
    with pytest.raises(UnsupportedOperatorError, match=r"MaxPool .* more padding than a folded file .* use --layout inplace"):
        Writer(np.dtype(np.float32)).add(odd, ("x",), "y")


def test_channels_last() -> None:
    n = Net(6, 6, 2)
    r = n.node("Relu", [n.filters(n.node("Transpose", ["x"], perm=[0, 3, 1, 2]), 2, 3, 3)])
    t = n.node("Transpose", [r], perm=[0, 2, 3, 1])
    check(n.model(n.gemm(n.node("Flatten", [n.node("Sigmoid", [t])]), 48, 3), 3), methods=("con", "lin"))


# --- random graphs


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS), share=st.sampled_from([0.0, 0.3]))
def test_random_graphs(seed: int, method: str, share: float) -> None:
    proto = random_dag(seed, activations=PIECEWISE) if method == "act" else random_dag(seed)
    check(proto, methods=(method,), shares=(share,))


@pytest.mark.parametrize("name", ["mnist_relu_3_50", "cnn_max_mninst2", "cifar10_small"])
def test_real_networks(net_path: Callable[[str], Path], name: str) -> None:
    check(onnx.load(net_path(name)), shares=(0.0,))
