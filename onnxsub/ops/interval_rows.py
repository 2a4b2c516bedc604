r"""Rows of an interval matrix, and how they pass back through an operator: what certified Lipschitz constants are made of.

Between two points of a box, with z and y an operator's input and output at them, `y - y' = S (z - z')` for some matrix S whose
entries are difference quotients of the operator on the box. An affine operator has one such S, an activation a diagonal one
with entries in the range of its slopes. Rows a of what lies behind become rows `S^T a` of what lies before; where S and a are known
as intervals only, so is the product (Weng et al. 2018, Fast-Lip; Jordan and Dimakis 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.base import Affine
else:
    from onnxsub.lazy import torch

__all__ = ["Rows", "outward", "through", "times"]

Rows = tuple["Tensor", "Tensor"]
"""Centre and radius of R rows, each `(R, *shape)`."""

_ROUND = 1e-13
"""Share of the terms of a sum by which every product is widened: more than float64 rounds away in sums of 1e3 terms."""

_ULPS = 16.0
"""Computed slopes of smooth functions are widened by this many units in the last place."""


def through(op: Affine, rows: Rows) -> tuple[Rows, ...]:
    """`L_i^T a` for every input of an affine operator."""
    centre, radius = rows
    radius = radius + _ROUND * (centre.abs() + radius)
    with torch.enable_grad():  # |L|^T is the vector-Jacobian product of the magnitude, which is linear for what is not negative
        xs = [torch.zeros((len(radius), *s), dtype=radius.dtype, requires_grad=True) for s in op.in_shapes]
        # as sums: torch imports half of itself, for a third of a second, where it is handed the factors
        grads = torch.autograd.grad((op.magnitude(*xs) * radius).sum(), xs, allow_unused=True)
        sizes = torch.autograd.grad((op.magnitude(*xs) * (_ROUND * centre.abs())).sum(), xs, allow_unused=True)
    spread = [torch.zeros_like(x) if g is None or s is None else g + s for g, s, x in zip(grads, sizes, xs, strict=True)]
    return tuple(zip(op.transpose(centre), spread, strict=True))


def times(rows: Rows, low: Tensor, high: Tensor) -> Rows:
    """The elementwise product with slopes in `[low, high]`, `(1, *shape)` or `(R, *shape)`."""
    centre, radius = rows
    corners = torch.stack([e * s for e in (centre - radius, centre + radius) for s in (low, high)])
    least, most = corners.amin(0), corners.amax(0)
    return (least + most) / 2, (most - least) / 2 + _ROUND * torch.maximum(least.abs(), most.abs())


def outward(low: Tensor, high: Tensor, proper: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes that were computed to a relative error of a few units in the last place, widened by more than that.

    Not a number outside `proper`, where the interval that they are of is none.
    """
    info = torch.finfo(low.dtype)
    share, nothing = _ULPS * info.eps, torch.full_like(low, torch.nan)
    low, high = low - share * low.abs() - info.tiny, high + share * high.abs() + info.tiny
    return torch.where(proper, low, nothing), torch.where(proper, high, nothing)
