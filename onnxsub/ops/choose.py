"""Every element from one of several tensors, or a constant: Where and Trilu with a constant condition; and Expand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onnxsub.ops.base import Affine, Array, Box
from onnxsub.ops.broadcast import leading, of_sample, required, sum_to
from onnxsub.ops.movement import Selection
from onnxsub.ops.node import Node

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Choose", "Expand", "read_expand", "read_trilu", "read_where"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Choose(Affine):
    """`y = x_k` where `which` is k, and `constant` where it is -1; every x_k is broadcast to `out_shape`.

    Attributes:
        which: integers of shape `out_shape`.
        constant: `out_shape`, finite, zero where `which` is not -1.
    """

    mixing: ClassVar[bool] = False

    which: Array
    constant: Array

    def _from(self, k: int, like: Tensor) -> Tensor:
        mask: Tensor = self.cached(("from", k, like.device), lambda: torch.as_tensor(self.which == k, device=like.device))
        return mask

    def _padded(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *[1] * (len(self.out_shape) + 1 - x.dim()), *x.shape[1:])

    def linear(self, *xs: Tensor) -> Tensor:
        y = torch.zeros((xs[0].shape[0], *self.out_shape), dtype=xs[0].dtype, device=xs[0].device)
        for k, x in enumerate(xs):  # not a product with a mask: zero times an infinite end is not a number
            y = torch.where(self._from(k, x), self._padded(x), y)
        return y

    def offset(self, like: Tensor) -> Tensor | None:
        return self.tensor("constant", like) if self.constant.any() else None

    def interval(self, *boxes: Box) -> Box:
        return self.forward(*[lo for lo, _ in boxes]), self.forward(*[hi for _, hi in boxes])

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        zero = torch.zeros((), dtype=a.dtype, device=a.device)
        return tuple(sum_to(torch.where(self._from(k, a), a, zero), s) for k, s in enumerate(self.in_shapes))

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """`sum_k x_k mask_k + constant`, exact for numbers that are finite."""
        rank, total = len(self.out_shape), ""
        for k, (name, shape) in enumerate(zip(inputs, self.in_shapes, strict=True)):
            if len(shape) < rank:
                raised = writer.fresh(f"{output}/raised{k}")
                writer.reshape(name, raised, (1,) * (rank - len(shape)) + shape)
                name = raised
            part = writer.step("Mul", (name, writer.weight(output, f"mask{k}", leading(self.which == k, rank))), output, f"part{k}")
            total = writer.step("Add", (total, part), output, f"sum{k}") if total else part
        writer.node("Add", (total, writer.weight(output, "constant", leading(self.constant, rank))), output)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        found = []
        for k, shape in enumerate(self.in_shapes):
            size = int(np.prod(shape, dtype=np.int64))
            columns = np.broadcast_to(np.arange(size).reshape(shape), self.out_shape).reshape(-1)
            rows = np.flatnonzero(self.which == k)
            matrix = sp.coo_array((np.ones(len(rows)), (rows, columns[rows])), shape=(self.out_size, size))
            found.append(sp.csr_array(matrix))
        return tuple(found)


@dataclass(frozen=True, eq=False, kw_only=True)
class Expand(Selection):
    """The tensor repeated along its axes of length 1, and along new ones in front."""

    def linear(self, *xs: Tensor) -> Tensor:
        missing = len(self.out_shape) - len(self.in_shapes[0])
        return xs[0].reshape(xs[0].shape[0], *[1] * missing, *self.in_shapes[0]).expand(-1, *self.out_shape)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (sum_to(a, self.in_shapes[0]),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        source, missing = inputs[0], len(self.out_shape) - len(self.in_shapes[0])
        if missing:
            source = writer.fresh(f"{output}/raised")
            writer.reshape(inputs[0], source, (1,) * missing + self.in_shapes[0])
        writer.node("Expand", (source, writer.integers(output, "shape", np.array([1, *self.out_shape]))), output)


def read_expand(node: Node) -> tuple[Expand, ...]:
    """To a constant shape; the batch axis stays in front."""
    required(node, 1, "the shape")
    rank = len(node.shapes[node.inputs[0]])
    if len(node.shapes[node.outputs[0]]) != rank:
        raise node.refuse("new axes in front of the batch axis move it")
    return (Expand(**node.common()),)


def read_where(node: Node) -> tuple[Choose, ...]:
    """A constant condition; either branch, or both, may depend on the network's input."""
    condition = required(node, 0, "the condition")
    common = node.common()
    rank, shape = len(common["out_shape"]) + 1, common["out_shape"]
    if any(len(node.shapes[n]) != rank for n in node.variables):
        raise node.refuse("its tensors have different numbers of axes: the batch axis of one meets another axis of the other")
    first = np.broadcast_to(of_sample(node, condition, rank) != 0, shape)
    which, constant = np.full(shape, -1, dtype=np.int64), np.zeros(shape)
    for i, place in ((1, first), (2, ~first)):
        value = node.constant(i)
        if value is None:
            which[place] = node.variables.index(node.inputs[i])
        else:  # only what is chosen has to be finite: the other elements are no operands
            chosen = np.where(place, np.broadcast_to(_of_sample_any(node, value, rank), shape), 0.0)
            if not np.isfinite(chosen).all():
                raise node.refuse("a constant that it chooses is not finite; export the model with a large finite number there")
            constant += chosen
    return (Choose(**common, which=which, constant=constant),)


def _of_sample_any(node: Node, value: Array, rank: int) -> Array:
    finite = np.isfinite(value)
    sample = of_sample(node, np.where(finite, value, 0.0), rank)
    return np.where(of_sample(node, finite, rank) != 0, sample, np.inf)


def read_trilu(node: Node) -> tuple[Choose, ...]:
    """The upper or lower triangle of the last two axes, zero elsewhere; the diagonal `k` is constant."""
    k = int(required(node, 1, "k").reshape(-1)[0]) if node.has(1) else 0
    common = node.common()
    if len(common["in_shapes"][0]) < 2:
        raise node.refuse("it works along the batch axis")
    ones = np.ones(common["out_shape"], dtype=np.int64)
    kept = np.triu(ones, k) if node.attributes.get("upper", 1) else np.tril(ones, k)
    return (Choose(**common, which=kept - 1, constant=np.zeros(common["out_shape"])),)
