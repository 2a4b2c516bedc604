"""Readers of what jumps: ThresholdedRelu, Sign, comparisons, what combines their truths, and Where with such a condition.

A truth is 1 or 0. A Where whose condition depends on the input is an `Either`; the functions that files spell with one (Relu,
LeakyRelu, Abs, Clip) are recognised before (`spelled_where.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from onnx import TensorProto

from onnxsub.ops import choose, read_movement
from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.broadcast import of_sample, only_variable
from onnxsub.ops.clip import Clip
from onnxsub.ops.compose import Composer
from onnxsub.ops.either import Either
from onnxsub.ops.joined import joined
from onnxsub.ops.jump import Jump, Piece
from onnxsub.ops.leaky import Leaky
from onnxsub.ops.node import Node
from onnxsub.ops.relu import Relu

__all__ = ["read_cast", "read_compare", "read_logical", "read_not", "read_sign", "read_thresholded_relu", "read_where"]

_ZERO, _ONE = (0.0, 0.0), (0.0, 1.0)
_COMPARED: Mapping[str, tuple[Piece, float, Piece]] = MappingProxyType({
    "Greater": (_ZERO, 0.0, _ONE), "GreaterOrEqual": (_ZERO, 1.0, _ONE), "Less": (_ONE, 0.0, _ZERO),
    "LessOrEqual": (_ONE, 1.0, _ZERO), "Equal": (_ZERO, 1.0, _ZERO),
})  # fmt: skip
"""The truth below the threshold, at it, and above it."""


def read_thresholded_relu(node: Node) -> tuple[Operator, ...]:
    """`z` where z is greater than alpha, 0 elsewhere: a Relu where alpha is 0, else it jumps there."""
    only_variable(node)
    alpha, common = float(node.attributes.get("alpha", 1.0)), node.common()
    if not math.isfinite(alpha):
        raise node.refuse(f"its alpha is {alpha}")
    if alpha == 0:
        return (Relu(**common),)
    return (Jump(**common, at=np.array(alpha), left=_ZERO, right=(1.0, 0.0), on=0.0, room=np.zeros(())),)


def read_sign(node: Node) -> tuple[Operator, ...]:
    """-1, 0 or 1."""
    only_variable(node)
    return (Jump(**node.common(), at=np.zeros(()), left=(0.0, -1.0), right=_ONE, on=0.0, room=np.zeros(())),)


def _truth(steps: Composer, x: str, kind: str, at: Array, into: str | None = None) -> str:
    left, on, right = _COMPARED[kind]
    return steps.apply(Jump, x, into, at=at, left=left, right=right, on=on, room=np.zeros(()))


def read_compare(node: Node) -> tuple[Operator, ...]:
    """Greater, Less, GreaterOrEqual, LessOrEqual, Equal: of two tensors as the sign of their difference."""
    steps, (x, y) = Composer(node), node.inputs
    ranks, shape = [len(node.shapes[n]) for n in node.variables], node.sample_shape(node.outputs[0])
    if len(node.variables) == 2:
        if len(set(ranks)) != 1:
            raise node.refuse("its tensors have different numbers of axes: the batch axis of one meets another axis of the other")
        _truth(steps, steps.minus(x, y), node.op_type, np.zeros(()), steps.output)
        return steps.done()
    source = node.variables[0]
    constant = of_sample(node, node.constants[y if x == source else x], ranks[0])
    turned = {"Greater": "Less", "Less": "Greater", "GreaterOrEqual": "LessOrEqual", "LessOrEqual": "GreaterOrEqual"}
    kind = node.op_type if x == source else turned.get(node.op_type, node.op_type)
    if steps.shapes[source] != shape:
        source = steps.scale(source, shift=np.zeros(shape))
    _truth(steps, source, kind, constant, steps.output)
    return steps.done()


def read_cast(node: Node) -> tuple[Operator, ...]:
    """To BOOL: whether a number is not 0; else an identity."""
    if int(node.attributes["to"]) != TensorProto.BOOL:
        return read_movement.read_cast(node)
    steps, at = Composer(node), np.zeros(())
    steps.apply(Jump, only_variable(node), steps.output, at=at, left=_ONE, on=0.0, right=_ONE, room=at)
    return steps.done()


def read_not(node: Node) -> tuple[Operator, ...]:
    """`1 - c`."""
    steps = Composer(node)
    steps.scale(only_variable(node), -1.0, 1.0, steps.output)
    return steps.done()


def read_logical(node: Node) -> tuple[Operator, ...]:
    """And: `max(c + d - 1, 0)`; Or: `min(c + d, 1)`; Xor: `|c - d|`."""
    steps, (x, y) = Composer(node), node.inputs
    rank = len(node.shapes[node.variables[0]])
    if any(len(node.shapes[n]) != rank for n in node.variables):
        raise node.refuse("its tensors have different numbers of axes: the batch axis of one meets another axis of the other")
    if len(node.variables) == 2:
        both = steps.minus(x, y) if node.op_type == "Xor" else steps.minus(x, steps.scale(y, -1.0))
    else:
        source = node.variables[0]
        constant = of_sample(node, node.constants[y if x == source else x], rank)
        both = steps.scale(source, shift=-constant if node.op_type == "Xor" else constant)
    if node.op_type == "And":
        steps.apply(Relu, steps.scale(both, shift=-1.0), steps.output)
    elif node.op_type == "Or":
        steps.apply(Clip, both, steps.output, lo=-math.inf, hi=1.0)
    else:
        steps.apply(Leaky, both, steps.output, slope=np.array(-1.0))
    return steps.done()


def read_where(node: Node) -> tuple[Operator, ...]:
    """Either of two tensors or constants, by a condition that is constant or not."""
    if node.constant(0) is not None:
        return choose.read_where(node)
    shape, rank = node.sample_shape(node.outputs[0]), len(node.shapes[node.outputs[0]])
    if any(len(node.shapes[n]) != rank for n in node.variables):
        raise node.refuse("its tensors have different numbers of axes: the batch axis of one meets another axis of the other")
    names = tuple(dict.fromkeys(node.variables))
    shapes = [node.sample_shape(n) for n in names]
    at = {n: (sum(map(math.prod, shapes[:i])), s) for i, (n, s) in enumerate(zip(names, shapes, strict=True))}
    behind, start = [], sum(map(math.prod, shapes))
    parts: list[tuple[int, Shape]] = []
    for name in node.inputs:
        if name in at:
            parts.append(at[name])
            continue
        value = of_sample(node, node.constants[name], rank)
        value = value.reshape((1,) * (rank - 1 - value.ndim) + value.shape)
        parts.append((start, value.shape))
        behind.append(value.reshape(-1))
        start += value.size
    both = f"{node.outputs[0]}:joined"
    before = joined(
        names, tuple(shapes), both, op_type=node.op_type, node=node.name, behind=np.concatenate(behind) if behind else None
    )
    return *before, Either(
        op_type=node.op_type, node=node.name, inputs=(both,), output=node.outputs[0], in_shapes=((start,),), out_shape=shape,
        parts=tuple(parts),
    )  # fmt: skip
