r"""`log(sum_j exp(x_j))`, of which Softmax and LogSoftmax are made: `log p_i = x_i - LSE(x)`.

LSE is convex and its derivative is the vector of probabilities p. Below it lies its tangent plane at the centre c of the box,

    LSE(x) >= LSE(c) + p(c) . (x - c).

Above, every exponential lies below its chord `k_j x_j + b_j`, and the logarithm below its tangent at `S_0 = sum_j k_j c_j + b_j`:

    LSE(x) <= log S_0 - 1 + (sum_j k_j x_j + b_j) / S_0

(Wei et al. 2023, "Convex Bounds on the Softmax Function", section 3). All of it is computed relative to the largest upper end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from onnxsub.ops.base import Box
from onnxsub.ops.interval_rows import Rows, outward, times
from onnxsub.ops.relaxation import Relaxation, Window, check_mode
from onnxsub.ops.splitting import Splittable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["GroupLines", "LogSumExp"]

_NARROW = 1e-4
"""On shorter intervals a difference quotient loses its digits; the slope at the middle serves. Any slope is sound."""

_FAR = 1e30
"""The radius of an interval without an end, where intervals are ranked."""


@dataclass(frozen=True, eq=False)
class GroupLines(Relaxation):
    """Planes below and above a function of groups of elements.

    Attributes:
        below, above: coefficients, `(B, *in_shape)`.
        low, high: constants, `(B, *out_shape)`, where every axis of a group has length 1; infinite where there is no plane.
    """

    below: Tensor
    low: Tensor
    above: Tensor
    high: Tensor

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor]:
        assert not window  # not `windowed`
        positive, negative, zero = a.clamp(min=0), a.clamp(max=0), torch.zeros_like(a)
        data = positive * self.below.unsqueeze(1) + negative * self.above.unsqueeze(1)
        terms = torch.where(a > 0, a * self.low.unsqueeze(1), zero) + torch.where(a < 0, a * self.high.unsqueeze(1), zero)
        return data, terms.flatten(2).sum(-1)


@dataclass(frozen=True, eq=False, kw_only=True)
class LogSumExp(Splittable):
    """`y = log(sum of exp(x))` over axes of the sample, which stay with length 1."""

    axes: tuple[int, ...]

    unsupported: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"milp": "it is not piecewise linear; choose --verifier bab"}
    )

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(a + 1 for a in self.axes)

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.logsumexp(xs[0], self._dims, keepdim=True)

    @property
    def count(self) -> int:
        """Elements of a group."""
        return math.prod(self.in_shapes[0][a] for a in self.axes)

    def _slack(self, *sizes: Tensor) -> Tensor:
        """What evaluating sums over a group of numbers of these sizes may round, `(B, *out_shape)`."""
        eps = torch.finfo(sizes[0].dtype).eps
        total = torch.ones((), dtype=sizes[0].dtype, device=sizes[0].device)
        for s in sizes:
            total = total + s
        return (16 + self.count) * eps * total

    def interval(self, *boxes: Box) -> Box:
        # LSE rises with every element
        low, high = (self.forward(end) for end in boxes[0])
        return low - self._slack(low.abs()), high + self._slack(high.abs())

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> GroupLines:
        """The planes above, for both modes."""
        check_mode(mode)
        dims, finite = self._dims, torch.isfinite(lower) & torch.isfinite(upper)
        zero = torch.zeros_like(lower)
        # any finite point has a tangent plane
        one_end = torch.where(torch.isfinite(upper), upper, torch.where(torch.isfinite(lower), lower, zero))
        centre = torch.where(finite, lower / 2 + upper / 2, one_end)
        value = self.forward(centre)
        share = torch.exp(centre - value)
        low = value - (share * centre).sum(dims, keepdim=True)
        low = low - self._slack(value.abs(), (share * centre.abs()).sum(dims, keepdim=True))

        top = upper.amax(dims, keepdim=True)
        top = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
        l, u = lower - top, upper - top
        first, last, width = torch.exp(l), torch.exp(u), upper - lower
        narrow = ~(width > _NARROW)
        slope = torch.where(narrow, torch.exp(centre - top), (last - first) / torch.where(narrow, torch.ones_like(width), width))
        slope = torch.where(finite & torch.isfinite(slope), slope, zero)
        flat = slope == 0
        chord = torch.maximum(*(e - torch.where(flat, zero, slope * z) for e, z in ((first, l), (last, u))))
        size = torch.maximum(last, torch.where(flat, zero, slope * torch.maximum(l.abs(), u.abs())))
        middle = (torch.where(flat, zero, slope * (centre - top)) + chord).sum(dims, keepdim=True)
        steep = slope / middle
        shift = torch.where(flat, zero, steep * top)
        high = top + torch.log(middle) - 1 + (chord / middle - shift).sum(dims, keepdim=True)
        high = high + self._slack(top.abs(), torch.log(middle).abs(), (size / middle + shift.abs()).sum(dims, keepdim=True))
        # no plane above where an upper end is infinite or a number is none
        endless = (~(upper < math.inf)).to(upper.dtype).amax(dims, keepdim=True) > 0
        lost, bad = endless | ~torch.isfinite(high), ~torch.isfinite(low)
        steep, share = torch.where(lost, zero, steep), torch.where(bad, zero, share)
        return GroupLines(share, low.masked_fill(bad, -math.inf), steep, high.masked_fill(lost, math.inf))

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        """An element is settled where it is one number, or the only one of its group."""
        return (upper <= lower) | (self.count == 1)

    def losses(self, a: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """`|a| p r^2`, p the largest probability; r for wide intervals."""
        radius = (upper / 2 - lower / 2).nan_to_num(nan=_FAR, posinf=_FAR)
        share = self.probabilities(lower, upper)[1].nan_to_num(nan=1.0)
        return a.abs() * share * radius * radius.clamp(max=1)

    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        raise self.missing("milp")

    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        """The slope for an element is its probability, between those at the corners that favour it least and most."""
        ((lower, upper),) = boxes
        centre, radius = (t.expand(-1, *self.in_shapes[0]) for t in rows)
        return (times((centre, radius), *self.probabilities(lower, upper)),)

    def probabilities(self, lower: Tensor, upper: Tensor) -> Box:
        """Range of `exp(x_j - LSE(x))` for every element: `1 / (1 + sum_(i != j) exp(x_i - x_j))` at two corners."""
        dims = self._dims
        flat = [t.movedim(dims, tuple(range(1, 1 + len(dims)))).flatten(1, len(dims)) for t in (lower, upper)]
        l, u = flat  # (B, group, *rest)
        found = []
        for own, others in ((l, u), (u, l)):
            away = torch.exp(others.unsqueeze(1) - own.unsqueeze(2))  # (B, group of own, group of others, *rest)
            count = own.shape[1]
            itself = torch.eye(count, dtype=torch.bool, device=own.device).reshape(1, count, count, *[1] * (own.dim() - 2))
            away = torch.where(itself, torch.ones_like(away), away)
            found.append(1 / away.sum(2))
        low, high = outward(found[0], found[1], l <= u)
        size = [lower.shape[d] for d in dims]
        rest = low.shape[2:]
        back = [t.reshape(t.shape[0], *size, *rest).movedim(tuple(range(1, 1 + len(dims))), dims) for t in (low, high)]
        return back[0], back[1]

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        writer.node("ReduceLogSumExp", inputs, output, axes=[a + 1 for a in self.axes], keepdims=1)
