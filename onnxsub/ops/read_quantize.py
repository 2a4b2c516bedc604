"""Readers of quantised networks: integer tensors hold their integers as real numbers, products of them are affine operators.

An operator that works on integers is read as what it does: `step (m - zero)` of what it reads, the operator itself on real numbers,
and a `Quantise` of the result. `joined` (`onnxsub/quantised.py`) then puts a quantiser and what undoes it together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnxsub.ops.average import AveragePool, read_average_pool
from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.broadcast import only_variable, required
from onnxsub.ops.conv import read_conv
from onnxsub.ops.dense import read_gemm
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.node import Node
from onnxsub.ops.quantize import Quantise
from onnxsub.ops.read_arithmetic import read_matmul
from onnxsub.ops.reduce import read_global_average

__all__ = [
    "Quantised",
    "read_conv_integer",
    "read_dequantize",
    "read_matmul_integer",
    "read_qgemm",
        "read_qlinear_average",
    "read_qlinear_conv",
    "read_qlinear_matmul",
    "read_quantize",
    "read_round",
    "requantised",
]

_LIMITS: Mapping[str, tuple[int, int]] = {
    "int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535),
    "int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3),
}  # fmt: skip
_TYPES: Mapping[int, str] = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 21: "uint4", 22: "int4", 25: "uint2", 26: "int2"}
"""Numbers of the types in ONNX."""

_DIVISION = 2.0**-23
"""What float32 may round a quotient by, relative to it, twice over."""


def read_round(node: Node) -> tuple[Quantise, ...]:
    """To the nearest integer, half to even: steps of 1 without limits."""
    only_variable(node)
    zero = np.zeros(())
    return (Quantise(**node.common(), step=np.ones(()), zero=zero, low=-np.inf, high=np.inf, stored=True, room=zero),)


def read_quantize(node: Node) -> tuple[Quantise, ...]:
    """`clip(round(x / scale) + zero)`, per tensor or axis; the type is that of the zero point, else an attribute, else uint8."""
    source = only_variable(node)
    if int(node.attributes.get("block_size", 0)):
        raise node.refuse("scales by blocks (block_size)")
    if int(node.attributes.get("precision", 0)) not in (0, 1):
        raise node.refuse("its division is not in float32 (precision)")
    scale, zero = _parameters(node, 1, 2, len(node.shapes[source]))
    kind = _TYPES.get(int(node.attributes.get("output_dtype", 0) or 2), "another type")
    given = node.constant(2)
    return (_quantise(node.common(), scale, zero, _limits(node, kind if given is None else str(given.dtype))),)


def read_dequantize(node: Node) -> tuple[Scale, ...]:
    """`scale (m - zero)`, per tensor or per axis."""
    source = only_variable(node)
    if int(node.attributes.get("block_size", 0)):
        raise node.refuse("scales by blocks (block_size)")
    scale, zero = _parameters(node, 1, 2, len(node.shapes[source]))
    return (_dequantise(node.common(), scale, zero),)


def read_qlinear_conv(node: Node) -> tuple[Operator, ...]:
    """QLinearConv: `x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, B`; the bias counts in `x_scale w_scale`."""
    x = Quantised(node, 0)
    weight = required(node, 3, "the kernel")
    w_scale, w_zero = (_along(node, i, weight.ndim, 0) for i in (4, 5))
    w = _signed(weight, w_zero) * w_scale
    bias = required(node, 8, "the bias").astype(np.float64) * x.scale.reshape(-1) * w_scale.reshape(-1) if node.has(8) else None
    common = node.common()
    conv = inner_node(node, "Conv", x.real, f"{common['output']}:sum", (w, bias))
    return (*x.ops, *read_conv(conv), *requantised(node, f"{common['output']}:sum", 6, 7))


def read_conv_integer(node: Node) -> tuple[Operator, ...]:
    """ConvInteger: `x, w, x_zero, w_zero`, an exact sum of integers."""
    x = Quantised(node, 0, scale=None, zero=2)
    weight = required(node, 1, "the kernel")
    w = _signed(weight, _along(node, 3, weight.ndim, 0))
    return (*x.ops, *read_conv(inner_node(node, "Conv", x.real, node.outputs[0], (w,))))


def read_qlinear_matmul(node: Node) -> tuple[Operator, ...]:
    """QLinearMatMul: `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero`."""
    target = f"{node.outputs[0]}:sum"
    return (*_product(node, (0, 1, 2), (3, 4, 5), target), *requantised(node, target, 6, 7))


def read_matmul_integer(node: Node) -> tuple[Operator, ...]:
    """MatMulInteger: `a, b, a_zero, b_zero`, an exact sum of integers."""
    return _product(node, (0, None, 2), (1, None, 3), node.outputs[0])


def read_qgemm(node: Node) -> tuple[Operator, ...]:
    """onnxruntime's QGemm: `A, a_scale, a_zero, B, b_scale, b_zero, C, y_scale, y_zero`; C counts in `alpha a_scale b_scale`.

    Without a scale for y the result stays real.
    """
    a = Quantised(node, 0)
    weight, alpha = required(node, 3, "the matrix B"), float(node.attributes.get("alpha", 1.0))
    axis = 0 if node.attributes.get("transB", 0) else 1
    b_scale, b_zero = (_along(node, i, weight.ndim, axis) for i in (4, 5))
    b = _signed(weight, b_zero) * b_scale
    c = None
    if node.has(6):
        c = required(node, 6, "the bias").astype(np.float64) * (alpha * a.scale.reshape(-1) * b_scale.reshape(-1))
    real = not node.has(7)
    target = node.outputs[0] if real else f"{node.outputs[0]}:sum"
    gemm: tuple[Operator, ...]
    if len(a.shape) == 1:
        gemm = read_gemm(inner_node(node, "Gemm", a.real, target, (b, c)))
    elif node.attributes.get("transA", 0):
        raise node.refuse("transA, where the batch axis is not in front")
    else:  # rows that are no batch
        product = target if c is None else f"{target}:product"
        gemm = read_matmul(inner_node(node, "MatMul", a.real, product, (alpha * (b if axis else b.T),)))
        common = node.common()
        common |= {"inputs": (product,), "in_shapes": (common["out_shape"],), "output": target}
        gemm = gemm if c is None else (*gemm, Scale(**common, shift=c))
    return (*a.ops, *gemm, *(() if real else requantised(node, target, 7, 8)))


def read_qlinear_average(node: Node) -> tuple[Operator, ...]:
    """onnxruntime's QLinearAveragePool and QLinearGlobalAveragePool: `x, x_scale, x_zero, y_scale, y_zero`."""
    if int(node.attributes.get("channels_last", 0)):
        raise node.refuse("channels_last")
    x, target = Quantised(node, 0), f"{node.outputs[0]}:sum"
    kind = node.op_type.rpartition("QLinear")[2]
    inner = inner_node(node, kind, x.real, target, ())
    pools = read_average_pool(inner) if kind == "AveragePool" else read_global_average(inner)
    given = node.attributes
    if given.get("ceil_mode", 0) and given.get("count_include_pad", 0):
        for sliding in (op.sliding for op in pools if isinstance(op, AveragePool)):
            declared = [int(p) for p in given.get("pads") or [0] * (2 * len(sliding.kernel))][len(sliding.kernel) :]
            if any(a > b for a, b in zip(sliding.after, declared, strict=True)):
                raise node.refuse("what ceil_mode adds, which onnxruntime counts with count_include_pad in this operator alone")
    return (*x.ops, *pools, *requantised(node, target, 3, 4))


