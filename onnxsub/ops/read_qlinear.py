"""Readers of onnxruntime's own operators on integers beside those of ONNX: `com.microsoft`.

Each is what it does on real numbers, and a `Quantise` of the result (`read_quantize.py`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxsub.ops.base import Activation, Array, Operator
from onnxsub.ops.bilinear import Product
from onnxsub.ops.broadcast import of_sample, required
from onnxsub.ops.combine import Sum, read_concat
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.joined import joined
from onnxsub.ops.leaky import Leaky
from onnxsub.ops.node import Node
from onnxsub.ops.normalisation import read_softmax
from onnxsub.ops.read_quantize import Quantised, inner_node, read_dequantize, read_quantize, requantised
from onnxsub.ops.smooth import Sigmoid

__all__ = [
    "read_contrib_dequantize", "read_contrib_quantize", "read_qlinear_add", "read_qlinear_concat", "read_qlinear_leaky_relu",
    "read_qlinear_mul", "read_qlinear_sigmoid", "read_qlinear_softmax",
]  # fmt: skip

_MOST = 256
"""Steps of the whole of a quantised Softmax, beyond which its integers wrap round."""


def read_contrib_quantize(node: Node) -> tuple[Operator, ...]:
    """As the operator of ONNX that has its name."""
    return read_quantize(replace(node, op_type="QuantizeLinear"))


def read_contrib_dequantize(node: Node) -> tuple[Operator, ...]:
    """As the operator of ONNX that has its name."""
    return read_dequantize(replace(node, op_type="DequantizeLinear"))


def _constant(node: Node, i: int) -> Array:
    """Input i as real numbers; its scale and zero point follow it."""
    value, scale, zero = (required(node, i + k, what) for k, what in enumerate(("a constant", "its scale", "its zero point")))
    return np.asarray((value.astype(np.float64) - zero.reshape(-1)[0]) * float(scale.reshape(-1)[0]))


def read_qlinear_add(node: Node) -> tuple[Operator, ...]:
    """`A, a_scale, a_zero, B, b_scale, b_zero, y_scale, y_zero`; one of the two may be a constant."""
    target, shape = f"{node.outputs[0]}:sum", node.common()["out_shape"]
    common = {"op_type": node.op_type, "node": node.name, "output": target, "out_shape": shape}
    parts = [Quantised(node, i) for i in (0, 3) if node.inputs[i] in node.variables]
    before = tuple(op for part in parts for op in part.ops)
    total: Operator
    if len(parts) == 1:
        (part,), constant = parts, 3 if node.inputs[0] in node.variables else 0
        shift = of_sample(node, _constant(node, constant), len(part.shape) + 1)
        total = Scale(**common, inputs=(part.real,), in_shapes=(part.shape,), shift=shift)
    else:
        if any(len(part.shape) != len(shape) for part in parts):
            raise node.refuse("its terms have different numbers of axes")
        names, shapes = (tuple(f) for f in zip(*((p.real, p.shape) for p in parts), strict=True))
        total = Sum(**common, inputs=names, in_shapes=shapes, signs=(1, 1))
    return (*before, total, *requantised(node, target, 6, 7))


def read_qlinear_mul(node: Node) -> tuple[Operator, ...]:
    """`A, a_scale, a_zero, B, b_scale, b_zero, y_scale, y_zero`; one of the two may be a constant."""
    target, shape = f"{node.outputs[0]}:product", node.common()["out_shape"]
    common = {"op_type": node.op_type, "node": node.name, "output": target, "out_shape": shape}
    parts = [Quantised(node, i) for i in (0, 3) if node.inputs[i] in node.variables]
    if len(parts) == 1:
        (part,), constant = parts, 3 if node.inputs[0] in node.variables else 0
        factor = of_sample(node, _constant(node, constant), len(part.shape) + 1)
        scaled = Scale(**common, inputs=(part.real,), in_shapes=(part.shape,), scale=factor)
        return (*part.ops, scaled, *requantised(node, target, 6, 7))
    first, second = parts
    if len(first.shape) != len(second.shape):
        raise node.refuse("its factors have different numbers of axes")
    before = joined(
        (first.real, second.real), (first.shape, second.shape), f"{target}:joined", op_type=node.op_type, node=node.name
    )
    product = Product(
        **common, inputs=(before[-1].output,), in_shapes=(before[-1].out_shape,), first=first.shape, second=second.shape
    )
    return (*first.ops, *second.ops, *before, product, *requantised(node, target, 6, 7))


def read_qlinear_concat(node: Node) -> tuple[Operator, ...]:
    """`y_scale, y_zero`, and `x, x_scale, x_zero` of every tensor."""
    target = f"{node.outputs[0]}:whole"
    inputs: list[str] = []
    constants: dict[str, Array] = {}
    shapes = {target: node.shapes[node.outputs[0]]}
    before: tuple[Operator, ...] = ()
    for i in range(2, len(node.inputs), 3):
        name = f"{target}:{i}"
        if node.inputs[i] in node.constants:
            constants[name] = _constant(node, i)
        else:
            part = Quantised(node, i)
            before, name = (*before, *part.ops), part.real
        inputs.append(name)
        shapes[name] = node.shapes[node.inputs[i]]
    inner = replace(node, op_type="Concat", inputs=tuple(inputs), outputs=(target,), constants=constants, shapes=shapes)
    return (*before, *read_concat(inner), *requantised(node, target, 0, 1))


def _function(node: Node, kind: type[Activation], **fields: Array) -> tuple[Operator, ...]:
    """`x, x_scale, x_zero, y_scale, y_zero`: a function of every element, no unit beside its quantiser."""
    x, target = Quantised(node, 0), f"{node.outputs[0]}:function"
    function = kind(
        op_type=node.op_type, node=node.name, inputs=(x.real,), output=target, in_shapes=(x.shape,), out_shape=x.shape, inner=True,
        **fields,
    )  # fmt: skip
    return (*x.ops, function, *requantised(node, target, 3, 4))


def read_qlinear_sigmoid(node: Node) -> tuple[Operator, ...]:
    """A Sigmoid."""
    return _function(node, Sigmoid)


def read_qlinear_leaky_relu(node: Node) -> tuple[Operator, ...]:
    """A LeakyRelu."""
    return _function(node, Leaky, slope=np.array(float(node.attributes.get("alpha", 0.01))))


def read_qlinear_softmax(node: Node) -> tuple[Operator, ...]:
    """A Softmax of the opset that the attribute says: `x, x_scale, x_zero, y_scale, y_zero`, and `round(p c) + y_zero`.

    c is `1 / y_scale` cut off to a whole number; of the values of one row, one by one summed in float32, n may be a few.
    """
    x, target = Quantised(node, 0), f"{node.outputs[0]}:softmax"
    inner = replace(
        inner_node(node, "Softmax", x.real, target, ()), opset=int(node.attributes.get("opset", 13)),
        attributes={"axis": int(node.attributes.get("axis", -1))},
    )  # fmt: skip
    (whole,) = requantised(node, target, 3, 4)
    count = np.floor(np.float32(1) / whole.step.astype(np.float32)).astype(np.float64)
    if not (1 <= count <= _MOST):
        raise node.refuse(f"a scale of {float(whole.step):g}: onnxruntime is right for 1/{_MOST} to 1 only")
    room = whole.room * (4 + max(x.shape, default=1))
    return (*x.ops, *read_softmax(inner), replace(whole, step=1.0 / count, room=room))
