"""Inputs of whole numbers: the form that is analysed takes them as floats, up to where the file itself turns them into floats.

Before that only values are moved (Reshape, Transpose, Slice, ...); arithmetic of whole numbers wraps round and cuts off: it is
refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnxsub.errors import ModelError, UnsupportedOperatorError
from onnxsub.reading.graphs import name_of

__all__ = ["INTEGERS", "RANGES", "with_float_input"]

INTEGERS: dict[int, np.dtype[Any]] = {
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT16: np.dtype(np.uint16),
    TensorProto.INT16: np.dtype(np.int16),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.INT64: np.dtype(np.int64),
}
"""Types of whole numbers that are read."""

RANGES: dict[str, tuple[float, float]] = {"uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}
"""The domain where none is stated: of the types whose whole range is one of pixels."""

_MOVING = frozenset({"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"})
_OF_SHAPES = ("Shape", "Size")
_CODES = frozenset({"Equal", "Gather", "GatherElements", "GatherND", "OneHot"})
"""What looks numbers up: rows of an embedding, places of a one-hot code."""
_DEFAULT = ("", "ai.onnx")


def with_float_input(graph: GraphProto, value: ValueInfoProto, where: str) -> None:
    """Makes input `value` of a graph a float32 one, in place.

    Raises:
        UnsupportedOperatorError: an operator computes in whole numbers.
    """
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    whole = {value.name}
    for node in graph.node:
        read = [n for n in node.input if n in whole]
        if not read:
            continue
        if node.domain in _DEFAULT and node.op_type == "Cast":
            to = next(a.i for a in node.attribute if a.name == "to")
            if to in INTEGERS:
                if np.iinfo(INTEGERS[to]).min > np.iinfo(INTEGERS[_type_of(value)]).min or (
                    np.iinfo(INTEGERS[to]).max < np.iinfo(INTEGERS[_type_of(value)]).max
                ):
                    raise _computes(node, kind, where)
                _identity(node)
                whole.update(node.output)
            elif to not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
                raise _computes(node, kind, where)
        elif node.domain == "ai.onnx.ml" or node.op_type in _OF_SHAPES:
            pass  # these take any number and compute in float32; a shape is none of its numbers
        elif node.domain in _DEFAULT and node.op_type in _MOVING and list(node.input[:1]) == read:
            whole.update(node.output)
        else:
            raise _computes(node, kind, where)
    if whole.intersection(v.name for v in graph.output):
        raise ModelError(f"{where}: input {value.name!r} of type {kind} is never turned into floats; export the model again")
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    infos = [v for v in graph.value_info if v.name not in whole]
    del graph.value_info[:]
    graph.value_info.extend(infos)


def _type_of(value: ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _identity(node: NodeProto) -> None:
    node.CopyFrom(helper.make_node("Identity", list(node.input), list(node.output), name=node.name))


def _computes(node: NodeProto, kind: str, where: str) -> UnsupportedOperatorError:
    if node.op_type in _CODES:
        return UnsupportedOperatorError(
            f"{where}: operator {node.op_type} (node {name_of(node)!r}) takes the whole numbers of the input as codes (tokens, "
            "categories), which have no distances; export the part of the model behind it, with the embedded values as its input"
        )
    return UnsupportedOperatorError(
        f"{where}: operator {node.op_type} (node {name_of(node)!r}) computes in {kind}, where numbers wrap round or are cut off; "
        "export the model with a Cast to float right behind its input"
    )