class Quantised:
    """Input i of a node, an integer tensor, as real numbers: `scale (m - zero)`, in the tensor `real`.

    Args:
        scale, zero: number of the inputs; by default the two behind i. None: the scale is 1.
    """

    def __init__(self, node: Node, i: int, scale: int | None = -1, zero: int | None = None) -> None:
        name = node.inputs[i]
        if name not in node.variables:
            raise node.refuse(f"input {i} must depend on the network's input")
        self.shape: Shape = node.sample_shape(name)
        at = i + 1 if scale == -1 else scale
        self.scale, offset = _parameters(node, at, i + 2 if zero is None else zero, 1, per_axis=False)
        self.real = f"{node.outputs[0]}:real{i}"
        self.ops = (
            _dequantise(
                {"op_type": node.op_type, "node": node.name, "inputs": (name,), "output": self.real, "in_shapes": (self.shape,),
                 "out_shape": self.shape}, self.scale, offset,
            ),
        )  # fmt: skip


def _product(
    node: Node, left: tuple[int, int | None, int], right: tuple[int, int | None, int], target: str
) -> tuple[Operator, ...]:
    """`A B` in real numbers; where each has its tensor, scale and zero point among the inputs."""
    if {node.inputs[left[0]], node.inputs[right[0]]} <= {*node.variables}:
        a, b = (Quantised(node, i, scale=scale, zero=zero) for i, scale, zero in (left, right))
        shapes = {a.real: node.shapes[node.inputs[left[0]]], b.real: node.shapes[node.inputs[right[0]]]}
        shapes[target] = node.shapes[node.outputs[0]]
        both = replace(node, op_type="MatMul", inputs=(a.real, b.real), outputs=(target,), constants={}, shapes=shapes)
        return (*a.ops, *b.ops, *read_matmul(both))
    variable, constant = (left, right) if node.inputs[left[0]] in node.variables else (right, left)
    x = Quantised(node, variable[0], scale=variable[1], zero=variable[2])
    value = required(node, constant[0], "one factor")
    # scales of the right factor belong to its columns, of the left one to its rows
    axis = max(value.ndim - (1 if constant is right else 2), 0)
    factor = _signed(value, _along(node, constant[2], value.ndim, axis))
    if constant[1] is not None:
        factor = factor * _along(node, constant[1], value.ndim, axis)
    inner = inner_node(node, "MatMul", x.real, target, (factor,), first=constant is right)
    return (*x.ops, *read_matmul(inner))


