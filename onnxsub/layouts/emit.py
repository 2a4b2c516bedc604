"""Operators as ONNX nodes, for files that are built anew: each writes itself (`Operator.to_onnx`), nothing is approximated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxsub.ops.base import Array, Operator, Shape

__all__ = ["Writer"]


class Writer:
    """Collects nodes and weights, the latter rounded to one element type.

    Args:
        dtype: that type.
        reserved: names that the file's own input and output have; no other tensor gets one of them.
    """

    def __init__(self, dtype: np.dtype[Any], reserved: Iterable[str] = ()) -> None:
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._names = set(reserved)

    def fresh(self, name: str) -> str:
        """`name`, or what comes near it, for a tensor that nothing else is called."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def add(self, op: Operator, inputs: tuple[str, ...], output: str) -> None:
        """Writes one operator.

        Raises:
            UnsupportedOperatorError: it has no ONNX form, or none for its attributes.
        """
        op.to_onnx(self, inputs, output)

    def reshape(self, source: str, output: str, shape: Shape) -> None:
        """The batch axis stays; the rest becomes `shape`."""
        if len(shape) == 1:
            self.node("Flatten", (source,), output, axis=1)
            return
        self.node("Reshape", (source, self.integers(output, "shape", np.array([0, *shape]))), output)

    def cast(self, source: str, output: str, dtype: np.dtype[Any]) -> None:
        """The same values in another element type."""
        self.node("Cast", (source,), output, to=helper.np_dtype_to_tensor_dtype(dtype))

    def node(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> None:
        """One node with one output; attributes that are None are left out."""
        given = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **given))

    def step(self, kind: str, inputs: tuple[str, ...], output: str, name: str, **attributes: Any) -> str:
        """One node whose output, a fresh tensor called after `output` and `name`, is handed back."""
        target = self.fresh(f"{output}/{name}")
        self.node(kind, inputs, target, **attributes)
        return target

    def weight(self, output: str, name: str, values: Array) -> str:
        """An initializer of the file's element type, called after the tensor `output` that it is for."""
        return self._initializer(output, name, np.asarray(values, dtype=self.dtype, order="C"))

    def integers(self, output: str, name: str, values: Array, kind: type[np.integer[Any]] = np.int64) -> str:
        """An initializer of integers: of 64 bits (shapes, axes, positions), or of another type (zero points)."""
        return self._initializer(output, name, np.asarray(values, dtype=kind, order="C"))

    def _initializer(self, output: str, name: str, values: Array) -> str:
        full = self.fresh(f"{output}/{name}")
        # asarray, not ascontiguousarray: the ends of a Clip must stay scalars
        self.weights.append(numpy_helper.from_array(values, full))
        return full
