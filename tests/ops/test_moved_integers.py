"""Operators on integers whose batch axis is not in front: at batch 1, against onnxruntime, with points inside all bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.select import SelectOptions
from onnxsub.propagate.bounds import compute_bounds
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.quantised import with_room
from onnxsub.query import make_query
from onnxsub.runtime import Runtime
from tests.handmade import Net

MS = "com.microsoft"
ROWS, WIDTH = 3, 6
IMAGE = (2, 4, 4)


class _Integers(Net):
    """Rows of a quantised input: `(3, 6)`, or three images of two channels, where the input is `(1, 3, ...)`."""

    def __init__(self, *row: int, turned: bool = False) -> None:
        super().__init__(ROWS, *row, seed=3)
        self.s, self.z = self.weight(np.asarray(0.02)), self.weight(np.asarray(-7), np.int8)
        self.t, self.u = self.weight(np.asarray(0.05)), self.weight(np.asarray(5), np.int8)
        q = self.node("QuantizeLinear", ["x", self.s, self.z])
        if turned:  # the batch axis itself stands second
            self.q = [self.node("Transpose", [q], perm=[1, 0, *range(2, 2 + len(row))]), self.s, self.z]
        else:
            self.q = [self.node("Reshape", [q, self.weight(np.array([-1, *row]), np.int64)]), self.s, self.z]
        self.y = [self.t, self.u]

    def matrix(self, *shape: int, columns: int = 1) -> list[str]:
        """Integers with a scale and a zero point, of all or of the last axis."""
        w = self.rng.integers(-128, 127, shape).astype(np.int8)
        size = () if columns == 1 else (columns,)
        zero = self.rng.integers(-5, 5, size).astype(np.int8)
        return [self.weight(w, np.int8), self.weight(self.rng.uniform(0.005, 0.02, size)), self.weight(zero, np.int8)]

    def of(self, kind: str, inputs: list[str], **attributes: Any) -> onnx.ModelProto:
        domain = {"domain": MS} if kind in CONTRIB else {}
        y = self.node(kind, inputs, **attributes, **domain)
        if self.t in inputs:
            y = self.node("DequantizeLinear", [y, self.t, self.u])
        size = self._size(y)
        y = self.node("Relu", [self.node("Reshape", [y, self.weight(np.array([-1, size]), np.int64)])])
        proto = self.model(self.gemm(y, size, 3), 3)
        proto.opset_import.append(helper.make_opsetid(MS, 1))
        return proto

    def _size(self, y: str) -> int:
        """Elements of a sample's tensor, by running the graph so far."""
        proto = self.model(y, 1)
        del proto.graph.output[:]
        proto.graph.output.append(helper.make_empty_tensor_value_info(y))
        proto.opset_import.append(helper.make_opsetid(MS, 1))
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return int(np.asarray(session.run(None, {"x": np.zeros((1, *self.shape), np.float32)})[0]).size)


CONTRIB = frozenset({
    "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul",
    "QLinearSigmoid", "QLinearSoftmax",
})  # fmt: skip


def made(name: str, *, turned: bool = False) -> onnx.ModelProto:
    kind, _, more = name.partition(", ")
    n = _Integers(*(IMAGE if "Pool" in kind or kind == "QLinearConv" else (WIDTH,)), turned=turned)
    rows = [*n.q]
    more_axes = (1,) if turned else ()  # (3, 1, 6)
    if kind == "QLinearMatMul":
        if more == "of two tensors":
            other = [n.node("Transpose", [rows[0]], perm=[1, 0] if not turned else [0, 2, 1]), *rows[1:]]
            return n.of(kind, [*rows, *other, *n.y])
        if more == "from the left":
            return n.of(kind, [*n.matrix(*more_axes, 4, 1 if turned else ROWS), *rows, *n.y])
        return n.of(kind, [*rows, *n.matrix(WIDTH, 5, columns=5 if more else 1), *n.y])
    if kind == "QGemm":
        bias = [] if more == "no bias" else [n.weight(n.rng.integers(-3000, 3000, (5,)).astype(np.int32), np.int32)]
        shape, given = ((5, WIDTH), {"transB": 1}) if more == "transB" else ((WIDTH, 5), {"alpha": 0.5} if more == "alpha" else {})
        columns = 5 if more == "per column" else 1
        last = [] if more == "real" else n.y
        return n.of(kind, [*rows, *n.matrix(*shape, columns=columns), *(bias or [""]), *last], **given)
    if kind in ("QLinearAdd", "QLinearMul"):
        return n.of(kind, [*rows, *(n.matrix(WIDTH) if more else rows), *n.y])
    if kind == "QLinearConcat":
        return n.of(kind, [*n.y, *rows, *n.matrix(2, *more_axes, WIDTH), *rows], axis=0)
    if kind == "QLinearConv":
        w = n.matrix(4, 2, 3, 3)
        if more == "per channel":
            w = [w[0], n.weight(n.rng.uniform(0.005, 0.02, 4)), n.weight(np.zeros(4), np.int8)]
        return n.of(kind, [*rows, *w, *n.y, n.weight(n.rng.integers(-900, 900, 4), np.int32)], pads=[1, 0, 1, 1])
    given = {"QLinearAveragePool": {"kernel_shape": [2, 2 if more else 3]}, "QLinearLeakyRelu": {"alpha": 0.2}}.get(kind, {})
    if kind == "QLinearSoftmax":
        n.t, n.u = n.weight(np.asarray(1 / 256)), n.weight(np.asarray(-128), np.int8)
        return n.of(kind, [*rows, n.t, n.u], opset=13, axis=-1)
    return n.of(kind, [*rows, *n.y], **given)


