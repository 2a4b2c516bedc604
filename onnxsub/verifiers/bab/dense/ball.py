r"""A folded network on one ball, centred and scaled: `d = centre + half * e` with e in [-1, 1]^n, so that `max v . e = |v|_1`.

    z = A e + B h + b,  h = relu(z),  rows a . e + c . h + k

Matrices are kept in float32, in which a tree is searched, and in float64, in which nodes are closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.verifiers.bab.wide.blocks import Blocks

__all__ = ["Ball", "Parts", "layers_of", "outward"]

_OUTWARD = 1e-12  # relative: what rounding of the centre may leave out of the box
_LEAST = 1e-34  # of spans: shares of it are more than what underflows in float32, for 16,384 inputs


@dataclass(frozen=True, eq=False)
class Parts:
    """In one precision: `(m, n)`, `(m, m)`, `(m,)`, and of T rows `(T, n)`, `(T, m)`, `(T,)`; transposed copies for products."""

    A: Tensor
    B: Tensor
    b: Tensor
    a: Tensor
    c: Tensor
    k: Tensor
    turned: Tensor
    B_turned: Tensor

    @staticmethod
    def of(whole: tuple[Tensor, ...], dtype: torch.dtype) -> Parts:
        """From A, B, b, a, c and k."""
        A, B, b, a, c, k = (t.to(dtype).contiguous() for t in whole)
        return Parts(A, B, b, a, c, k, A.T.contiguous(), B.T.contiguous())


@dataclass(frozen=True, eq=False)
class Ball:
    """m units over n inputs, T rows.

    Attributes:
        layers: the units of a layer read units of earlier ones only. reads: whether those of a layer read inputs.
        single, double: the matrices.
        spans: how large `|z_k|` can be, with everything that is summed for it, `(m,)` float32: errors are shares of it.
        row_spans: the same of the rows, `(T,)`.
        centre, half: `(n,)` float64.
        lower, upper: proved intervals of z, `(m,)` float32, rounded outward.
    """

    layers: tuple[slice, ...]
    reads: tuple[bool, ...]
    single: Parts
    double: Parts
    spans: Tensor
    row_spans: Tensor
    centre: Tensor
    half: Tensor
    lower: Tensor
    upper: Tensor

    @staticmethod
    def of(blocks: Blocks, rows: list[int], radius: float) -> Ball:
        """Some rows of a network within a radius of the anchor."""
        low, high = blocks.low.clamp(min=-radius), blocks.high.clamp(max=radius)
        centre = low / 2 + high / 2
        half = torch.maximum(high - centre, centre - low) * (1 + _OUTWARD)
        A, a = blocks.A * half, blocks.rows[rows] * half
        b, k = blocks.b + blocks.A @ centre, blocks.offsets[rows] + blocks.rows[rows] @ centre
        c = blocks.reads[rows]
        most = torch.maximum(blocks.lower.abs(), blocks.upper.abs())
        before = blocks.b.abs() + blocks.A.abs() @ (centre.abs() + half)
        spans = torch.maximum(most, before + blocks.B.abs() @ most)
        row_spans = blocks.offsets[rows].abs() + blocks.rows[rows].abs() @ (centre.abs() + half) + c.abs() @ spans
        least = _LEAST * (1 + spans.sum())
        whole = A, blocks.B, b, a, c, k
        ends = outward(blocks.lower, -1), outward(blocks.upper, 1)
        layers = layers_of(blocks.B)
        return Ball(
            layers, tuple(bool(A[s].any()) for s in layers), Parts.of(whole, torch.float32), Parts.of(whole, torch.float64),
            outward(spans + least, 1), outward(row_spans + least, 1), centre, half, *ends,
        )  # fmt: skip

    @property
    def units(self) -> int:
        return len(self.spans)

    @property
    def inputs(self) -> int:
        return len(self.half)

    def offsets(self, signs: Tensor) -> Tensor:
        """The corners, or points between, that e `(N, n)` stands for, `(N, n)` float64."""
        return self.centre + self.half * signs.double()


def layers_of(B: Tensor) -> tuple[slice, ...]:
    """Consecutive units none of which reads another: a new layer begins where one does."""
    starts = [0]
    for j in range(len(B)):
        if bool(B[j, starts[-1] : j].any()):
            starts.append(j)
    return tuple(slice(i, j) for i, j in zip(starts, [*starts[1:], len(B)], strict=True))


def outward(values: Tensor, sign: int) -> Tensor:
    """As float32, not smaller (sign 1) or not larger (-1) than they were."""
    short = values.float()
    limit = torch.full_like(short, sign * torch.inf)
    return torch.where(sign * (values - short.double()) > 0, torch.nextafter(short, limit), short)
