"""Random small classifiers as ONNX files: dense, convolutional, residual, pooled, with every kind of activation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["ACTIVATIONS", "PIECEWISE", "random_model"]

PIECEWISE = ("Relu", "LeakyRelu", "PRelu", "Clip", "Abs")
ACTIVATIONS = (*PIECEWISE, "Sigmoid", "Tanh")


@dataclass
class Builder:
    rng: np.random.Generator
    activations: tuple[str, ...]
    opset: int = 13
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def fresh(self) -> str:
        return f"t{len(self.nodes)}"

    def weight(self, values: np.ndarray, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = self.fresh()
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def gauss(self, *shape: int, fan: int) -> np.ndarray:
        return self.rng.normal(size=shape) * np.sqrt(1.5 / fan)

    def activation(self, x: str, shape: tuple[int, ...]) -> str:
        kind = str(self.rng.choice(self.activations))
        if kind == "LeakyRelu":
            return self.node(kind, [x], alpha=float(self.rng.choice([0.01, 0.3, 1.5, -0.2])))
        if kind == "PRelu":
            slope = self.rng.uniform(-0.3, 1.3, (shape[0], *[1] * (len(shape) - 1)))
            return self.node(kind, [x, self.weight(slope)])
        if kind == "Clip":
            return self.node(kind, [x, self.weight(np.array(self.rng.choice([0.0, -0.4]))), self.weight(np.array(0.6))])
        return self.node(kind, [x])

    def dense(self, x: str, n: int, m: int) -> str:
        w, b = self.gauss(m, n, fan=n), 0.3 * self.rng.normal(size=m)
        if self.rng.random() < 0.3:
            return self.node("Add", [self.node("MatMul", [x, self.weight(w.T)]), self.weight(b)])
        return self.node("Gemm", [x, self.weight(w), self.weight(b)], transB=1)

    def conv(self, x: str, shape: tuple[int, ...], channels: int, stride: int) -> tuple[str, tuple[int, ...]]:
        c, h, w = shape
        k = min(int(self.rng.integers(1, 4)), h, w)
        pad = int(self.rng.integers(0, 2)) if k > 1 else 0
        weight = self.gauss(channels, c, k, k, fan=c * k * k)
        y = self.node(
            "Conv",
            [x, self.weight(weight), self.weight(0.3 * self.rng.normal(size=channels))],
            strides=[stride] * 2,
            pads=[pad] * 4,
        )
        return y, (channels, (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1)

    def residual(self, x: str, shape: tuple[int, ...]) -> str:
        c = shape[0]
        weights = [self.weight(self.gauss(c, c, 3, 3, fan=9 * c)) for _ in range(2)]
        y = self.activation(self.node("Conv", [x, weights[0]], pads=[1] * 4), shape)
        y = self.node("Conv", [y, weights[1]], pads=[1] * 4)
        return self.activation(self.node(str(self.rng.choice(["Add", "Sub"])), [x, y]), shape)


def random_model(
    seed: int,
    *,
    activations: tuple[str, ...] = ("Relu",),
    kind: str | None = None,
    classes: int | None = None,
    batch: int | str = "N",
) -> ModelProto:
    """A classifier with inputs in [0, 1], of kind `dense`, `conv` or `residual` (default: by the seed)."""
    rng = np.random.default_rng(seed)
    b = Builder(rng, activations)
    kind = kind or str(rng.choice(["dense", "conv", "residual"]))
    classes = classes or int(rng.integers(2, 5))
    shape: tuple[int, ...] = (int(rng.integers(2, 7)),) if kind == "dense" else (int(rng.integers(1, 3)), 6, 6)
    entry = shape
    x = "x"
    if kind == "dense":
        n = shape[0]
        first = None
        for _ in range(int(rng.integers(1, 4))):
            m = int(rng.integers(3, 9))
            x, n = b.activation(b.dense(x, n, m), (m,)), m
            first = first or (x, m)
        if rng.random() < 0.4 and first is not None:
            x, n = b.node("Concat", [x, first[0]], axis=1), n + first[1]
        if rng.random() < 0.3:
            x = b.node("Mul", [x, b.weight(rng.uniform(0.5, 1.5, n))])
    else:
        x, shape = b.conv(x, shape, int(rng.integers(2, 4)), 1)
        if rng.random() < 0.5:
            scale, bias, mean, var = (
                rng.uniform(0.5, 1.5, shape[0]),
                rng.normal(size=shape[0]) / 5,
                rng.normal(size=shape[0]) / 5,
                rng.uniform(0.5, 2, shape[0]),
            )
            x = b.node("BatchNormalization", [x, *(b.weight(v) for v in (scale, bias, mean, var))])
        x = b.activation(x, shape)
        if kind == "residual":
            x = b.residual(x, shape)
        pool = rng.choice(["none", "MaxPool", "AveragePool"])
        if pool != "none" and min(shape[1:]) >= 2:
            x = b.node(str(pool), [x], kernel_shape=[2, 2], strides=[2, 2])
            shape = (shape[0], shape[1] // 2, shape[2] // 2)
        x, shape = b.conv(x, shape, 3, int(rng.integers(1, 3)))
        x = b.activation(x, shape)
        x = b.node("Flatten", [x])
        n = int(np.prod(shape))
        x = b.activation(b.dense(x, n, 6), (6,))
        n = 6
    x = b.dense(x, n, classes)
    graph = helper.make_graph(
        b.nodes,
        f"random{seed}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *entry])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [batch, classes])],
        b.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
