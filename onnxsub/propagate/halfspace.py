r"""The smallest value of linear functions over a box that a half-space cuts.

    min { a . x + b : x in box, c . x + k >= 0 } = max_{v >= 0} min_{x in box} (a - v c) . x + b - v k

Every v gives a valid bound, so the v are found in float32 by bisection of the concave function's slope; only their values count,
and these are computed in the precision of the arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cut_minimum", "multipliers"]

_BISECTIONS = 12
_AT_ONCE = 2**18  # coefficients that a bisection goes over: what stays in a core's cache
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
    step = max(1, _AT_ONCE // max(1, c.numel()))
    values = []
    for start in range(0, a.shape[1], step):
        rows = slice(start, start + step)
        part, wide = a[:, rows], width[:, rows]
        v = multipliers(
            (part * row[:, rows, None]).float(), (c * line).float(), half.float(), (cut_middle * line).float(), wide
        )
        v = v.to(b.dtype) * (wide * line)
        d = part - v[..., None] * c[:, None, :]
        values.append(middle[:, rows] - v * cut_middle - torch.matmul(d.abs_(), half[..., None])[..., 0])
    value = torch.cat(values, 1) if values else middle
    # a multiplier that overflows proves nothing, and must not hide what plain bounds prove
    return torch.fmax(middle - width, value).nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)


def _inverse(width: Tensor) -> Tensor:
    """One over a width; 0 where that is no number."""
    return (1 / width).nan_to_num(0.0, 0.0, 0.0)


def multipliers(a: Tensor, c: Tensor, half: Tensor, cut_middle: Tensor, like: Tensor) -> Tensor:
    """The v at which the slope of the concave function changes its sign, about, for functions of width 2: `(B, R)` float32."""
    reach = (c * half)[..., None]
    below, above = (torch.full_like(like, end, dtype=torch.float32) for end in (-_BELOW, _ABOVE))
    line = c[:, None, :]
    room = torch.empty((len(c), *a.shape[1:]), dtype=a.dtype, device=a.device)
    for _ in range(_BISECTIONS):
        point = (below + above) / 2
        torch.addcmul(a, point.exp()[..., None], line, value=-1, out=room)
        side = cut_middle - torch.matmul(room.sign_(), reach)[..., 0]
        # the minimiser lies outside the half-space: v must grow
        outside = side < 0
        below, above = torch.where(outside, point, below), torch.where(outside, above, point)
    return ((below + above) / 2).exp()
