"""What onnxruntime fuses when it saves an optimised model: the values of its own operators, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from onnxsub.errors import OnnxsubError
from onnxsub.lower import lower, unsupported
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import make_query
from onnxsub.runtime import Runtime
from tests.handmade import Net

MICROSOFT = "com.microsoft"


def fused(n: Net, kind: str, inputs: list[str], **attributes: Any) -> str:
    return n.node(kind, inputs, domain=MICROSOFT, **attributes)


def model(n: Net, y: str, outputs: int, opset: int = 13) -> onnx.ModelProto:
    proto = n.model(y, outputs, opset=opset)
    proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return proto


def conv(activation: str, second: bool = False, **attributes: Any) -> onnx.ModelProto:
    n = Net(2, 5, 5, seed=3)
    weights = [n.weight(n.gauss(3, 2, 3, 3, fan=18)), n.weight(n.rng.normal(size=3))]
    more = [n.filters("x", 2, 3, 3)] if second else []
    h = fused(n, "FusedConv", ["x", *weights, *more], activation=activation, kernel_shape=[3, 3], **attributes)
    return model(n, n.gemm(n.node("Flatten", [h]), 27, 3), 3)


def rows(kind: str, *constants: int, **attributes: Any) -> onnx.ModelProto:
    n = Net(6, seed=3)
    h = n.gemm("x", 6, 8)
    h = fused(n, kind, [h, *(n.weight(n.rng.normal(size=c)) for c in constants)], **attributes)
    return model(n, n.gemm(h, 8, 3), 3)


def matmul(a: int, b: int, alpha: float, constant: bool = False) -> onnx.ModelProto:
    """Scores of attention, one factor turned or none; or a product with a constant."""
    n = Net(4, 4, seed=3)
    q, k = (n.node("MatMul", ["x", n.weight(n.gauss(4, 4, fan=4))]) for _ in range(2))
    other = n.weight(n.gauss(4, 4, fan=4)) if constant else k
    z = fused(n, "FusedMatMul", [q, other], transA=a, transB=b, alpha=alpha)
    return model(n, n.gemm(n.node("Flatten", [z]), 16, 3), 3)


def skip_norm(kind: str, parts: int) -> onnx.ModelProto:
    """A normalised sum of two tensors, with so many weights of its own."""
    n = Net(3, 8, seed=3)
    a, b = (n.node("MatMul", ["x", n.weight(n.gauss(8, 8, fan=8))]) for _ in range(2))
    h = fused(n, kind, [a, b, *(n.weight(n.rng.normal(size=8)) for _ in range(parts))], epsilon=1e-3)
    return model(n, n.gemm(n.node("Flatten", [h]), 24, 3), 3)


def rms_norm() -> onnx.ModelProto:
    """What onnxruntime makes of a root mean square: an operator in ONNX's domain that ONNX does not have."""
    n = Net(8, seed=3)
    h = n.node("SimplifiedLayerNormalization", [n.gemm("x", 8, 8), n.weight(n.rng.normal(size=8))], axis=-1, epsilon=1e-4)
    return n.model(n.gemm(n.node("Relu", [h]), 8, 3), 3, opset=13)


def early_norm() -> onnx.ModelProto:
    n = Net(8, seed=3)
    weights = [n.weight(n.rng.normal(size=8)) for _ in range(2)]
    h = n.node("LayerNormalization", [n.gemm("x", 8, 8), *weights], axis=-1, epsilon=1e-4)
    return n.model(n.gemm(n.node("Relu", [h]), 8, 3), 3, opset=13)


def gemm() -> onnx.ModelProto:
    n = Net(6, seed=3)
    weights = [n.weight(n.gauss(8, 6, fan=6)), n.weight(n.rng.normal(size=8))]
    h = fused(n, "FusedGemm", ["x", *weights], transB=1, activation="LeakyRelu", activation_alpha=0.2)
    return model(n, n.gemm(h, 8, 3), 3)


