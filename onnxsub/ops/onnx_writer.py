"""What an operator's ONNX nodes are written in: `Operator.to_onnx` sees no more of a file than this."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from onnxsub.ops.base import Array, Shape

__all__ = ["OnnxWriter"]


class OnnxWriter(Protocol):
    """A file under construction, opset 13, of which one element type and every shape behind the batch axis are known."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type of all tensors and weights."""
        ...

    def fresh(self, name: str) -> str:
        """`name`, or what comes near it, for a tensor that nothing else is called."""
        ...

    def node(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> None:
        """One node with one output; attributes that are None are left out."""
        ...

    def step(self, kind: str, inputs: tuple[str, ...], output: str, name: str, **attributes: Any) -> str:
        """One node whose output, a fresh tensor called after `output` and `name`, is handed back."""
        ...

    def weight(self, output: str, name: str, values: Array) -> str:
        """An initializer of the file's element type, called after the tensor `output` that it is for."""
        ...

    def integers(self, output: str, name: str, values: Array, kind: type[np.integer[Any]] = np.int64) -> str:
        """An initializer of integers: of 64 bits (shapes, axes, positions), or of another type (zero points)."""
        ...

    def reshape(self, source: str, output: str, shape: Shape) -> None:
        """The batch axis stays; the rest becomes `shape`."""
        ...
