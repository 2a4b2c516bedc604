r"""The smallest value of linear functions over a box that a half-space cuts.

    min { a . x + b : x in box, c . x + k >= 0 } = max_{v >= 0} min_{x in box} (a - v c) . x + b - v k

Every v gives a valid bound, so the v are found in float32 by bisection of the concave function's slope; only their values count,
and these are computed in the precision of the arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cut_minimum"]

_BISECTIONS = 12
_BELOW, _ABOVE = 5.0, 3.0  # natural logarithm of the bracket of v, round the ratio of what both functions range over


def cut_minimum(a: Tensor, b: Tensor, c: Tensor, k: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A lower bound of `a . x + b` on boxes and half-spaces `c . x + k >= 0`, B of them at a time: `(B, R)`.

    Args:
        a: `(1 or B, R, n)`. b: `(1 or B, R)`.
        c: `(B, n)`. k: `(B,)`.
        low, high: `(B, n)`.
    """
    centre, half = (low + high) / 2, (high - low) / 2
    width = torch.matmul(a.abs(), half[..., None])[..., 0]
    middle = torch.matmul(a, centre[..., None])[..., 0] + b
    cut_middle = ((c * centre).sum(1) + k)[:, None]
    cut_width = (c.abs() * half).sum(1)[:, None]
    ratio = (width / cut_width.clamp(min=1e-30)).clamp(min=1e-30, max=1e30)
    v = _multipliers(a.float(), c.float(), half.float(), cut_middle.float(), ratio.float()).to(b.dtype)
    d = a - v[..., None] * c[:, None, :]
    value = middle - v * cut_middle - torch.matmul(d.abs(), half[..., None])[..., 0]
    # a multiplier that overflows proves nothing, and must not hide what plain bounds prove
    return torch.fmax(middle - width, value)


def _multipliers(a: Tensor, c: Tensor, half: Tensor, cut_middle: Tensor, ratio: Tensor) -> Tensor:
    """The v at which the slope of the concave function changes its sign, about: `(B, R)` float32."""
    reach = (c * half)[..., None]
    log = ratio.log()
    below, above = log - _BELOW, log + _ABOVE
    line = c[:, None, :]
    for _ in range(_BISECTIONS):
        point = (below + above) / 2
        side = cut_middle - torch.matmul((a - point.exp()[..., None] * line).sign_(), reach)[..., 0]
        # the minimiser lies outside the half-space: v must grow
        outside = side < 0
        below, above = torch.where(outside, point, below), torch.where(outside, above, point)
    return ((below + above) / 2).exp()
