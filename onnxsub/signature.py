"""What a model takes and gives: one float tensor in, one list of class scores out. Everything else is refused here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto, TypeProto, ValueInfoProto

from onnxsub.errors import ModelError
from onnxsub.ops.base import Shape
from onnxsub.reading.graphs import only_input

__all__ = ["Signature", "class_shape", "read_signature"]

_FLOATS: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
}

_IMAGE = 3
"""Axes of one image."""


@dataclass(frozen=True)
class Signature:
    """Input and output of a file.

    Attributes:
        input, output: tensor names.
        input_shape: per-sample shape.
        dtype: of the input.
        batch_fixed: the file has batch 1; False: any batch.
        declared_output: shape of the output as the file states it, None for a length that it leaves open, None for no shape.
    """

    input: str
    input_shape: Shape
    dtype: np.dtype[Any]
    batch_fixed: bool
    output: str
    declared_output: tuple[int | None, ...] | None


def read_signature(graph: GraphProto, where: str) -> Signature:
    """Input and output of `graph`. Raises ModelError where they are not those of a classifier with one float input."""
    value = only_input(graph, where)
    dims, dtype = _tensor(value, "input", where)
    if len(dims) < 2:
        raise ModelError(
            f"{where}: input {value.name!r} of shape {_show(dims)} has no batch axis in front of its values; "
            "export the model with an input of shape (1, ...)"
        )
    batch, sample = dims[0], dims[1:]
    if any(isinstance(d, str) for d in sample):
        open_dims = ", ".join(str(d) for d in sample if isinstance(d, str))
        some = ",".join(str(d) if isinstance(d, int) else "224" if len(sample) == _IMAGE else "64" for d in sample)
        raise ModelError(
            f"{where}: input {value.name!r} of shape {_show(dims)} leaves {open_dims} open; state its lengths with --input-shape, "
            f"for instance --input-shape {some} (only the first axis may be open)"
        )
    shape = tuple(int(d) for d in sample)
    if any(d < 1 for d in shape):
        raise ModelError(f"{where}: input {value.name!r} of shape {_show(dims)} is empty; export it with its true shape")
    result = graph.output[0]
    declared: tuple[int | None, ...] | None = None
    if result.type.tensor_type.HasField("shape"):
        declared = tuple(None if isinstance(d, str) else d for d in _dims(result.type))
    _float(result, "output", where)
    return Signature(value.name, shape, dtype, batch == 1, result.name, declared)


def class_shape(shape: Shape, output: str, where: str) -> Shape:
    """Per-sample shape of the logits at batch 1, after a check that it is one list of classes."""
    if not shape or shape[0] != 1:
        raise ModelError(
            f"{where}: output {output!r} of shape {list(shape)} at batch 1 has no batch axis in front; export it with one"
        )
    if sum(d != 1 for d in shape[1:]) > 1 or any(d < 1 for d in shape[1:]):
        raise ModelError(
            f"{where}: output {output!r} of shape {list(shape)} is not one score per class, as a classifier gives; "
            "export the part of the model that ends in the logits"
        )
    return tuple(shape[1:])


def _tensor(value: ValueInfoProto, kind: str, where: str) -> tuple[tuple[int | str, ...], np.dtype[Any]]:
    dtype = _float(value, kind, where)
    if not value.type.tensor_type.HasField("shape"):
        raise ModelError(f"{where}: {kind} {value.name!r} states no shape; export the model with one")
    return _dims(value.type), dtype


def _float(value: ValueInfoProto, kind: str, where: str) -> np.dtype[Any]:
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"{where}: {kind} {value.name!r} is no tensor; export a model with a float tensor there")
    element = value.type.tensor_type.elem_type
    if element not in _FLOATS:
        name = TensorProto.DataType.Name(element).lower() if element in TensorProto.DataType.values() else f"number {element}"
        hint = "export the logits, before any ArgMax" if kind == "output" else "export the model with a float input"
        raise ModelError(f"{where}: {kind} {value.name!r} is of type {name}, onnxsub reads float32, float64 and float16; {hint}")
    return _FLOATS[element]


def _dims(kind: TypeProto) -> tuple[int | str, ...]:
    """Lengths; a string where the file leaves one open (0 and -1 are how older exporters write that)."""
    dims: list[int | str] = []
    for i, d in enumerate(kind.tensor_type.shape.dim):
        if d.HasField("dim_value") and (d.dim_value > 0 or (i > 0 and d.dim_value == 0)):
            dims.append(d.dim_value)
        else:
            dims.append(repr(d.dim_param) if d.dim_param else f"axis {i}")
    return tuple(dims)


def _show(dims: tuple[int | str, ...]) -> str:
    return "(" + ", ".join(str(d) for d in dims) + ("," if len(dims) == 1 else "") + ")"
