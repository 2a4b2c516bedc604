r"""Where with a condition that depends on the input: one of two tensors, by a truth that is 1 or 0.

With d = a - b and its interval's centre m and radius r,

    c a + (1 - c) b = (a + b) / 2 + m (c - 1/2) + (c - 1/2) (d - m),    |(c - 1/2) (d - m)| <= r / 2,

which is exact where both are a constant apart. Where the truth is known it is one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from onnxsub.ops.base import Array, Box, Shape
from onnxsub.ops.broadcast import sum_to
from onnxsub.ops.interval_rows import Rows, times
from onnxsub.ops.joined import taken_apart
from onnxsub.ops.planes import Parallel
from onnxsub.ops.relaxation import check_mode
from onnxsub.ops.splitting import Splittable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Either"]

_ULPS = 16
"""Bounds are widened by this many units in the last place of what enters them."""

_FAR = 1e30
"""The radius of an interval without an end, where intervals are ranked."""


class _Ends(NamedTuple):
    """Where the truth is known to be 1 and 0, the ends of both tensors, and those of their difference; all broadcast."""

    on: Tensor
    off: Tensor
    a: Box
    b: Box
    d: Box


@dataclass(frozen=True, eq=False)
class _Between(Parallel):
    """The planes of an `Either`: `shares` of c, a and b in the output, each `(B, *out_shape)`."""

    op: Either
    shares: tuple[Tensor, Tensor, Tensor]

    def coefficients(self, a: Tensor) -> Tensor:
        return self.op.back([a * s.unsqueeze(1) for s in self.shares])


@dataclass(frozen=True, eq=False, kw_only=True)
class Either(Splittable):
    """`a` where `c` is 1, `b` where it is 0, of the tensors c, a and b in a joined one; axes of length 1 are broadcast.

    Attributes:
        parts: where each of c, a and b begins in the input, and its shape, with as many axes as the output.
    """

    parts: tuple[tuple[int, Shape], ...]

    def split(self, t: Tensor) -> list[Tensor]:
        """c, a and b of the joined tensor `(N, size)`."""
        return [t[:, start : start + math.prod(shape)].reshape(-1, *shape) for start, shape in self.parts]

    def back(self, shares: list[Tensor]) -> Tensor:
        """Coefficients of c, a and b, each `(B, R, *out_shape)`, as those of the joined tensor, `(B, R, size)`."""
        b, rows = shares[0].shape[:2]
        found = shares[0].new_zeros((b, rows, *self.in_shapes[0]))
        for (start, shape), share in zip(self.parts, shares, strict=True):
            flat = sum_to(share.flatten(0, 1), shape).reshape(b, rows, -1)
            # one tensor may be two of the three
            end = start + flat.shape[-1]
            found = torch.cat((found[..., :start], found[..., start:end] + flat, found[..., end:]), -1)
        return found

    def forward(self, *xs: Tensor) -> Tensor:
        c, a, b = self.split(xs[0])
        y = torch.where(c > 0.5, a, b).expand(-1, *self.out_shape)
        if not (torch.is_grad_enabled() and xs[0].requires_grad):
            return y
        return y + (c - c.detach()) * (a - b).detach()  # what an attack gains by the other side

    def _ends(self, lower: Tensor, upper: Tensor) -> _Ends:
        (cl, al, bl), (cu, au, bu) = ([t.expand(-1, *self.out_shape) for t in self.split(end)] for end in (lower, upper))
        on = cl >= 0.5
        return _Ends(on, (cu <= 0.5) & ~on, (al, au), (bl, bu), (al - bu, au - bl))

    def interval(self, *boxes: Box) -> Box:
        e = self._ends(*boxes[0])
        low, high = (
            torch.where(e.on, e.a[k], torch.where(e.off, e.b[k], f(e.a[k], e.b[k])))
            for k, f in ((0, torch.minimum), (1, torch.maximum))
        )  # fmt: skip
        return low, high

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> _Between:
        """For both modes."""
        check_mode(mode)
        e = self._ends(lower, upper)
        zero, one, known = torch.zeros_like(e.d[0]), torch.ones_like(e.d[0]), e.on | e.off
        finite = torch.isfinite(e.d[0]) & torch.isfinite(e.d[1])
        low, high = (torch.where(finite & ~known, t, zero) for t in e.d)
        m = low / 2 + high / 2
        # from the centre as it was rounded to the end that is farther away
        spread = torch.maximum(high - m, m - low) / 2
        ends = [t.abs().nan_to_num(posinf=0.0) for t in (*e.a, *e.b)]
        size = torch.stack([*ends, m.abs()]).amax(0)
        spread = torch.where(known, zero, spread + _ULPS * torch.finfo(size.dtype).eps * size)
        share = torch.where(e.on, one, torch.where(e.off, zero, one / 2))
        return _Between(spread.masked_fill(~finite & ~known, math.inf), -m / 2, self, (m, share, 1 - share))

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The truth is split where it is made; an element of a or b is settled where it is one number, or its truths are known."""
        e = self._ends(lower, upper)
        open_ = (~(e.on | e.off)).to(lower.dtype).unsqueeze(1)
        met = self.back([torch.zeros_like(open_), open_, open_])[:, 0]
        return (met == 0) | ((lower == upper) & torch.isfinite(lower))

    def losses(self, a: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        e, r = self._ends(lower, upper), (upper / 2 - lower / 2).nan_to_num(nan=_FAR, posinf=_FAR)
        share = (torch.where(e.on | e.off, torch.zeros_like(a), a.abs()) / 2).unsqueeze(1)
        return self.back([torch.zeros_like(share), share, share])[:, 0] * r

    def _table(self) -> list[Array]:
        """Which elements of the joined tensor c, a and b are, for every element of the output, flattened."""
        return [
            np.broadcast_to(start + np.arange(math.prod(shape)).reshape(shape), self.out_shape).reshape(-1)
            for start, shape in self.parts
        ]

    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        """`|y - b| <= c |d|, |y - a| <= (1 - c) |d|`, with either sign's own bound of d."""
        lower, upper = encoder.bounds(self.output)
        e = self._ends(*(torch.as_tensor(np.array(t)).reshape(1, -1) for t in (lower, upper)))
        on, off, dl, du = (t.reshape(-1).numpy() for t in (e.on, e.off, *e.d))
        low, high = (t.reshape(-1).numpy() for t in self.interval((_row(lower), _row(upper))))
        c, a, b = (xs[0].take(index) for index in self._table())
        y = a.scale(on.astype(np.float64)) + b.scale(off.astype(np.float64))
        units = np.flatnonzero(~(on | off))
        if not len(units):
            return y
        new = encoder.continuous(low[units], high[units])
        most, least = np.maximum(du, 0.0)[units], np.minimum(dl, 0.0)[units]
        finite = np.flatnonzero(np.isfinite(most) & np.isfinite(least))
        cu, most, least = c.take(units[finite]), most[finite], least[finite]
        over_b, over_a = (new.take(finite) - t.take(units[finite]) for t in (b, a))
        encoder.rows(over_b - cu.scale(most), -np.inf, 0.0)
        encoder.rows(over_b - cu.scale(least), 0.0, np.inf)
        encoder.rows(over_a - cu.scale(least), -np.inf, -least)
        encoder.rows(over_a - cu.scale(most), -most, np.inf)
        return y + new.spread(units, len(y))

    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        """`y - y' = (c - c') d + c' (a - a') + (1 - c') (b - b')`."""
        e = self._ends(*boxes[0])
        zero, one = torch.zeros_like(e.d[0]), torch.ones_like(e.d[0])
        least, most = torch.where(e.on, one, zero), torch.where(e.off, zero, one)
        known = e.on | e.off
        truth = (torch.where(known, zero, e.d[0]), torch.where(known, zero, e.d[1]))
        found = [times(rows, *ends) for ends in (truth, (least, most), (1 - most, 1 - least))]
        centre, radius = (self.back([part[k].unsqueeze(0) for part in found])[0] for k in (0, 1))
        return ((centre, radius + 1e-13 * (centre.abs() + radius)),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        parts = [(name, *part) for name, part in zip(("truth", "first", "second"), self.parts, strict=True)]
        c, a, b = taken_apart(writer, inputs[0], output, parts)
        truth = writer.step("Greater", (c, writer.weight(output, "half", np.array(0.5))), output, "condition")
        writer.node("Where", (truth, a, b), output)


def _row(values: Array) -> Tensor:
    return torch.as_tensor(np.array(values, dtype=np.float64)).reshape(1, -1)