FILES = {
    "conv relu": conv("Relu"), "conv sum": conv("Relu", second=True), "conv sigmoid": conv("Sigmoid"), "conv tanh": conv("Tanh"),
    "conv clip": conv("Clip", activation_params=[-0.2, 0.7]), "conv leaky": conv("LeakyRelu", activation_params=[0.3]),
    "conv hard sigmoid": conv("HardSigmoid", activation_params=[0.3, 0.4]), "gemm": gemm(), "early norm": early_norm(),
    "gelu": rows("Gelu"), "bias gelu": rows("BiasGelu", 8), "fast gelu": rows("FastGelu"),
    "fast gelu with bias": rows("FastGelu", 8),
    "quick gelu": rows("QuickGelu", alpha=1.3), "skip norm": skip_norm("SkipLayerNormalization", 2),
    "skip norm with bias": skip_norm("SkipLayerNormalization", 3),
    "rms norm": rms_norm(), "skip rms norm": skip_norm("SkipSimplifiedLayerNormalization", 1),
    "skip rms norm with bias": skip_norm("SkipSimplifiedLayerNormalization", 2),
    "matmul": matmul(0, 0, 0.5), "matmul, second turned": matmul(0, 1, 0.5), "matmul, first turned": matmul(1, 0, 1.0),
    "matmul, constant": matmul(0, 1, 2.0, constant=True),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_values_are_those_of_onnxruntime(name: str) -> None:
    read = load_model(FILES[name])
    assert unsupported(read.nodes, read.output) == ()
    x = np.random.default_rng(1).normal(size=(6, *read.input_shape)).astype(np.float32)
    with torch.no_grad():
        found = lower(read).forward(torch.as_tensor(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, Runtime(read).logits(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["conv relu", "conv sum", "gelu", "early norm", "matmul, second turned"])
def test_a_substitute_of_it(name: str) -> None:
    read = load_model(FILES[name])
    query = make_query(read, np.random.default_rng(3).random(read.input_shape), threads=1)
    for layout in (None, "compact"):
        given = PruneOptions("con", SelectOptions(gamma=0.5, bounds="ibp"), layout, 0.05, AttackOptions(steps=5, restarts=2))
        found = prune(query, given)
        assert found.preserves["x0"] <= 1e-4 * (1 + float(np.abs(query.logits(query.x0[None])).max()))


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
def test_what_onnxruntime_saves_is_read(level: str, tmp_path: Path) -> None:
    n = Net(2, 6, 6, seed=5)
    h = n.node("Relu", [n.filters("x", 2, 3, 3)])
    h = n.gemm(n.node("Flatten", [h]), 48, 8)
    d = n.node("Sub", [h, n.node("ReduceMean", [h], axes=[-1])])
    v = n.node("ReduceMean", [n.node("Pow", [d, n.weight(np.asarray(2.0))])], axes=[-1])
    h = n.node("Div", [d, n.node("Sqrt", [n.node("Add", [v, n.weight(np.asarray(1e-5))])])])
    h = n.node("Add", [n.node("Mul", [h, n.weight(n.rng.normal(size=8))]), n.weight(n.rng.normal(size=8))])
    e = n.node("Erf", [n.node("Div", [h, n.weight(np.asarray(np.sqrt(2)))])])
    g = n.node("Mul", [n.node("Mul", [h, n.node("Add", [e, n.weight(np.asarray(1.0))])]), n.weight(np.asarray(0.5))])
    proto = n.model(n.gemm(g, 8, 3), 3)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "saved.onnx"), 4
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    saved, plain = load_model(tmp_path / "saved.onnx"), load_model(proto)
    if level == "EXTENDED":
        kinds = {node.op_type for node in saved.source.graph.node}
        assert {"FusedConv", "LayerNormalization", "Gelu"} <= kinds
    x = np.random.default_rng(1).normal(size=(4, 2, 6, 6)).astype(np.float32)
    with torch.no_grad():
        found = lower(saved).forward(torch.as_tensor(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, Runtime(plain).logits(x), rtol=1e-4, atol=1e-5)


def test_what_has_no_form_is_refused_by_name() -> None:
    n = Net(8, 6, 6, seed=5)
    n.node("Conv", ["x", n.weight(n.gauss(8, 8, 3, 3, fan=72))], domain="com.microsoft.nchwc", kernel_shape=[3, 3])
    y = n.node("ReorderOutput", ["t0"], domain="com.microsoft.nchwc", channels=8)
    proto = n.model(n.gemm(n.node("Flatten", [y]), 128, 3), 3)
    proto.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(OnnxsubError, match="its layout is of the machine that saved the file"):
        lower(load_model(proto))
    with pytest.raises(OnnxsubError, match="FusedConv") as raised:
        lower(load_model(conv("HardSwish")))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("opset", [8, 13])
def test_the_mean_of_several_tensors(opset: int) -> None:
    """An ensemble, and a constant beside it."""
    n = Net(6, seed=3)
    members = [n.node("Relu", [n.gemm("x", 6, 5)]) for _ in range(2)]
    proto = n.model(n.gemm(n.node("Mean", [*members, n.weight(n.rng.normal(size=5))]), 5, 3), 3, opset=opset)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    with torch.no_grad():
        found = lower(load_model(proto)).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, Runtime(load_model(proto)).logits(x), rtol=1e-4, atol=1e-5)


def test_quantised_weights_that_are_computed() -> None:
    """Weight normalisation after onnxruntime's quantiser: a product of two constants of integers."""
    n = Net(6, seed=3)
    integers = [n.weight(n.rng.integers(-100, 100, (5, 6)), np.int8), n.weight(n.rng.integers(1, 9, (5, 1)), np.int8)]
    scale, zero = n.weight(0.02), n.weight(0, np.int8)
    product = fused(n, "QLinearMul", [integers[0], scale, zero, integers[1], scale, zero, scale, zero])
    weight = n.node("Transpose", [n.node("DequantizeLinear", [product, scale, zero])], perm=[1, 0])
    proto = model(n, n.gemm(n.node("Relu", [n.node("MatMul", ["x", weight])]), 5, 3), 3)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    with torch.no_grad():
        found = lower(load_model(proto)).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, Runtime(load_model(proto)).logits(x), rtol=1e-4, atol=1e-5)
