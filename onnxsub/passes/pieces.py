"""Operators that take the place of one, collected as they are made: what rewriting as Relus writes into."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxsub.ops.base import Array, Nonlinear, Operator, Shape
from onnxsub.ops.relu import Relu
from onnxsub.ops.substituted import Substituted

__all__ = ["Pieces"]


class Pieces:
    """Collects the operators that take the place of `op`; the last of them writes its output.

    Attributes:
        op: what is replaced.
        ops: what has been made, in order.
    """

    def __init__(self, op: Nonlinear, names: set[str]) -> None:
        self.op = op
        self.ops: list[Operator] = []
        self.names = _fresh(op.output, names)

    def add(self, kind: type[Operator], sources: tuple[str, ...], output: str | None, shape: Shape, **more: object) -> str:
        """One operator that writes `output`, a fresh name where that is None; `shape` is that of what it writes."""
        name = output or next(self.names)
        values: dict[str, object] = {
            "op_type": self.op.op_type, "node": self.op.node, "inputs": sources, "output": name,
            "in_shapes": tuple(self.shape(s) for s in sources), "out_shape": shape,
        }  # fmt: skip
        self.ops.append(kind(**(values | more)))  # type: ignore[arg-type]
        return name

    def relu(self, source: str, kept: Array) -> str:
        """Relu of the units `kept`, 0 of the others; `kept` has the shape of the source."""
        shape, output = self.shape(source), next(self.names)
        relu = Relu(
            op_type=self.op.op_type, node=self.op.node, inputs=(source,), output=output, in_shapes=(shape,), out_shape=shape
        )
        zero = np.zeros(shape)
        self.ops.append(relu if kept.all() else Substituted.of(relu, kept, zero, zero))
        return output

    def shape(self, name: str) -> Shape:
        """Of a tensor made here, else of what `op` reads."""
        return next((op.out_shape for op in self.ops if op.output == name), self.op.in_shapes[0])


def _fresh(output: str, names: set[str]) -> Iterator[str]:
    stem = f"{output}/chain"
    while any(name.startswith(stem) for name in names):
        stem += "_"
    count = 0
    while True:
        yield f"{stem}:{count}"
        count += 1
