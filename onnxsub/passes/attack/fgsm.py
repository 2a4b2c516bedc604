"""The fast gradient sign method: one gradient, then the smallest radius along its sign."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.passes.attack.descent import Objective, Track

__all__ = ["sign_search"]

_GRID = 24
_BISECTIONS = 20


def sign_search(objective: Objective, targets: Tensor, direction: Tensor, upper: float, budget: Budget) -> Track:
    """The smallest radius s <= upper on a geometric grid at which `x0 + s u` is adversarial, then bisection down to the boundary.

    Source: Goodfellow et al. 2015, with the gradient of each target's margin in the place of the loss.

    Args:
        targets: the classes, `(B,)`. direction: u, `(B, n)`, entries -1, 0 or 1.
        budget: where it ends the bisection, the radii reached so far count.

    Raises:
        OutOfTime: before the grid was tried.
    """
    rows = len(direction)
    grid = upper * torch.logspace(-3, 0, _GRID, dtype=direction.dtype, device=direction.device)
    delta = objective.project((grid[None, :, None] * direction[:, None, :]).reshape(-1, objective.n))
    good = (objective.worst(delta, budget)[0] > 0).reshape(rows, _GRID)
    found = good.any(dim=1)
    first = good.to(torch.int8).argmax(dim=1)
    high = grid[first]
    low = torch.where(first > 0, grid[(first - 1).clamp(min=0)], torch.zeros_like(high))
    for _ in range(_BISECTIONS if bool(found.any()) else 0):
        middle = (low + high) / 2
        try:
            ok = objective.worst(objective.project(middle[:, None] * direction), budget)[0] > 0
        except OutOfTime:
            break
        high = torch.where(ok, middle, high)
        low = torch.where(ok, low, middle)
    point = objective.project(high[:, None] * direction)
    best = torch.where(found, point.abs().amax(dim=1), math.inf)
    return Track(targets, direction, high, best, point)
