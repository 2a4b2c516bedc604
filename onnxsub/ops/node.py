"""A node of a prepared graph, as the operator table reads it: constants known, shapes known, batch axis first and of length 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.ops.base import Array, Shape

__all__ = ["Node"]


@dataclass(frozen=True, eq=False)
class Node:
    """One ONNX node.

    Attributes:
        op_type, name: as in the file (`name` is made up from the output where the file has none).
        opset: version of the default operator set that the file imports.
        attributes: decoded (`int`, `float`, `str`, lists of them, `numpy` arrays).
        inputs: tensor names, "" for an optional input that is left out.
        outputs: tensor names, "" likewise.
        constants: value of every input that is constant, by tensor name.
        shapes: full ONNX shape of every input and output, at batch 1.
    """

    op_type: str
    name: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, Shape]

    def has(self, i: int) -> bool:
        """Whether optional input i is given."""
        return i < len(self.inputs) and self.inputs[i] != ""

    def constant(self, i: int) -> Array | None:
        """Value of input i if it is given and constant."""
        return self.constants.get(self.inputs[i]) if self.has(i) else None

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """The inputs that depend on the network's input, in order."""
        return tuple(n for n in self.inputs if n and n not in self.constants)

    def sample_shape(self, tensor: str) -> Shape:
        """Shape without the batch axis. Raises where the tensor has none in front."""
        shape = self.shapes[tensor]
        if not shape or shape[0] != 1:
            raise self.refuse(f"tensor {tensor!r} of shape {list(shape)} has no batch axis of length 1 in front")
        return tuple(shape[1:])

    def common(self, output: int = 0) -> dict[str, Any]:
        """The fields that every `Operator` takes, for the variable inputs and output number `output`."""
        return {
            "op_type": self.op_type,
            "node": self.name,
            "inputs": self.variables,
            "output": self.outputs[output],
            "in_shapes": tuple(self.sample_shape(n) for n in self.variables),
            "out_shape": self.sample_shape(self.outputs[output]),
        }

    def refuse(self, why: str) -> UnsupportedOperatorError:
        """The error that says what of this node is not supported."""
        where = f"operator {self.op_type} (node {self.name!r}, opset {self.opset})"
        return UnsupportedOperatorError(f"{where} is not supported here: {why}")
