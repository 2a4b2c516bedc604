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
    # both functions range over 2 once divided by their widths: float32 sees neither their scale nor that of the half-space
    row, line = _inverse(width), _inverse(cut_width)
    v = _multipliers((a * row[..., None]).float(), (c * line).float(), half.float(), (cut_middle * line).float(), width)
    v = v.to(b.dtype) * (width * line)
    d = a - v[..., None] * c[:, None, :]
    value = middle - v * cut_middle - torch.matmul(d.abs(), half[..., None])[..., 0]
    # a multiplier that overflows proves nothing, and must not hide what plain bounds prove
    return torch.fmax(middle - width, value).nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)


def _inverse(width: Tensor) -> Tensor:
    """One over a width; 0 where that is no number."""
    return (1 / width).nan_to_num(0.0, 0.0, 0.0)


def _multipliers(a: Tensor, c: Tensor, half: Tensor, cut_middle: Tensor, like: Tensor) -> Tensor:
    """The v at which the slope of the concave function changes its sign, about, for functions of width 2: `(B, R)` float32."""
    reach = (c * half)[..., None]
    below, above = (torch.full_like(like, end, dtype=torch.float32) for end in (-_BELOW, _ABOVE))
    line = c[:, None, :]
    for _ in range(_BISECTIONS):
        point = (below + above) / 2
        side = cut_middle - torch.matmul((a - point.exp()[..., None] * line).sign_(), reach)[..., 0]
        # the minimiser lies outside the half-space: v must grow
        outside = side < 0
        below, above = torch.where(outside, point, below), torch.where(outside, above, point)
    return ((below + above) / 2).exp()
