r"""Attention of ONNX (opset 23) by the operators that it is made of.

    Y = Softmax(s Q K^T + M) V,   s = scale, 1/sqrt(d) where it is not given,   M = 0 where a query may read a key, else -inf

per head, Q of shape `(1, heads, queries, d)`; with fewer heads of K and V each of them serves as many heads of Q in a row. Inputs
of three axes have the heads side by side in the last one. A constant mask (of truths, or of numbers that are added) and `is_causal`
(query i reads the keys up to i) become one constant M.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxsub.ops.base import Array, Shape
from onnxsub.ops.node import Node
from onnxsub.reading.parts import Parts

__all__ = ["attention"]

_HEADS_APART = 4
"""Axes of Q, K and V where the heads have one of their own."""


def attention(parts: Parts) -> list[Node] | None:
    """The nodes; None for what is not read: a cache, more outputs, a cap of the scores, a mask that depends on the input."""
    whole, given = parts.whole, parts.whole.attributes
    if any(whole.has(i) for i in range(4, len(whole.inputs))) or any(whole.outputs[1:]) or given.get("softcap", 0.0):
        return None
    shapes = [whole.shapes.get(parts.given(i)) for i in range(3)]
    fixed = whole.constant(0) is not None and whole.constant(1) is not None
    if any(s is None for s in shapes) or fixed or (whole.has(3) and whole.constant(3) is None):
        return None
    steps = _Steps(parts, dict(whole.constants))
    counts = (int(given.get("q_num_heads", 0)), *[int(given.get("kv_num_heads", 0))] * 2)
    (q, q_shape), (k, k_shape), (v, v_shape) = (steps.heads(parts.given(i), count) for i, count in enumerate(counts))
    if q_shape[1] % k_shape[1]:
        return None
    k, k_shape = steps.repeated(k, k_shape, q_shape[1])
    v, v_shape = steps.repeated(v, v_shape, q_shape[1])
    turned = steps.turned(k, (*k_shape[:2], k_shape[3], k_shape[2]), [0, 1, 3, 2])
    square = (*q_shape[:3], k_shape[2])
    name, scale = whole.outputs[0], float(given.get("scale", 0.0)) or 1.0 / math.sqrt(q_shape[3])
    z = steps.product(q, turned, square)
    z = parts.add("Mul", (z, f"{name}:scale"), square, {}, {f"{name}:scale": np.asarray(scale, dtype=np.float32)})
    mask = _mask(whole.constant(3), bool(given.get("is_causal", 0)), square)
    if mask is None:
        return None
    if mask.any():
        z = parts.add("Add", (z, f"{name}:mask"), square, {}, {f"{name}:mask": mask})
    z = parts.add("Softmax", (z,), square, {"axis": -1})
    y = steps.product(z, v, (*square[:3], v_shape[3]))
    if len(parts.shape) != _HEADS_APART:
        y = steps.turned(y, (1, q_shape[2], q_shape[1], v_shape[3]), [0, 2, 1, 3])
        steps.viewed(y, parts.shape)
    return parts.done()


@dataclass(frozen=True, eq=False)
class _Steps:
    """Nodes on what depends on the input; what does not (learned queries, keys of a memory) is computed here."""

    parts: Parts
    constants: dict[str, Array]

    def turned(self, x: str, shape: Shape, order: list[int]) -> str:
        if x in self.constants:
            return self._kept(f"{x}:turned", self.constants[x].transpose(order))
        return self.parts.add("Transpose", (x,), shape, {"perm": order})

    def viewed(self, x: str, shape: Shape) -> str:
        if x in self.constants:
            return self._kept(f"{x}:viewed", self.constants[x].reshape(shape))
        lengths = {f"{x}:lengths": np.array(shape, dtype=np.int64)}
        return self.parts.add("Reshape", (x, *lengths), shape, {}, lengths)

    def product(self, x: str, y: str, shape: Shape) -> str:
        return self.parts.add("MatMul", (x, y), shape, {}, {n: self.constants[n] for n in (x, y) if n in self.constants})

    def heads(self, x: str, count: int) -> tuple[str, Shape]:
        """An input with an axis of heads, and its shape."""
        shape = self.parts.whole.shapes[x]
        if len(shape) == _HEADS_APART:
            return x, shape
        apart = (shape[0], shape[1], count, shape[2] // count)
        moved = (apart[0], apart[2], apart[1], apart[3])
        return self.turned(self.viewed(x, apart), moved, [0, 2, 1, 3]), moved

    def repeated(self, x: str, shape: Shape, heads: int) -> tuple[str, Shape]:
        """Each head as many times as it serves one of the `heads` of Q."""
        if shape[1] == heads:
            return x, shape
        which, wider = np.repeat(np.arange(shape[1]), heads // shape[1]), (shape[0], heads, *shape[2:])
        if x in self.constants:
            return self._kept(f"{x}:repeated", self.constants[x][:, which]), wider
        served = {f"{x}:served": which}
        return self.parts.add("Gather", (x, *served), wider, {"axis": 1}, served), wider

    def _kept(self, name: str, value: Array) -> str:
        self.constants[name] = np.ascontiguousarray(value)
        return name


def _mask(given: Array | None, causal: bool, square: Shape) -> Array | None:
    """What is added to the scores; None where a mask has another shape."""
    found = np.zeros(square[2:], dtype=np.float32)
    if causal:
        found = np.where(np.tri(square[2], square[3], dtype=bool), found, np.float32(-np.inf))
    if given is None:
        return found
    if np.broadcast_shapes(given.shape, square) != square or given.shape[-1] != square[3]:
        return None
    added = np.where(given, np.float32(0), np.float32(-np.inf)) if given.dtype == bool else given.astype(np.float32)
    return np.asarray(found + added)
