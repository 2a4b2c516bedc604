"""Operators whose output elements are elements of the input: views, permutations, slices, gathers, padding."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onnxsub.ops.base import Affine, Array, Box, Shape

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Gather", "Pad", "Permute", "Reshape", "Selection", "Slice", "flatten"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Selection(Affine, abc.ABC):
    """Every output element is one input element, or a constant (padding)."""

    mixing: ClassVar[bool] = False

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        return self.forward(lower), self.forward(upper)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        n_in = math.prod(self.in_shapes[0])
        # element i is marked i + 1, so that 0 is what comes from nowhere; float64 counts exactly up to 2^53
        marks = self.linear(torch.arange(1, n_in + 1, dtype=torch.float64).reshape(1, *self.in_shapes[0]))
        index = marks.reshape(-1).numpy().astype(np.int64)
        rows = np.flatnonzero(index)
        matrix = sp.coo_array((np.ones(len(rows)), (rows, index[rows] - 1)), shape=(self.out_size, n_in))
        return (sp.csr_array(matrix),)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Selection):
    """The same elements in the same order: Flatten, Reshape, Squeeze, Unsqueeze, Identity, Dropout, Cast."""

    def linear(self, *xs: Tensor) -> Tensor:
        return xs[0].reshape(xs[0].shape[0], *self.out_shape)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a.reshape(a.shape[0], *self.in_shapes[0]),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.reshape(inputs[0], output, self.out_shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Permute(Selection):
    """Axes of the sample in another order: axis i of the output is axis `order[i]` of the input."""

    order: tuple[int, ...]

    def linear(self, *xs: Tensor) -> Tensor:
        return xs[0].permute(0, *[i + 1 for i in self.order])

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a.permute(0, *[int(i) + 1 for i in np.argsort(self.order)]),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.node("Transpose", inputs, output, perm=[0, *[i + 1 for i in self.order]])


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Selection):
    """Per axis of the sample, every `step`-th element from `start` to before `stop`; steps are positive."""

    ranges: tuple[tuple[int, int, int], ...]

    @property
    def _cut(self) -> tuple[slice, ...]:
        return (slice(None), *[slice(*r) for r in self.ranges])

    def linear(self, *xs: Tensor) -> Tensor:
        return xs[0][self._cut]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        result = a.new_zeros((a.shape[0], *self.in_shapes[0]))
        result[self._cut] = a
        return (result,)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        columns = zip(*self.ranges, strict=True)
        names = [writer.integers(output, n, np.array(c)) for n, c in zip(("starts", "ends", "steps"), columns, strict=True)]
        axes = writer.integers(output, "axes", np.arange(len(self.ranges)) + 1)
        writer.node("Slice", (inputs[0], *names[:2], axes, names[2]), output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Gather(Selection):
    """Along each axis of the sample the elements `indices`, or all of them where that is None.

    The result is read in the shape `out_shape`, which may split or drop the axis of a gather by a tensor or a scalar.
    """

    indices: tuple[Array | None, ...]

    def _index(self, axis: int, like: Tensor) -> Tensor:
        index: Tensor = self.cached((axis, like.device), lambda: torch.as_tensor(self.indices[axis], device=like.device))
        return index

    def linear(self, *xs: Tensor) -> Tensor:
        y = xs[0]
        for axis, index in enumerate(self.indices):
            if index is not None:
                y = y.index_select(axis + 1, self._index(axis, y))
        return y.reshape(y.shape[0], *self.out_shape)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        sizes = [n if i is None else len(i) for n, i in zip(self.in_shapes[0], self.indices, strict=True)]
        y = a.reshape(a.shape[0], *sizes)
        for axis, index in enumerate(self.indices):
            if index is not None:
                shape = list(y.shape)
                shape[axis + 1] = self.in_shapes[0][axis]
                y = y.new_zeros(shape).index_add(axis + 1, self._index(axis, y), y)
        return (y,)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        source = inputs[0]
        for axis, index in enumerate(self.indices):
            if index is not None:
                positions = writer.integers(output, f"index{axis}", index)
                source = writer.step("Gather", (source, positions), output, f"gathered{axis}", axis=axis + 1)
        writer.reshape(source, output, self.out_shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(Selection):
    """`value` added in front of and behind every axis of the sample; negative numbers cut off."""

    before: Shape
    after: Shape
    value: float = 0.0

    def linear(self, *xs: Tensor) -> Tensor:
        return self._pad(xs[0], 1)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self._pad(a, -1),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        pads = writer.integers(output, "pads", np.array([0, *self.before, 0, *self.after]))
        value = () if self.value == 0.0 else (writer.weight(output, "value", np.array(self.value)),)
        writer.node("Pad", (inputs[0], pads, *value), output)

    def _pad(self, x: Tensor, sign: int, value: float = 0.0) -> Tensor:
        pads = [sign * p for b, a in zip(reversed(self.before), reversed(self.after), strict=True) for p in (b, a)]
        return torch.nn.functional.pad(x, pads, value=value)

    def offset(self, like: Tensor) -> Tensor | None:
        if self.value == 0.0:
            return None
        zeros = torch.zeros((1, *self.in_shapes[0]), dtype=like.dtype, device=like.device)
        return self._pad(zeros, 1, self.value)[0]


def flatten(name: str, shape: Shape, output: str) -> Reshape:
    """The tensor `name` of per-sample shape `shape` as one axis, written to `output`."""
    flat = (math.prod(shape),)
    return Reshape(op_type="Flatten", node=output, inputs=(name,), output=output, in_shapes=(shape,), out_shape=flat)
