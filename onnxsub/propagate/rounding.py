r"""What float64 may round away, and what must not count because it is not finite.

**Scales.** Every element t_i of a tensor has a scale s_i, an upper bound over the box of the size of all terms of the sums that
lead to it from the last non-linear operator:

    input              s = max(|l|, |u|)
    affine operator    s = sum_i |L_i| max(s_in, |l_in|, |u_in|) + |c|
    others             s = max(|l|, |u|) of what they write

**Slack.** A computed end moves outward by

    interval forward     1e-9 max(|l|, |u|) + 1e-10 s_i
    linear, backward     the same + 1e-12 sum_k |A_k| . s_k

where A_k are the coefficients of the row at the input of the k-th non-linear operator that it passes. Why this is enough in float64
(u = 2^-53 = 1.1e-16): a sum of n products, in whatever order, is off by at most `n u` times the sum of their sizes (Higham 2002,
eq. 3.5). Forward, that is `n u s_i`: 1e-10 covers 9e5 terms at the worst, and every operator starts from widened ends. Backward,
the coefficients A_k are products of everything behind operator k, so their rounding at one operator changes the row by at most
`n u |A_k| . s_k`, whatever the depth: depth enters as the number of terms of the sum over k, not as a power. 1e-12 covers
n = 9,000 at the worst (rounding adds up like sqrt(n) as a rule), and `1e-9 max(|l|, |u|) + 1e-10 s_i` stands besides. Cancellation
inside the network shows in s_k, so it needs no bound of its own. float32 bounds (1e-5, 1e-6, 1e-6) rank only and prove nothing.

Every term is the row's or the unit's own, so a network whose hidden layer is multiplied by 2^k, and the next one by 2^-k, has its
intervals multiplied by exactly 2^k there, and bit for bit the same ones elsewhere. What underflows is covered by 1e-300, and in a
row, whose coefficients may underflow against large values, by 1e-318 of the largest finite scale besides; no number above 1e-284
feels that in a network of moderate numbers. An element without any term is 0 and stays so.

**Not finite.** An end that is NaN, a lower end of +inf, an upper one of -inf: the computation overflowed, and says nothing.
`settled` is the one place that turns them into "no bound". A scale is infinite where a term is; linear bounds of such an element
prove nothing either, so a coefficient that underflowed to 0 against a value that overflowed cannot pass for 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Affine, Box, Operator

__all__ = ["Scales", "absolute_product", "after", "scales_of", "settled", "slack"]


class Scales(dict[str, Tensor]):
    """Scale of every tensor by name, `(B, *shape)`; each is set once.

    Attributes:
        finite: the same with 0 in place of what is infinite.
        largest: the largest finite one.
    """

    def __init__(self, scales: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.finite: dict[str, Tensor] = {}
        self.largest = 0.0
        for name, scale in scales.items():
            self[name] = scale

    def __setitem__(self, name: str, scale: Tensor) -> None:
        super().__setitem__(name, scale)
        largest = float(scale.max()) if scale.numel() else 0.0
        if not math.isfinite(largest):  # the largest of NaN and others is NaN
            scale = torch.where(torch.isfinite(scale), scale, 0.0)
            largest = float(scale.max())
        self.finite[name] = scale
        self.largest = max(self.largest, largest)


def slack(lower: Tensor, upper: Tensor, scale: Tensor, passed: Tensor | None = None, *, largest: float = 0.0) -> Tensor:
    """How far computed ends are moved outward.

    Args:
        lower, upper: the ends.
        scale: s_i of the module, broadcastable to them.
        passed: `sum_k |A_k| . s_k`; None for intervals.
        largest: largest finite scale there is, for what may underflow.
    """
    double = lower.dtype == torch.float64
    own, terms, rows, lost = (1e-9, 1e-10, 1e-12, 1e-318) if double else (1e-5, 1e-6, 1e-6, 1e-43)
    size = torch.maximum(*(end.nan_to_num(0.0, 0.0, 0.0).abs() for end in (lower, upper)))  # one lost end leaves the other
    underflow = (scale > 0).to(scale) * (tiny_of(scale) + lost * largest)
    result = own * size + (terms * scale + underflow)
    return result if passed is None else result + rows * passed


def settled(lower: Tensor, upper: Tensor) -> Box:
    """The interval in which every end that is not finite stands for no bound: `-inf` below, `+inf` above."""
    inf = torch.inf
    return lower.nan_to_num(nan=-inf, posinf=-inf, neginf=-inf), upper.nan_to_num(nan=inf, posinf=inf, neginf=inf)


def after(op: Operator, boxes: list[Box], scales: list[Tensor]) -> tuple[Box, Tensor]:
    """Interval, not yet widened, and scale of what an operator writes, from those of what it reads.

    Where ends are infinite, an element with coefficient 0 for them keeps a finite interval.
    """
    if not isinstance(op, Affine):
        lower, upper = settled(*op.interval(*boxes))
        return (lower, upper), torch.maximum(lower.abs(), upper.abs())
    sizes = [torch.maximum(s, torch.maximum(l.abs(), u.abs())) for s, (l, u) in zip(scales, boxes, strict=True)]
    if all(_finite(s) for s in sizes):
        box, scale = settled(*op.interval(*boxes)), op.magnitude(*sizes)
    else:
        box = _partly_infinite(op, boxes)
        finite = [torch.isfinite(s) for s in sizes]
        scale = op.magnitude(*[torch.where(f, s, 0.0) for f, s in zip(finite, sizes, strict=True)])
        scale = scale.masked_fill(_reached(op, finite), torch.inf)
    c = op.offset(scale)
    scale = scale if c is None else scale + c.abs()
    if scale.numel() and float(scale.min()) == 0:  # no term at all, or terms that underflowed
        reached = _reached(op, [s == 0 for s in sizes])
        scale = scale.masked_fill((scale == 0) & reached, tiny_of(scale))
    return box, scale


def _finite(size: Tensor) -> bool:
    """Whether no element of a size, which is not negative, is infinite or NaN."""
    return size.numel() == 0 or math.isfinite(float(size.max()))  # the largest of NaN and others is NaN


def _partly_infinite(op: Affine, boxes: list[Box]) -> Box:
    lower, upper = settled(*op.interval(*boxes))
    finite = [torch.isfinite(l) & torch.isfinite(u) for l, u in boxes]
    inner = [(torch.where(f, l, 0.0), torch.where(f, u, 0.0)) for f, (l, u) in zip(finite, boxes, strict=True)]
    low, high = settled(*op.interval(*inner))
    reached = _reached(op, finite)
    low, high = low.masked_fill(reached, -torch.inf), high.masked_fill(reached, torch.inf)
    return torch.maximum(lower, low), torch.minimum(upper, high)


def _reached(op: Affine, without: list[Tensor]) -> Tensor:
    """Which elements have a coefficient other than 0 for an input outside `without`."""
    return op.magnitude(*[(~w).to(torch.float64) for w in without]) > 0


def tiny_of(like: Tensor) -> float:
    """What stands for a value that underflowed."""
    return 1e-300 if like.dtype == torch.float64 else 1e-37


def scales_of(network: Network, lower: Tensor, upper: Tensor) -> Scales:
    """Scales by plain intervals, for callers who have no bounds at hand."""
    boxes: dict[str, Box] = {network.input: (lower, upper)}
    scales = Scales({network.input: torch.maximum(lower.abs(), upper.abs())})
    for op in network.ops:
        boxes[op.output], scales[op.output] = after(op, [boxes[n] for n in op.inputs], [scales[n] for n in op.inputs])
    return scales


def absolute_product(rows: Tensor, scale: Tensor) -> Tensor:
    """`|rows| @ scale` with `0 * inf = 0`: rows `(m, n)`, scale `(B, n)`, result `(B, m)`."""
    finite = torch.isfinite(scale)
    used = (rows != 0).to(rows).T
    product = torch.where(finite, scale, 0.0) @ rows.abs().T
    product = torch.where((scale > 0).to(rows) @ used > 0, product.clamp(min=tiny_of(product)), product)
    return product.masked_fill((~finite).to(rows) @ used > 0, torch.inf)
