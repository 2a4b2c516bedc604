"""`Picked`: every output element is a sum of two weighted input elements and a constant. What becomes of a pruned window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Affine, Array, Box
from onnxsub.ops.broadcast import leading

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Picked"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Picked(Affine):
    """`y_w = weight_w x[first_w] + other_w x[second_w] + shift_w`, x flat; all arrays have the shape `out_shape`.

    Attributes:
        first, second: flat positions in the input; they differ wherever `other` is not zero.
        weight, other, shift: float64.
    """

    first: Array
    second: Array
    weight: Array
    other: Array
    shift: Array

    def __post_init__(self) -> None:
        if {a.shape for a in (self.first, self.second, self.weight, self.other, self.shift)} != {self.out_shape}:
            raise ValueError(f"{self.op_type} {self.node!r}: positions and weights must have the shape {self.out_shape}")
        if not all(np.isfinite(a).all() for a in (self.weight, self.other, self.shift)):
            raise ValueError(f"{self.op_type} {self.node!r}: a weight is not finite")
        if ((self.first == self.second) & (self.other != 0)).any():
            raise ValueError(f"{self.op_type} {self.node!r}: one position is picked twice")

    def only(self, chosen: Array) -> Picked:
        """The same with zeros in the place of all outputs outside of `chosen`."""
        weight, other, shift = (np.where(chosen, a, 0.0) for a in (self.weight, self.other, self.shift))
        return Picked(
            op_type=self.op_type, node=self.node, inputs=self.inputs, output=self.output, in_shapes=self.in_shapes,
            out_shape=self.out_shape, first=self.first, second=self.second, weight=weight, other=other, shift=shift,
        )  # fmt: skip

    @property
    def _terms(self) -> tuple[tuple[str, str], ...]:
        """Names of positions and weights; without those whose weights are all zero."""
        pairs = (("first", "weight"), ("second", "other"))
        found: tuple[tuple[str, str], ...] = self.cached("terms", lambda: tuple(p for p in pairs if getattr(self, p[1]).any()))
        return found

    def _index(self, name: str, like: Tensor) -> Tensor:
        flat = getattr(self, name).reshape(-1)
        index: Tensor = self.cached((name, like.device), lambda: torch.as_tensor(flat.copy(), device=like.device))
        return index

    def _weight(self, name: str, like: Tensor) -> Tensor:
        return self.tensor(name, like).reshape(-1)

    def linear(self, *xs: Tensor) -> Tensor:
        flat = xs[0].reshape(len(xs[0]), math.prod(self.in_shapes[0]))
        y = flat.new_zeros((len(flat), self.out_size))
        for at, by in self._terms:
            y = y + flat[:, self._index(at, flat)] * self._weight(by, flat)
        return y.reshape(len(flat), *self.out_shape)

    def offset(self, like: Tensor) -> Tensor | None:
        return self.tensor("shift", like) if self.shift.any() else None

    def magnitude(self, *rs: Tensor) -> Tensor:
        flat = rs[0].reshape(len(rs[0]), math.prod(self.in_shapes[0]))
        y = flat.new_zeros((len(flat), self.out_size))
        for at, by in self._terms:
            y = y + flat[:, self._index(at, flat)] * self._weight(by, flat).abs()
        return y.reshape(len(flat), *self.out_shape)

    def interval(self, *boxes: Box) -> Box:
        """An end that is infinite is felt by those outputs only that have a weight for it."""
        lower, upper = (t.reshape(len(t), math.prod(self.in_shapes[0])) for t in boxes[0])
        low = self._weight("shift", lower).expand(len(lower), self.out_size)
        high = low
        for at, by in self._terms:
            index, w = self._index(at, lower), self._weight(by, lower)
            one, two = (torch.where(w == 0, torch.zeros_like(w), t[:, index] * w) for t in (lower, upper))
            low, high = low + torch.where(w > 0, one, two), high + torch.where(w > 0, two, one)
        shape = (len(lower), *self.out_shape)
        return low.reshape(shape), high.reshape(shape)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        flat = a.reshape(len(a), self.out_size)
        x = flat.new_zeros((len(a), math.prod(self.in_shapes[0])))
        for at, by in self._terms:
            x = x.index_add(1, self._index(at, a), flat * self._weight(by, a))
        return (x.reshape(len(a), *self.in_shapes[0]),)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        rows = np.arange(self.out_size)
        at = np.concatenate([self.first.reshape(-1), self.second.reshape(-1)])
        data = np.concatenate([self.weight.reshape(-1), self.other.reshape(-1)])
        matrix = sp.coo_array((data, (np.tile(rows, 2), at)), shape=(self.out_size, math.prod(self.in_shapes[0])))
        found = sp.csr_array(matrix)
        found.eliminate_zeros()
        return (found,)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        source = writer.fresh(f"{output}/flat")
        writer.reshape(inputs[0], source, (math.prod(self.in_shapes[0]),))
        # a constant output still hangs on its input, so that the graph stays connected
        total = ""
        for at, by in self._terms or (("first", "weight"),):
            positions = writer.integers(output, at, getattr(self, at).reshape(-1))
            term = writer.step("Gather", (source, positions), output, f"{at}/picked", axis=1)
            weight = getattr(self, by).reshape(-1)
            if not (weight == 1).all():
                term = writer.step("Mul", (term, writer.weight(output, by, leading(weight, 1))), output, f"{at}/weighted")
            total = writer.step("Add", (total, term), output, "sum") if total else term
        if self.shift.any():
            shift = writer.weight(output, "shift", leading(self.shift.reshape(-1), 1))
            total = writer.step("Add", (total, shift), output, "shifted")
        writer.reshape(total, output, self.out_shape)
