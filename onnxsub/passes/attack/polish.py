"""From points that torch calls adversarial to the nearest one that the original file confirms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.geometry import halfspace_radius
from onnxsub.ops.base import Array
from onnxsub.passes.attack.descent import Objective, Schedule, Track, descend
from onnxsub.region import InputSpace

__all__ = ["AdversarialPoint", "Confirm", "as_points", "settle", "sharpen"]

Confirm = Callable[[Array], tuple[Array, Array]]
"""`(N, *shape)` float32 to `max_t f_t - f_y` and that t, `(N,)` each: the word that counts."""

_SHARPEN = Schedule(steps=40, first=0.1, last=0.0005, noise=(0.0,))
_COARSE = np.array([
    0.99, 0.998, 0.9995, 0.9999, 0.99997, 1.0, 1.00001, 1.00003, 1.0001, 1.0005, 1.002, 1.01, 1.05, 1.2, 1.5, 2.0, 4.0,
])  # fmt: skip
"""Lengths that are tried. The long ones are for files whose last operators round so much that all near points are ties."""
_FINE = 8
_WIDE = 2e-3  # of a length: a bracket that is left wider is searched again


@dataclass(frozen=True, eq=False)
class AdversarialPoint:
    """A confirmed, strictly adversarial point.

    Attributes:
        x: float32, per-sample shape, inside the domain.
        radius: `|x - x0|_inf` in float64.
        label: the class that the model gives it.
        margin: `max_t f_t - f_y` there, > 0.
    """

    x: Array
    radius: float
    label: int
    margin: float


def as_points(x0: Array, offsets: Array, space: InputSpace) -> Array:
    """`x0 + offset` as float32 points inside the domain, whole numbers where inputs are: `(N, n)` float64 to `(N, *shape)`."""
    return space.inside(x0.astype(np.float64)[None] + offsets.reshape(-1, *x0.shape))


def settle(
    x0: Array, offsets: Array, space: InputSpace, confirm: Confirm, upper: float, budget: Budget
) -> AdversarialPoint | None:
    """The nearest confirmed point on the rays from the anchor through `x0 + offsets`, `(N, n)` float64; None if there is none.

    Every ray is tried at a grid of lengths round 1, then at a finer one below the shortest that held: a point of which torch
    says that it is just beyond the boundary may be just before it for the original file, by a float32 rounding.

    Args:
        budget: the first ray's grid is tried even when it is over: a point that is never replayed is worth nothing.
    """
    best: AdversarialPoint | None = None
    for i, offset in enumerate(offsets):
        if i and budget.over:
            break
        found, last = _shortest(x0, offset, _COARSE, space, confirm, upper)
        if found is None:
            continue
        while last is not None and budget.running:
            low, high = last
            scales = low + (high - low) * np.arange(1, _FINE) / _FINE
            finer, inner = _shortest(x0, offset, scales, space, confirm, upper)
            found = finer if finer is not None and finer.radius < found.radius else found
            last = (float(scales[-1]), high) if finer is None else inner or (low, float(scales[0]))
            if last[1] - last[0] <= _WIDE * last[1]:
                break
        if best is None or found.radius < best.radius:
            best = found
    return best


def _shortest(
    x0: Array, offset: Array, scales: Array, space: InputSpace, confirm: Confirm, upper: float
) -> tuple[AdversarialPoint | None, tuple[float, float] | None]:
    """The shortest of `scales * offset` that is confirmed, and the bracket of scales in which the boundary lies."""
    x = as_points(x0, scales[:, None] * offset[None], space)
    radius = np.abs(x.astype(np.float64) - x0.astype(np.float64)).reshape(len(x), -1).max(axis=1)
    margins, labels = confirm(x)
    good = np.flatnonzero((margins > 0) & (radius <= upper))
    if len(good) == 0:
        return None, None
    k = int(good[radius[good].argmin()])
    bracket = (float(scales[k - 1]), float(scales[k])) if k > 0 else None
    return AdversarialPoint(x[k], float(radius[k]), int(labels[k]), float(margins[k])), bracket


def sharpen(
    objective: Objective, offsets: Tensor, *, upper: float, budget: Budget, steps: int = _SHARPEN.steps
) -> Track:
    """Walks points back towards the anchor along the boundary: short steps without noise, then one leap of the linear model.

    Args:
        offsets: `x - x0` of points on, beyond or near the boundary, `(B, n)`.
        budget: where it ends, the points are those of the last whole step.

    Raises:
        OutOfTime: before the first step.
    """
    _, targets = objective.worst(offsets, budget)
    radius = offsets.abs().amax(dim=1).clamp(min=1e-30)
    generator = torch.Generator(device=offsets.device)  # not drawn from: there is no noise
    start = Track.begin(targets, offsets / radius[:, None], radius)
    plan = Schedule(steps=steps, first=_SHARPEN.first, last=_SHARPEN.last, noise=(0.0,))
    track = descend(objective, start, plan, upper=upper, generator=generator, budget=budget).resumed()
    try:
        return _leap(objective, track, targets, budget)
    except OutOfTime:
        return track


def _leap(objective: Objective, track: Track, targets: Tensor, budget: Budget) -> Track:
    """The nearest point of the linear model at the end point, with a hair more than its radius, where it is adversarial."""
    delta = objective.project(track.radius[:, None] * track.direction)
    margin, g, _ = objective.gradient(delta, targets, budget)
    r = halfspace_radius(g, margin - (g * delta).sum(dim=1), objective.low, objective.high) * (1 + 1e-5)
    leap = objective.project(torch.where(r.isfinite(), r, track.radius)[:, None] * g.sign())
    size = leap.abs().amax(dim=1)
    better = (objective.worst(leap, budget)[0] > 0) & (size < track.best)
    return replace(track, best=torch.where(better, size, track.best), point=torch.where(better[:, None], leap, track.point))
