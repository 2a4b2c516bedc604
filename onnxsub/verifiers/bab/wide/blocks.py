"""A folded network as matrices: `z = A d + B h + b`, `h = relu(z)`, rows `a . d + c . h + k`, d the offset from the anchor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from onnxsub.ops.base import Array, Operator
from onnxsub.ops.combine import Concat
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import Reshape
from onnxsub.ops.relu import Relu
from onnxsub.verifiers.box.model import BoxModel

__all__ = ["STILL", "Blocks", "Walk", "blocks_of"]

STILL = 1e-3
"""Of how far from 0 a unit may be: one that moves by no more stands still. Its sums are rounded as large ones are."""

_EXPONENTS = -400.0, 400.0  # of the sizes: far from where numbers become none


@dataclass(frozen=True, eq=False)
class Blocks:
    """m units over n inputs, float64; unit j reads units before it only.

    Attributes:
        A: `(m, n)`. B: `(m, m)`. b: `(m,)`, the pre-activations at the anchor where all h are 0.
        rows, reads, offsets: a, c and k of every output, relaxed as all proofs are (`BoxModel.slack`): `(outputs, n)`,
            `(outputs, m)`, `(outputs,)`.
        lower, upper: proved intervals of z, `(m,)`.
        low, high: the box of d, `(n,)`.
        larger: `sizes` and `row_sizes` where those of the coefficients' own sums are larger than of what is here.
    """

    A: Tensor
    B: Tensor
    b: Tensor
    rows: Tensor
    reads: Tensor
    offsets: Tensor
    lower: Tensor
    upper: Tensor
    low: Tensor
    high: Tensor
    larger: tuple[Tensor, Tensor] | None = field(default=None, kw_only=True)

    @cached_property
    def sizes(self) -> Tensor:
        """Of all terms that a pre-activation is a sum of, `(m,)`."""
        if self.larger is not None:
            return self.larger[0]
        return self.A.abs() @ self._far + self.B.abs() @ self.upper.clamp(min=0) + self.b.abs()

    @cached_property
    def row_sizes(self) -> Tensor:
        """The same of the rows, `(outputs,)`."""
        if self.larger is not None:
            return self.larger[1]
        return self.rows.abs() @ self._far + self.reads.abs() @ self.upper.clamp(min=0) + self.offsets.abs()

    @property
    def _far(self) -> Tensor:
        return torch.maximum(self.low.abs(), self.high.abs())

    @property
    def units(self) -> int:
        return len(self.b)

    def scaled(self) -> tuple[Blocks, Tensor]:
        """The same with intervals of about the size 1, and by what its pre-activations are multiplied to be these, `(m,)`.

        An interval far from 0 for its width comes to lie at about a thousand.

        Relu is positively homogeneous, and the sizes are powers of two: nothing is rounded.
        """
        half = torch.maximum((self.upper - self.lower) / 2, STILL * torch.maximum(self.lower.abs(), self.upper.abs()))
        size = torch.where(half > 0, half, torch.ones_like(half)).log2().round().clamp(*_EXPONENTS).exp2()
        row = size[:, None]
        return replace(
            self, A=self.A / row, B=self.B * size / row, b=self.b / size, reads=self.reads * size, lower=self.lower / size,
            upper=self.upper / size, larger=(self.sizes / size, self.row_sizes),
        ), size  # fmt: skip

    def folded(self, lower: Tensor, upper: Tensor) -> Blocks:
        """The same on these intervals, `(m,)`, where nothing reads a unit that is decided: `h_j` is `z_j` or 0 in all that read it.

        What that rounds is far below the share of `sizes` that bounds are widened by.
        """
        B, reads, sizes, row_sizes = self.B.clone(), self.reads.clone(), self.sizes.clone(), self.row_sizes.clone()
        # what units and rows are of the plain rows of all units: A and b are gone over once
        over, rows_over = torch.eye(self.units, dtype=B.dtype), torch.zeros_like(reads)
        for j in torch.nonzero((lower >= 0) | (upper <= 0))[:, 0].tolist():  # a unit reads earlier ones only
            by, by_row = B[:, j].clone(), reads[:, j].clone()
            B[:, j], reads[:, j] = 0.0, 0.0
            if lower[j] >= 0:
                B, over, sizes = B + by[:, None] * B[j], over + by[:, None] * over[j], sizes + by.abs() * sizes[j]
                reads, rows_over = reads + by_row[:, None] * B[j], rows_over + by_row[:, None] * over[j]
                row_sizes = row_sizes + by_row.abs() * sizes[j]
        A, b = over @ self.A, over @ self.b
        rows, offsets = self.rows + rows_over @ self.A, self.offsets + rows_over @ self.b
        return Blocks(A, B, b, rows, reads, offsets, lower, upper, self.low, self.high, larger=(sizes, row_sizes))


class Walk:
    """Affine tensors of a folded network as rows over the input and the units, windows among them."""

    def __init__(self, model: BoxModel) -> None:
        self._ops: dict[str, Operator] = {op.output: op for op in model.network.ops}
        self.inputs, self.name = model.network.input_size, model.network.input
        self.places: dict[str, slice] = {}
        self.units = 0
        for op in model.network.nonlinear:
            self.places[op.output] = slice(self.units, self.units + op.out_size)
            self.units += op.out_size

    def rows(self, name: str) -> tuple[Array, Array, Array] | None:
        """What a tensor that a `Dense` writes is of the input and of the units: `(k, n)`, `(k, m)`, `(k,)`; None: else."""
        op = self._ops.get(name)
        if not isinstance(op, Dense) or op.weight.ndim != 2 or len(op.out_shape) != 1:
            return None
        over_input, over_units = np.zeros((len(op.weight), self.inputs)), np.zeros((len(op.weight), self.units))
        if not self._read(op.inputs[0], op.weight, over_input, over_units):
            return None
        bias = np.zeros(len(op.weight)) if op.bias is None else np.broadcast_to(op.bias, op.out_shape).astype(np.float64)
        return over_input, over_units, bias

    def _read(self, name: str, weight: Array, over_input: Array, over_units: Array) -> bool:
        op = self._ops.get(name)
        if op is None or (isinstance(op, Reshape) and op.inputs[0] == self.name):
            over_input += weight
        elif name in self.places:
            over_units[:, self.places[name]] += weight
        elif isinstance(op, Concat) and op.constant is None:
            ends = [*op.slots[1:], op.out_shape[op.axis]]
            parts = zip(op.inputs, op.slots, ends, strict=True)
            return all(self._read(part, weight[:, start:end], over_input, over_units) for part, start, end in parts)
        else:
            return False
        return True


def blocks_of(model: BoxModel) -> Blocks | None:
    """The matrices of a folded box; None where it holds anything but Relus, or an interval is infinite."""
    network, walk = model.network, Walk(model)
    if not all(isinstance(op, Relu) for op in network.nonlinear):
        return None
    found = [walk.rows(op.inputs[0]) for op in network.activations]
    last = walk.rows(network.output)
    if last is None or any(part is None for part in found) or not found:
        return None
    A, B, b = (np.concatenate([part[k] for part in found if part is not None]) for k in range(3))
    ends = [model.bounds.arrays(op.output) for op in network.activations]
    lower, upper = (np.concatenate([np.asarray(e[k], dtype=np.float64).reshape(-1) for e in ends]) for k in (0, 1))
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        return None
    x0 = np.asarray(model.box.x0, dtype=np.float64).reshape(-1)
    low, high = model.box.lower.reshape(-1) - x0, model.box.upper.reshape(-1) - x0
    slack = np.array([model.slack(row) for row in range(len(last[2]))])
    parts = (A, B, b + A @ x0, last[0], last[1], last[2] + last[0] @ x0 + slack, lower, upper, low, high)
    return Blocks(*(torch.from_numpy(np.ascontiguousarray(p, dtype=np.float64)) for p in parts))
