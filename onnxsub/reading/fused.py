"""Operators that stand for several others, as these: those of onnxruntime, which it makes when it saves a model, and two of ONNX.

| `com.microsoft` | is read as |
|---|---|
| FusedConv, FusedGemm | Conv or Gemm, the sum with a second tensor, the activation |
| Gelu, BiasGelu, FastGelu, QuickGelu | the sum with the bias, Gelu (of tanh: FastGelu) or Swish |
| FusedMatMul | Transpose of the last two axes, MatMul, Mul by alpha |
| SkipLayerNormalization, SkipSimplifiedLayerNormalization | the sums, LayerNormalization or RMSNormalization |
| SimplifiedLayerNormalization (of onnxruntime, in ONNX's domain) | RMSNormalization |
| Mean (ONNX) | Sum, Mul by one over the number of tensors |
| Attention (ONNX, opset 23) | `attention.py` |

What they share with their parts, they have by name: attributes, and the order of inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxsub.ops.node import Node
from onnxsub.reading.attention import attention
from onnxsub.reading.parts import Parts

__all__ = ["OF_ONE_PROCESSOR", "unfused"]

OF_ONE_PROCESSOR = "com.microsoft.nchwc."
"""Domain of operators whose layout fits the machine that saved the file; onnxruntime runs it on no other kind."""

_DOMAIN = "com.microsoft."
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "": (), "Relu": (), "Sigmoid": (), "Tanh": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"),
    "Clip": ("low", "high"), "Softplus": (), "Elu": ("alpha",), "ThresholdedRelu": ("alpha",),
}  # fmt: skip
"""Activations that are fused, and the names of their parameters in order."""


def unfused(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes, fused ones as what they are made of; one that has no form here stays, and is refused by its name."""
    found: list[Node] = []
    for node in nodes:
        make = _KINDS.get(node.op_type)
        parts = None if make is None or node.outputs[0] not in node.shapes else make(Parts(node))
        found += [node] if parts is None else parts
    return tuple(found)


def _activated(parts: Parts, x: str, kind: str, parameters: list[float] | None) -> bool:
    """Adds an activation; False where it is not known."""
    names = _PARAMETERS.get(kind)
    values = [] if parameters is None else [float(p) for p in parameters]
    if names is None or len(values) not in (0, len(names)):
        return False
    given = dict(zip(names, values, strict=False))
    if kind == "Clip":
        if not values:
            return False
        ends = {f"{x}:{n}": np.asarray(v, dtype=np.float32) for n, v in given.items()}
        parts.add(kind, (x, *ends), parts.shape, {}, ends)
    elif kind:
        parts.add(kind, (x,), parts.shape, given)
    return True


def _conv(parts: Parts) -> list[Node] | None:
    x = parts.add(
        "Conv", tuple(n for n in (parts.given(0), parts.given(1), parts.given(2)) if n), parts.shape,
        parts.attributes("activation", "activation_params"),
    )  # fmt: skip
    given = parts.whole.attributes
    ok = _activated(parts, parts.sum_with(x, 3), str(given.get("activation", "")), given.get("activation_params"))
    return parts.done() if ok else None


def _gemm(parts: Parts) -> list[Node] | None:
    left_out = [n for n in parts.whole.attributes if n.startswith("activation")]
    inputs = tuple(n for n in (parts.given(0), parts.given(1), parts.given(2)) if n)
    x, given = parts.add("Gemm", inputs, parts.shape, parts.attributes(*left_out)), parts.whole.attributes
    kind = str(given.get("activation", ""))
    values = [given[f"activation_{n}"] for n in _PARAMETERS.get(kind, ()) if f"activation_{n}" in given]
    return parts.done() if kind != "Clip" and _activated(parts, x, kind, values or None) else None


def _gelu(parts: Parts) -> list[Node] | None:
    tanh = parts.whole.op_type.endswith("FastGelu")
    x = parts.sum_with(parts.given(0), 1)
    parts.add("Gelu", (x,), parts.shape, {"approximate": "tanh" if tanh else "none"})
    return parts.done()


def _quick_gelu(parts: Parts) -> list[Node] | None:
    parts.add("Swish", (parts.given(0),), parts.shape, {"alpha": float(parts.whole.attributes.get("alpha", 1.702))})
    return parts.done()


def _matmul(parts: Parts) -> list[Node] | None:
    given, factors = parts.whole.attributes, []
    if given.get("transBatchA", 0) or given.get("transBatchB", 0):
        return None
    for i, name in enumerate(("transA", "transB")):
        x = parts.given(i)
        shape = parts.whole.shapes.get(x)
        if shape is None:
            return None
        if given.get(name, 0) and len(shape) > 1:
            order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            turned = tuple(shape[k] for k in order)
            value = parts.whole.constants.get(x)
            if value is None:
                x = parts.add("Transpose", (x,), turned, {"perm": order})
            else:
                factors.append((f"{x}:turned", {f"{x}:turned": value.transpose(order)}))
                continue
        factors.append((x, {}))
    (a, first), (b, second) = factors
    y = parts.add("MatMul", (a, b), parts.shape, {}, first | second)
    alpha = float(given.get("alpha", 1.0))
    if alpha != 1:
        name = f"{parts.whole.outputs[0]}:alpha"
        parts.add("Mul", (y, name), parts.shape, {}, {name: np.asarray(alpha, dtype=np.float32)})
    return parts.done()


def _skip_norm(parts: Parts) -> list[Node] | None:
    simplified = "Simplified" in parts.whole.op_type
    if any(n for n in parts.whole.outputs[1:]) or not parts.given(2):
        return None
    x = parts.add("Add", (parts.given(0), parts.given(1)), parts.shape, {})
    x = parts.sum_with(x, 3 if simplified else 4)
    inputs = (x, *(n for n in (parts.given(2), "" if simplified else parts.given(3)) if n))
    kind = "RMSNormalization" if simplified else "LayerNormalization"
    parts.add(kind, inputs, parts.shape, {"axis": -1, "epsilon": parts.whole.attributes.get("epsilon", 1e-12)})
    return parts.done()


def _rms_norm(parts: Parts) -> list[Node] | None:
    if any(n for n in parts.whole.outputs[1:]):
        return None
    parts.add("RMSNormalization", parts.whole.inputs, parts.shape, parts.attributes())
    return parts.done()


def _mean(parts: Parts) -> list[Node] | None:
    count, name = len(parts.whole.inputs), f"{parts.whole.outputs[0]}:share"
    x = parts.add("Sum", parts.whole.inputs, parts.shape, {})
    parts.add("Mul", (x, name), parts.shape, {}, {name: np.asarray(1.0 / count)})
    return parts.done()


_KINDS: Mapping[str, Callable[[Parts], list[Node] | None]] = {
    "Attention": attention, "Mean": _mean, "SimplifiedLayerNormalization": _rms_norm,
} | {
    f"{_DOMAIN}{name}": make
    for name, make in {
        "FusedConv": _conv, "FusedGemm": _gemm, "Gelu": _gelu, "BiasGelu": _gelu, "FastGelu": _gelu, "QuickGelu": _quick_gelu,
        "FusedMatMul": _matmul, "SkipLayerNormalization": _skip_norm, "SkipSimplifiedLayerNormalization": _skip_norm,
    }.items()
}  # fmt: skip
