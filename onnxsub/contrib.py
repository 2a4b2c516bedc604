"""Operators of onnxruntime's own domain, whose shapes ONNX does not know: the standard operators that have the same shapes.

`onnxruntime.quantization` writes them (QOperator format), and onnxruntime stores them when it saves an optimised model.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import NodeProto, TensorProto, TypeProto, helper

__all__ = ["DOMAIN", "as_cast", "early_norm", "standard_form"]

DOMAIN = "com.microsoft"

_NEVER = 2**31  # no input has this number

_FORMS: Mapping[str, tuple[str, tuple[int, ...], tuple[str, ...], int]] = {
    "DequantizeLinear": ("Identity", (0,), (), _NEVER),
    "QGemm": ("Gemm", (0, 3), ("transA", "transB"), 8),
    "QLinearAdd": ("Add", (0, 3), (), 7),
    "QLinearAveragePool": (
        "AveragePool", (0,), ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"), 4
    ),
    "QLinearConcat": ("Concat", (), ("axis",), 1),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), (), 4),
    "QLinearLeakyRelu": ("LeakyRelu", (0,), (), 4),
    "QLinearMul": ("Mul", (0, 3), (), 7),
    "QLinearSigmoid": ("Sigmoid", (0,), (), 4),
    "QLinearSoftmax": ("Identity", (0,), (), 4),
    "QuantizeLinear": ("Identity", (0,), (), 2),
}  # fmt: skip
"""Standard operator, which inputs are its own (none: every third one), which attributes it shares, and the zero point whose type
the output has."""


def early_norm(node: NodeProto, version: int) -> bool:
    """Whether a node is a normalisation that onnxruntime has in ONNX's domain and ONNX has not: LayerNormalization before opset 17,
    SimplifiedLayerNormalization (without the mean) at any."""
    early = node.op_type == "LayerNormalization" and version < 17
    return node.domain in ("", "ai.onnx") and (early or node.op_type == "SimplifiedLayerNormalization")


_FUNCTIONS: Mapping[str, str] = {"GreaterOrEqual": "Greater", "LessOrEqual": "Less"}
"""Of ONNX itself: functions of others before opset 16, for which nothing is inferred; what has the same shapes."""

_FROM_BEHIND: Mapping[str, tuple[str, int]] = {"Concat": ("axis", 11), "Slice": ("axes", 10)}
"""Of ONNX itself: attributes that count axes, and the opset up to which ONNX infers nothing where one counts from behind, as
onnxruntime lets it."""

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_FUSED: Mapping[str, tuple[str, tuple[int, ...], tuple[str, ...]]] = {
    "BiasGelu": ("Identity", (0,), ()), "FastGelu": ("Identity", (0,), ()), "Gelu": ("Identity", (0,), ()),
    "FusedConv": ("Conv", (0, 1), _CONV), "FusedGemm": ("Gemm", (0, 1), ("transA", "transB")),
    "FusedMatMul": ("MatMul", (0, 1), ()),
    "LayerNormalization": ("Identity", (0,), ()), "QuickGelu": ("Identity", (0,), ()),
    "SimplifiedLayerNormalization": ("Identity", (0,), ()), "SkipLayerNormalization": ("Identity", (0,), ()),
    "SkipSimplifiedLayerNormalization": ("Identity", (0,), ()),
}  # fmt: skip
"""The same of operators on real numbers (`reading/fused.py`): their output has the type of the input."""


def as_cast(node: NodeProto, types: Mapping[str, TypeProto]) -> NodeProto:
    """A CastLike as the Cast to the type of its second input; any other node as it is."""
    if node.op_type != "CastLike" or node.domain not in ("", "ai.onnx") or any(n not in types for n in node.input):
        return node
    to = types[node.input[1]].tensor_type.elem_type
    return helper.make_node("Cast", [node.input[0]], list(node.output), name=node.name, to=to)


def _from_front(node: NodeProto, types: Mapping[str, TypeProto]) -> NodeProto:
    """The node with its axes counted from the front."""
    name = _FROM_BEHIND[node.op_type][0]
    rank = max((len(types[n].tensor_type.shape.dim) for n in node.input if n in types), default=0)
    alike = NodeProto()
    alike.CopyFrom(node)
    for a in alike.attribute:
        if a.name == name:
            a.i += rank if a.i < 0 else 0
            a.ints[:] = [i + rank if i < 0 else i for i in a.ints]
    return alike


def _fused(node: NodeProto, types: dict[str, TypeProto]) -> tuple[NodeProto, dict[str, TypeProto], int | None]:
    kind, own, shared = _FUSED[node.op_type]
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs = [node.input[i] for i in own]
    if any(n not in types for n in inputs):
        return node, types, None
    seen = {f"{i}:{n}": TypeProto() for i, n in enumerate(inputs)}
    for (name, made), turned in zip(seen.items(), ("transA", "transB"), strict=False):
        made.CopyFrom(types[name.partition(":")[2]])
        dims = made.tensor_type.shape.dim
        if kind == "MatMul" and given.get(turned, 0) and len(dims) > 1:
            last, before = (type(dims[k])() for k in (-1, -2))
            last.CopyFrom(dims[-1])
            before.CopyFrom(dims[-2])
            dims[-1].CopyFrom(before)
            dims[-2].CopyFrom(last)
    attributes = {n: v for n, v in given.items() if n in shared}
    return helper.make_node(kind, list(seen), [node.output[0]], name=node.name, **attributes), seen, None


def standard_form(
    node: NodeProto, types: dict[str, TypeProto], version: int
) -> tuple[NodeProto, dict[str, TypeProto], int | None]:
    """A standard node with the same output, types of its inputs, and the element type of the output.

    Args:
        version: of the node's own domain. A LayerNormalization before opset 17, which is onnxruntime's, is one of these.

    Any other node is handed back as it is, with the types as they are and None. It stays so where types are missing: nothing is
    known of its output then.
    """
    if node.op_type in _FUNCTIONS and node.domain in ("", "ai.onnx"):
        alike = NodeProto()
        alike.CopyFrom(node)
        alike.op_type = _FUNCTIONS[node.op_type]
        return alike, types, None
    if node.op_type in _FROM_BEHIND and node.domain in ("", "ai.onnx") and version < _FROM_BEHIND[node.op_type][1]:
        return _from_front(node, types), types, None
    if (node.domain == DOMAIN and node.op_type in _FUSED) or early_norm(node, version):
        return _fused(node, types)
    if node.domain != DOMAIN or node.op_type not in _FORMS:
        return node, types, None
    kind, own, shared, zero = _FORMS[node.op_type]
    # a Concat has any number of tensors, each followed by its scale and zero point
    inputs = [node.input[i] for i in own] if own else list(node.input[2::3])
    given = node.input[zero] if zero < len(node.input) else ""
    if any(n not in types for n in (*inputs, *([given] if given else []))):
        return node, types, None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in shared}
    # a QGemm without a scale for its output writes real numbers
    default = TensorProto.FLOAT if node.op_type in ("QGemm", "DequantizeLinear") else TensorProto.UINT8
    element = types[given].tensor_type.elem_type if given else default
    real = {n: TypeProto() for n in inputs}
    for n, made in real.items():
        made.CopyFrom(types[n])
        made.tensor_type.elem_type = TensorProto.FLOAT
    return helper.make_node(kind, inputs, [node.output[0]], name=node.name, **attributes), real, element