NAMES = [
    "QLinearMatMul", "QLinearMatMul, per column", "QLinearMatMul, of two tensors", "QLinearMatMul, from the left", "QGemm",
    "QGemm, transB", "QGemm, alpha", "QGemm, no bias", "QGemm, per column", "QGemm, real", "QLinearAdd", "QLinearAdd, a constant",
    "QLinearMul", "QLinearMul, a constant", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearConv",
    "QLinearConv, per channel", "QLinearAveragePool", "QLinearAveragePool, ties", "QLinearGlobalAveragePool",
]  # fmt: skip
TURNED = [
    "QLinearMatMul", "QLinearMatMul, per column", "QLinearMatMul, of two tensors", "QLinearMatMul, from the left", "QLinearAdd",
    "QLinearAdd, a constant", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax",
]  # fmt: skip


@pytest.mark.parametrize(("name", "turned"), [(n, False) for n in NAMES] + [(n, True) for n in TURNED])
def test_values_and_bounds(name: str, turned: bool) -> None:
    model = load_model(made(name, turned=turned))
    network = with_room(lower(model), -2.0, 2.0)
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (60, *model.input_shape)).astype(np.float32)
    runtime = Runtime(model)
    with torch.no_grad():
        found = network.forward(torch.from_numpy(x.astype(np.float64))).numpy()
    want = runtime.logits(x)
    difference = np.abs(found - want).max(axis=1)
    # a sum that lies in the middle of two steps goes either way, by one step
    assert (difference <= 1e-4 * (1 + np.abs(want).max())).mean() >= (0.9 if "ties" not in name else 0.1)
    assert difference.max() <= 0.3 * (1 + np.abs(want).max())
    for eps in (0.0, 0.01, 0.3):
        low, high = x[0].astype(np.float64) - eps, x[0].astype(np.float64) + eps
        near = rng.uniform(low, high, (80, *model.input_shape)).astype(np.float32)
        logits = runtime.logits(np.clip(near, np.float32(low), np.float32(high)))
        for method in ("ibp", "crown"):
            l, u = (t[0].numpy() for t in compute_bounds(network, low - 1e-7, high + 1e-7, method).output)
            assert (l - 1e-5 <= logits).all()
            assert (logits <= u + 1e-5).all()


@pytest.mark.parametrize("name", ["QLinearMatMul", "QGemm", "QLinearConv"])
def test_substitutes(name: str) -> None:
    query = make_query(load_model(made(name)), np.random.default_rng(2).random((ROWS, *(IMAGE if "Conv" in name else (WIDTH,)))))
    result = prune(query, PruneOptions("con", SelectOptions(gamma=0.9, bounds="ibp"), "compact", 0.05))
    assert result.preserves["x0"] <= 1e-4 * (1 + float(np.abs(query.logits(query.x0[None])).max()))


def test_a_turned_matrix_is_refused() -> None:
    n = _Integers(WIDTH)
    proto = n.of("QGemm", [*n.q, *n.matrix(ROWS, 5), "", *n.y], transA=1)
    with pytest.raises(UnsupportedOperatorError, match="transA"):
        lower(load_model(proto))
