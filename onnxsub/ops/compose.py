"""One ONNX node as several operators: what normalisations, Softmax and quotients are written in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxsub.ops.average import AveragePool
from onnxsub.ops.base import Activation, Array, Operator, Shape
from onnxsub.ops.bilinear import Bilinear, Product
from onnxsub.ops.choose import Choose
from onnxsub.ops.combine import Sum
from onnxsub.ops.convex import Square
from onnxsub.ops.dense import Dense, LeftProduct
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.joined import joined
from onnxsub.ops.logsumexp import LogSumExp
from onnxsub.ops.movement import Gather, Permute, Reshape
from onnxsub.ops.node import Node
from onnxsub.ops.normalised import Normalised
from onnxsub.ops.reduce import Reduce
from onnxsub.ops.sliding import Sliding

__all__ = ["Composer"]


class Composer:
    """Operators of one node, one after the other; every step hands back the name of the tensor that it writes.

    The last step is told the node's own output as `into`; the others write tensors called after it.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._output = node.outputs[0]
        self.shapes: dict[str, Shape] = {name: node.sample_shape(name) for name in node.variables}
        self._ops: list[Operator] = []

    @property
    def output(self) -> str:
        """The node's own output."""
        return self._output

    def done(self) -> tuple[Operator, ...]:
        """The operators; their shapes must lead to that of the node's output."""
        shape = self._node.sample_shape(self._output)
        if self.shapes.get(self._output) != shape:
            raise ValueError(f"{self._node.op_type} {self._node.name!r} comes out as {self.shapes.get(self._output)}, not {shape}")
        return tuple(self._ops)

    def _put(self, kind: type[Operator], names: tuple[str, ...], shape: Shape, into: str | None, what: str, **fields: Any) -> str:
        name = into or f"{self._output}:{len(self._ops)}:{what}"
        self._ops.append(
            kind(
                op_type=self._node.op_type, node=self._node.name, inputs=names, output=name,
                in_shapes=tuple(self.shapes[n] for n in names), out_shape=shape, **fields,
            )
        )
        self.shapes[name] = shape
        return name

    def apply(self, kind: type[Activation], x: str, into: str | None = None, **fields: Any) -> str:
        """A function of every element, no unit of the model."""
        return self._put(kind, (x,), self.shapes[x], into, kind.__name__, inner=True, **fields)

    def square(self, x: str, into: str | None = None) -> str:
        """`x^2`, elementwise."""
        return self.apply(Square, x, into)

    def scale(self, x: str, scale: Array | float | None = None, shift: Array | float | None = None, into: str | None = None) -> str:
        """`scale x + shift`."""
        parts = [None if c is None else np.asarray(c, dtype=np.float64) for c in (scale, shift)]
        shape = np.broadcast_shapes(self.shapes[x], *[p.shape for p in parts if p is not None])
        return self._put(Scale, (x,), shape, into, "scaled", scale=parts[0], shift=parts[1])

    def reshape(self, x: str, shape: Shape, into: str | None = None) -> str:
        """The same elements in the per-sample shape `shape`."""
        return self._put(Reshape, (x,), shape, into, "reshaped")

    def permute(self, x: str, order: tuple[int, ...]) -> str:
        """Axis i is axis `order[i]` of x."""
        return self._put(Permute, (x,), tuple(self.shapes[x][i] for i in order), None, "turned", order=order)

    def picked(self, x: str, positions: Array, into: str | None = None) -> str:
        """The elements number `positions`, `(k,)`, of the flattened tensor."""
        size = math.prod(self.shapes[x])
        flat = x if self.shapes[x] == (size,) else self.reshape(x, (size,))
        return self._put(Gather, (flat,), (len(positions),), into, "picked", indices=(np.asarray(positions, dtype=np.int64),))

    def together(self, names: tuple[str, ...]) -> str:
        """All elements of the tensors, flattened, one tensor after the other."""
        if len(names) == 1:
            return self.reshape(names[0], (math.prod(self.shapes[names[0]]),))
        both = f"{self._output}:{len(self._ops)}:joined"
        new = joined(names, tuple(self.shapes[n] for n in names), both, op_type=self._node.op_type, node=self._node.name)
        self._ops += new
        self.shapes |= {op.output: op.out_shape for op in new}
        return both

    def chosen(self, names: tuple[str, ...], which: Array, constant: Array, into: str | None = None) -> str:
        """Tensor number `which` of several at every place, the constant where that is -1."""
        return self._put(Choose, names, which.shape, into, "chosen", which=which, constant=constant)

    def summed(self, x: str, sliding: Sliding, shape: Shape, into: str | None = None) -> str:
        """Sums over windows of the spatial axes, every channel by itself."""
        ones = np.ones(sliding.out_spatial)
        return self._put(AveragePool, (x,), shape, into, "sums", share=ones, sliding=sliding)

    def reduce(self, x: str, axes: tuple[int, ...], *, mean: bool, into: str | None = None) -> str:
        """The sum or the mean over axes of the sample, which stay with length 1."""
        shape = self.shapes[x]
        factor = 1.0 / math.prod(shape[a] for a in axes) if mean else 1.0
        return self._put(Reduce, (x,), self._kept(x, axes), into, "reduced", axes=axes, factor=factor)

    def log_sum_exp(self, x: str, axes: tuple[int, ...], into: str | None = None) -> str:
        """`log(sum of exp(x))` over axes of the sample, which stay with length 1."""
        return self._put(LogSumExp, (x,), self._kept(x, axes), into, "lse", axes=axes)

    def left_product(self, x: str, weight: Array, into: str | None = None) -> str:
        """`W x`, x a matrix per sample."""
        shape = (len(weight), self.shapes[x][-1])
        return self._put(LeftProduct, (x,), shape, into, "weighted", weight=np.asarray(weight, dtype=np.float64))

    def dense(self, x: str, weight: Array) -> str:
        """`x W^T` along the last axis; W `(*batch, out, in)`."""
        return self._put(Dense, (x,), (*self.shapes[x][:-1], weight.shape[-2]), None, "dense", weight=weight)

    def _kept(self, x: str, axes: tuple[int, ...]) -> Shape:
        return tuple(1 if i in axes else n for i, n in enumerate(self.shapes[x]))

    def minus(self, x: str, y: str, into: str | None = None) -> str:
        """`x - y`, axes of length 1 broadcast."""
        shape = np.broadcast_shapes(self.shapes[x], self.shapes[y])
        return self._put(Sum, (x, y), shape, into, "difference", signs=(1, -1))

    def product(self, x: str, y: str, into: str | None = None) -> str:
        """`x y`, axes of length 1 broadcast."""
        return self.bilinear(Product, x, y, np.broadcast_shapes(self.shapes[x], self.shapes[y]), into)

    def normalised(self, x: str, factor: str, limit: float, into: str | None = None) -> str:
        """`x factor`, which is known to lie within `-limit` and `limit`."""
        shape = np.broadcast_shapes(self.shapes[x], self.shapes[factor])
        return self.bilinear(Normalised, x, factor, shape, into, limit=limit)

    def bilinear(self, kind: type[Bilinear], x: str, y: str, shape: Shape, into: str | None = None, **fields: Any) -> str:
        """A product of x and y, of the kind and the per-sample shape that are given, on both joined (`joined.py`)."""
        first, second = self.shapes[x], self.shapes[y]
        return self._put(kind, (self.together((x, y)),), shape, into, "product", first=first, second=second, **fields)
