r"""The nearest point of a half-space within a box, in the maximum norm: where a linear bound of a margin reaches zero.

    r(c, k) = min { |d|_inf : low <= d <= high, c \cdot d + k >= 0 }

Within the radius r the largest value of `c . d + k` moves coordinate i by r in the direction of `c_i`, or to the end of the box.
That value is concave and piecewise linear in r: coordinate i adds `|c_i|` to its slope up to the radius at which the box stops it.
One sort of those radii gives the root exactly (DeepFool, Moosavi-Dezfooli et al. 2016, in the maximum norm with bounds).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from onnxsub.ops.base import Array

__all__ = ["halfspace_radius", "nearest_in_halfspace"]


def halfspace_radius(c: Tensor, k: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`r(c, k)` of the module, inf where the box has no such point: `(B,)`.

    Args:
        c: `(B, n)`. k: `(B,)`.
        low, high: the box, `(B, n)` or `(n,)` for all rows; it need not contain 0.
    """
    least = torch.maximum(low, -high).amax(-1).clamp(min=0)  # of any point of the box
    stop, order = torch.where(c > 0, high, -low).sort(dim=1)
    weight = c.abs().gather(1, order)
    reached = (weight * stop).cumsum(1)
    # summed from the far end: what is left must not be the difference of two large sums
    moving = weight.flip(1).cumsum(1).flip(1)
    left = torch.cat([moving[:, 1:], torch.zeros_like(moving[:, :1])], 1)
    # the value at the radius stop_k: coordinates up to k at their ends, the others on their way
    value = k[:, None] + reached + left * stop
    # a coordinate whose stop is negative stands at its end from the start
    ok = (value >= 0) & (stop > 0)
    first = ok.to(torch.int8).argmax(1, keepdim=True)
    possible = (k + reached[:, -1]) >= 0
    before = torch.where(first > 0, reached.gather(1, (first - 1).clamp(min=0)), torch.zeros_like(k)[:, None])
    speed = moving.gather(1, first)
    root = (-(k[:, None] + before) / speed.clamp(min=1e-300 if k.dtype == torch.float64 else 1e-37)).clamp(min=0)
    root = torch.minimum(root, stop.gather(1, first).clamp(min=0))[:, 0]
    # where no coordinate moves at all, or the last stop is reached by rounding only
    root = torch.where(ok.any(1), root, torch.zeros_like(root))
    return torch.where(possible, torch.maximum(root, least), torch.full_like(root, math.inf))


def nearest_in_halfspace(c: Array, k: float, low: Array, high: Array) -> Array | None:
    """A point d of the box with the smallest `|d|_inf` and `c . d + k >= 0`, `(n,)` float64; None: there is none.

    Args:
        c, low, high: `(n,)`; low at most 0, high at least 0.
    """
    rows = (torch.as_tensor(np.asarray(v, dtype=np.float64)) for v in (c[None], np.array([k]), low, high))
    radius = float(halfspace_radius(*rows))
    if math.isinf(radius):
        return None
    return np.asarray(np.sign(c) * np.minimum(radius, np.where(c > 0, high, -low)))
