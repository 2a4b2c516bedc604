r"""Attention of ONNX (opset 23) by the operators that it is made of.

    Y = Softmax(s Q K^T + M) V,   s = scale, 1/sqrt(d) where it is not given,   M = 0 where a query may read a key, else -inf

per head, Q of shape `(1, heads, queries, d)`; with fewer heads of K and V each of them serves as many heads of Q in a row. Inputs
of three axes have the heads side by side in the last one. A constant mask (of truths, or of numbers that are added) and `is_causal`
(query i reads the keys up to i) become one constant M.
"""

from __future__ import annotations

import math

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
    if any(s is None for s in shapes) or (whole.has(3) and whole.constant(3) is None):
        return None
    counts = (int(given.get("q_num_heads", 0)), *[int(given.get("kv_num_heads", 0))] * 2)
    rows = [_heads(parts, i, count) for i, count in enumerate(counts)]
    (q, q_shape), (k, k_shape), (v, v_shape) = rows
    if q_shape[1] % k_shape[1]:
        return None
    k, k_shape = _repeated(parts, k, k_shape, q_shape[1])
    v, v_shape = _repeated(parts, v, v_shape, q_shape[1])
    turned = parts.add("Transpose", (k,), (*k_shape[:2], k_shape[3], k_shape[2]), {"perm": [0, 1, 3, 2]})
    square = (*q_shape[:3], k_shape[2])
    name, scale = whole.outputs[0], float(given.get("scale", 0.0)) or 1.0 / math.sqrt(q_shape[3])
    z = parts.add("MatMul", (q, turned), square, {})
    z = parts.add("Mul", (z, f"{name}:scale"), square, {}, {f"{name}:scale": np.asarray(scale, dtype=np.float32)})
    mask = _mask(whole.constant(3), bool(given.get("is_causal", 0)), square)
    if mask is None:
        return None
    if mask.any():
        z = parts.add("Add", (z, f"{name}:mask"), square, {}, {f"{name}:mask": mask})
    z = parts.add("Softmax", (z,), square, {"axis": -1})
    y = parts.add("MatMul", (z, v), (*square[:3], v_shape[3]), {})
    if len(parts.shape) != _HEADS_APART:
        y = parts.add("Transpose", (y,), (1, q_shape[2], q_shape[1], v_shape[3]), {"perm": [0, 2, 1, 3]})
        lengths = {f"{name}:lengths": np.array(parts.shape, dtype=np.int64)}
        parts.add("Reshape", (y, *lengths), parts.shape, {}, lengths)
    return parts.done()


def _heads(parts: Parts, i: int, count: int) -> tuple[str, Shape]:
    """Input i with an axis of heads, and its shape."""
    x = parts.given(i)
    shape = parts.whole.shapes[x]
    if len(shape) == _HEADS_APART:
        return x, shape
    apart = (shape[0], shape[1], count, shape[2] // count)
    lengths = {f"{x}:heads{i}": np.array(apart, dtype=np.int64)}
    y = parts.add("Reshape", (x, *lengths), apart, {}, lengths)
    moved = (apart[0], apart[2], apart[1], apart[3])
    return parts.add("Transpose", (y,), moved, {"perm": [0, 2, 1, 3]}), moved


def _repeated(parts: Parts, x: str, shape: Shape, heads: int) -> tuple[str, Shape]:
    """Each head as many times as it serves one of the `heads` of Q."""
    if shape[1] == heads:
        return x, shape
    which = {f"{x}:served": np.repeat(np.arange(shape[1]), heads // shape[1])}
    wider = (shape[0], heads, *shape[2:])
    return parts.add("Gather", (x, *which), wider, {"axis": 1}, which), wider


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
