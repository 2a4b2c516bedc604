"""ReduceSum, ReduceMean and GlobalAveragePool: sums over whole axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Affine, Shape
from onnxsub.ops.broadcast import only_variable, sample_axes
from onnxsub.ops.movement import Reshape
from onnxsub.ops.node import Node
from onnxsub.ops.read_movement import axes_of

if TYPE_CHECKING:
    import scipy.sparse as sp
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter

__all__ = ["Reduce", "read_global_average", "read_reduce_mean", "read_reduce_sum", "reduced_axes"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduce(Affine):
    """`y = factor * sum of x over axes` of the sample; `out_shape` keeps or drops them."""

    axes: tuple[int, ...]
    factor: float

    def linear(self, *xs: Tensor) -> Tensor:
        return (xs[0].sum([a + 1 for a in self.axes]) * self.factor).reshape(xs[0].shape[0], *self.out_shape)

    @property
    def _kept(self) -> Shape:
        return tuple(1 if i in self.axes else n for i, n in enumerate(self.in_shapes[0]))

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return ((a * self.factor).reshape(a.shape[0], *self._kept).expand(-1, *self.in_shapes[0]),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        axes = writer.integers(output, "axes", np.array(self.axes, dtype=np.int64) + 1)
        sums = writer.step("ReduceSum", (inputs[0], axes), output, "sums", keepdims=1)
        factor = writer.weight(output, "factor", np.array(self.factor))
        if self._kept == self.out_shape:
            writer.node("Mul", (sums, factor), output)
        else:
            writer.reshape(writer.step("Mul", (sums, factor), output, "scaled"), output, self.out_shape)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        n = math.prod(self.in_shapes[0])
        rows = np.broadcast_to(np.arange(self.out_size).reshape(self._kept), self.in_shapes[0]).reshape(-1)
        matrix = sp.coo_array((np.full(n, self.factor), (rows.copy(), np.arange(n))), shape=(self.out_size, n))
        return (sp.csr_array(matrix),)


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes of the sample that a reduction takes together; () where it is asked to take none and to change nothing."""
    shape = node.shapes[only_variable(node)]
    axes = axes_of(node)
    if axes:
        return sample_axes(node, axes, len(shape))
    if node.attributes.get("noop_with_empty_axes", 0):
        return ()
    raise node.refuse("without axes it works along the batch axis")


def _read(node: Node, mean: bool) -> tuple[Reduce | Reshape, ...]:
    found = reduced_axes(node)
    if not found:
        return (Reshape(**node.common()),)
    count = math.prod(node.shapes[only_variable(node)][a + 1] for a in found)
    return (Reduce(**node.common(), axes=found, factor=1.0 / count if mean else 1.0),)


def read_reduce_sum(node: Node) -> tuple[Reduce | Reshape, ...]:
    """Axes are an attribute before opset 13."""
    return _read(node, mean=False)


def read_reduce_mean(node: Node) -> tuple[Reduce | Reshape, ...]:
    """Axes are an attribute before opset 18."""
    return _read(node, mean=True)


def read_global_average(node: Node) -> tuple[Reduce, ...]:
    """The mean over all spatial axes."""
    shape = node.sample_shape(only_variable(node))
    axes = tuple(range(1, len(shape)))
    return (Reduce(**node.common(), axes=axes, factor=1.0 / math.prod(shape[1:])),)