def inner_node(
    node: Node, kind: str, source: str, target: str, constants: tuple[Array | None, ...], *, first: bool = True
) -> Node:
    """The operator itself, on real numbers."""
    given = {f"constant:{i}": c for i, c in enumerate(constants) if c is not None}
    shapes = {source: node.shapes[node.variables[0]], target: node.shapes[node.outputs[0]]}
    return replace(
        node, op_type=kind, inputs=(source, *given) if first else (*given, source), outputs=(target,), constants=given,
        shapes=shapes | {n: c.shape for n, c in given.items()},
    )  # fmt: skip


def requantised(node: Node, source: str, scale: int, zero: int) -> tuple[Quantise, ...]:
    """The result as integers again."""
    common = node.common()
    common |= {"inputs": (source,), "in_shapes": (common["out_shape"],)}
    step, offset = _parameters(node, scale, zero, 1, per_axis=False)
    given = node.constant(zero)
    return (_quantise(common, step, offset, _limits(node, "uint8" if given is None else str(given.dtype))),)


def _quantise(common: dict[str, Any], step: Array, zero: Array, limits: tuple[int, int]) -> Quantise:
    low, high = (float(end) for end in limits)
    reach = np.maximum(np.abs(low - zero), np.abs(high - zero)) + 1
    return Quantise(**common, step=step, zero=zero, low=low, high=high, stored=True, room=_DIVISION * reach)


def _dequantise(common: dict[str, Any], scale: Array, zero: Array) -> Scale:
    one = scale.ndim == 0 and scale == 1
    return Scale(**common, scale=None if one else scale, shift=-scale * zero if zero.any() else None)


def _limits(node: Node, kind: str) -> tuple[int, int]:
    if kind not in _LIMITS:
        raise node.refuse(f"a quantiser to {kind}; integers of 2 to 16 bits are read")
    return _LIMITS[kind]


def _parameters(node: Node, scale: int | None, zero: int, rank: int, *, per_axis: bool = True) -> tuple[Array, Array]:
    """Scale and zero point, float64, broadcastable to a sample of a tensor with `rank` axes."""
    found = np.ones(()) if scale is None else required(node, scale, "the scale")
    if found.dtype not in (np.float32, np.float64):
        raise node.refuse(f"scales of type {found.dtype}, which rounds otherwise than float32")
    offset = required(node, zero, "the zero point") if node.has(zero) else np.zeros((), dtype=np.int64)
    if not (found > 0).all():
        raise node.refuse("a scale is not positive")
    values = found.astype(np.float64), offset.astype(np.float64)
    if found.size == offset.size == 1:
        return values[0].reshape(()), values[1].reshape(())
    axis = int(node.attributes.get("axis", 1)) % max(rank, 1)
    if not per_axis or axis == 0 or found.ndim != 1 or offset.ndim > 1:
        raise node.refuse(f"scales of shape {list(found.shape)}, zero points of shape {list(offset.shape)}, axis {axis}")
    shape = (-1, *[1] * (rank - axis - 1))
    return tuple(v.reshape(shape) if v.size > 1 else v.reshape(()) for v in values)  # type: ignore[return-value]


def _along(node: Node, i: int, rank: int, axis: int) -> Array:
    """Scale or zero point i of a constant, broadcastable to it; its elements belong to the positions of one axis."""
    if not node.has(i):
        return np.zeros(())
    value = required(node, i, "a scale or a zero point").astype(np.float64)
    if value.size == 1:
        return value.reshape(())
    if value.ndim > 1:
        return value
    return value.reshape([-1 if k == axis else 1 for k in range(rank)])


def _signed(value: Array, zero: Array) -> Array:
    return np.asarray(value.astype(np.float64) - zero)
