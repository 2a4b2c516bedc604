"""Sums and differences of tensors that both depend on the input (residual branches), and Concat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Affine, Array, Box
from onnxsub.ops.broadcast import leading, of_sample, sample_axes, sum_to
from onnxsub.ops.elementwise import Scale, shifted
from onnxsub.ops.node import Node

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Concat", "Sum", "read_add", "read_concat", "read_sub", "read_sum"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sum(Affine):
    """`y = sum_i sign_i x_i + shift`, broadcast to `out_shape`; sign_i is 1 or -1."""

    signs: tuple[int, ...]
    shift: Array | None = None

    def linear(self, *xs: Tensor) -> Tensor:
        total = xs[0] if self.signs[0] > 0 else -xs[0]
        for sign, x in zip(self.signs[1:], xs[1:], strict=True):
            total = total + x if sign > 0 else total - x
        return total.expand(-1, *self.out_shape)

    def magnitude(self, *rs: Tensor) -> Tensor:
        total = rs[0]
        for r in rs[1:]:
            total = total + r
        return total.expand(-1, *self.out_shape)

    def offset(self, like: Tensor) -> Tensor | None:
        return None if self.shift is None else self.tensor("shift", like)

    def interval(self, *boxes: Box) -> Box:
        ends = [(lo, hi) if sign > 0 else (hi, lo) for sign, (lo, hi) in zip(self.signs, boxes, strict=True)]
        return self.forward(*[lo for lo, _ in ends]), self.forward(*[hi for _, hi in ends])

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        parts = (sum_to(a, s) for s in self.in_shapes)
        return tuple(p if sign > 0 else -p for sign, p in zip(self.signs, parts, strict=True))

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        terms = [("Add" if sign > 0 else "Sub", name) for sign, name in zip(self.signs, inputs, strict=True)]
        if self.shift is not None:
            terms.append(("Add", writer.weight(output, "shift", leading(self.shift, len(self.out_shape)))))
        (kind, total), *rest = terms
        if kind == "Sub":
            total = writer.step("Neg", (total,), output, "negative")
        for i, (kind, name) in enumerate(rest[:-1]):
            total = writer.step(kind, (total, name), output, f"sum{i}")
        kind, last = rest[-1] if rest else ("Identity", "")
        writer.node(kind, (total, last) if rest else (total,), output)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        n = self.out_size
        found = []
        for sign, shape in zip(self.signs, self.in_shapes, strict=True):
            size = int(np.prod(shape, dtype=np.int64))
            columns = np.broadcast_to(np.arange(size).reshape(shape), self.out_shape).reshape(-1)
            found.append(sp.csr_array((np.full(n, float(sign)), columns.copy(), np.arange(n + 1)), shape=(n, size)))
        return tuple(found)


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Affine):
    """`y` = the tensors one after the other along `axis` of the sample, with constant pieces between them.

    Attributes:
        slots: start of every variable input along the axis.
        constant: `out_shape`, the constant pieces, zero elsewhere; None where there are none.
    """

    axis: int
    slots: tuple[int, ...]
    constant: Array | None = None

    def linear(self, *xs: Tensor) -> Tensor:
        if self.constant is None:
            return torch.cat(xs, dim=self.axis + 1)
        pieces, at = [], 0
        for slot, x in zip((*self.slots, self.out_shape[self.axis]), (*xs, None), strict=True):
            if slot > at:
                gap = (*self.out_shape[: self.axis], slot - at, *self.out_shape[self.axis + 1 :])
                pieces.append(xs[0].new_zeros((xs[0].shape[0], *gap)))
            if x is not None:
                pieces.append(x)
                at = slot + x.shape[self.axis + 1]
        return torch.cat(pieces, dim=self.axis + 1)

    def offset(self, like: Tensor) -> Tensor | None:
        return None if self.constant is None else self.tensor("constant", like)

    def interval(self, *boxes: Box) -> Box:
        return self.forward(*[lo for lo, _ in boxes]), self.forward(*[hi for _, hi in boxes])

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        axis = self.axis + 1
        return tuple(a.narrow(axis, slot, s[self.axis]) for slot, s in zip(self.slots, self.in_shapes, strict=True))

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        if self.constant is None:
            writer.node("Concat", inputs, output, axis=self.axis + 1)
            return
        # a constant has one sample and the file any number: each tensor is padded to the whole and the constant added
        total = writer.weight(output, "constant", self.constant)
        for i, (slot, name, shape) in enumerate(zip(self.slots, inputs, self.in_shapes, strict=True)):
            pads = np.zeros((2, len(shape) + 1), dtype=np.int64)
            pads[:, self.axis + 1] = slot, self.out_shape[self.axis] - slot - shape[self.axis]
            padded = writer.step("Pad", (name, writer.integers(output, f"pads{i}", pads.reshape(-1))), output, f"padded{i}")
            if i < len(inputs) - 1:
                total = writer.step("Add", (padded, total), output, f"sum{i}")
            else:
                writer.node("Add", (padded, total), output)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        index = np.arange(self.out_size).reshape(self.out_shape)
        found = []
        for slot, shape in zip(self.slots, self.in_shapes, strict=True):
            rows = np.take(index, np.arange(slot, slot + shape[self.axis]), axis=self.axis).reshape(-1)
            matrix = sp.coo_array((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(self.out_size, len(rows)))
            found.append(sp.csr_array(matrix))
        return tuple(found)


def read_add(node: Node) -> tuple[Scale | Sum, ...]:
    """Two tensors, or a tensor and a constant."""
    return shifted(node, 1, 1) if len(node.variables) == 1 else (_sum(node, (1, 1)),)


def read_sub(node: Node) -> tuple[Scale | Sum, ...]:
    """Two tensors, or a tensor and a constant on either side."""
    if len(node.variables) == 1:
        return shifted(node, -1, 1) if node.inputs[0] in node.constants else shifted(node, 1, -1)
    return (_sum(node, (1, -1)),)


def read_sum(node: Node) -> tuple[Sum, ...]:
    """ONNX Sum: any number of tensors and constants."""
    return (_sum(node, (1,) * len(node.inputs)),)


def _sum(node: Node, signs: tuple[int, ...]) -> Sum:
    ranks = {len(node.shapes[n]) for n in node.variables}
    if len(ranks) != 1:
        raise node.refuse("its tensors have different numbers of axes: the batch axis of one meets another axis of the other")
    shift = None
    for i, name in enumerate(node.inputs):
        value = node.constant(i)
        if value is not None:
            c = signs[i] * of_sample(node, value, max(ranks))
            shift = c if shift is None else shift + c
        elif not name:
            raise node.refuse("an operand is left out")
    variable = tuple(s for s, n in zip(signs, node.inputs, strict=True) if n not in node.constants)
    return Sum(**node.common(), signs=variable, shift=shift)


def read_concat(node: Node) -> tuple[Concat, ...]:
    """Tensors and constants along an axis of the sample."""
    shapes = [node.constants[n].shape if n in node.constants else node.shapes[n] for n in node.inputs]
    rank = len(node.shapes[node.outputs[0]])
    (axis,) = sample_axes(node, [int(node.attributes["axis"])], rank)
    common = node.common()
    constant = np.zeros(common["out_shape"])
    slots, at = [], 0
    for name, shape in zip(node.inputs, shapes, strict=True):
        stop = at + shape[axis + 1]
        if name in node.constants:
            cut = (slice(None),) * axis + (slice(at, stop),)
            constant[cut] = of_sample(node, node.constants[name], rank)
        else:
            slots.append(at)
        at = stop
    fixed = len(slots) < len(node.inputs)
    return (Concat(**common, axis=axis, slots=tuple(slots), constant=constant if fixed else None),)
