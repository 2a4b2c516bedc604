"""The attributes of an ONNX node as Python values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["decode_attributes"]


def decode_attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes as `int`, `float`, `str`, lists of them and arrays; subgraphs stay protobuf messages."""
    return {a.name: _decode(helper.get_attribute_value(a)) for a in node.attribute if not a.ref_attr_name}


def _decode(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, str | int | float | GraphProto) or not isinstance(value, Iterable):
        return value
    return [_decode(v) for v in value]
