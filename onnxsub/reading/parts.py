"""Nodes in the place of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from onnxsub.ops.base import Array, Shape
from onnxsub.ops.node import Node

__all__ = ["Parts"]

_OPSET = 13  # of what they become: the meaning of no part has changed since
_NONE: Mapping[str, Array] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Parts:
    """Nodes in the place of one. Tensors between them are named after its output."""

    whole: Node
    nodes: list[Node] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        return self.whole.shapes[self.whole.outputs[0]]

    def add(
        self, kind: str, inputs: tuple[str, ...], shape: Shape, attributes: Mapping[str, Any], more: Mapping[str, Array] = _NONE
    ) -> str:
        """One node; its inputs are tensors of the whole node, of nodes before it, or the constants `more`."""
        output, constants = f"{self.whole.outputs[0]}:part{len(self.nodes)}", dict(more)
        constants |= {n: self.whole.constants[n] for n in inputs if n in self.whole.constants}
        shapes = {n: self.whole.shapes[n] for n in inputs if n in self.whole.shapes}
        for node in self.nodes:
            shapes |= {n: node.shapes[n] for n in node.outputs if n in inputs}
        shapes |= {n: v.shape for n, v in constants.items()} | {output: shape}
        made = replace(
            self.whole, op_type=kind, opset=_OPSET, attributes=attributes, inputs=inputs, outputs=(output,), constants=constants,
            shapes=shapes,
        )  # fmt: skip
        self.nodes.append(made)
        return output

    def given(self, i: int) -> str:
        return self.whole.inputs[i] if self.whole.has(i) else ""

    def sum_with(self, x: str, i: int) -> str:
        """The sum of x and input i, where there is one."""
        return self.add("Add", (x, self.given(i)), self.shape, {}) if self.given(i) else x

    def attributes(self, *left_out: str) -> dict[str, Any]:
        return {k: v for k, v in self.whole.attributes.items() if k not in left_out}

    def done(self) -> list[Node]:
        """The nodes, the last one with the output of the whole."""
        last, output = self.nodes[-1], self.whole.outputs[0]
        shapes = {n: s for n, s in last.shapes.items() if n != last.outputs[0]} | {output: self.shape}
        return [*self.nodes[:-1], replace(last, outputs=(output,), shapes=shapes)]
