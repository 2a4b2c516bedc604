r"""Gradient ascent on `f_t - f_y` over a box: where a search for the smallest margin begins.

A point is `x = centre + half * u` with u in `[-1, 1]^n`; u moves by the sign of the running sum of normalised gradients (Dong et
al. 2018) with steps that shrink along a cosine. Noise at the first steps sees past kinks and dead units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array

__all__ = ["Climb", "climb"]


@dataclass(frozen=True)
class Climb:
    """How hard to search.

    Attributes:
        restarts: points that climb side by side.
        steps: gradient steps.
        first, last: step length at the start and at the end, in halves of the box.
        noise: amplitude of the uniform noise at the first step, in halves of the box; every other point has none.
        spread: how far starts lie round a given point, in halves of the box.
        momentum: of the running gradient sum.
        kept: points that come back, at most.
    """

    restarts: int = 32
    steps: int = 60
    first: float = 1.0
    last: float = 0.002
    noise: float = 2.0
    spread: float = 0.1
    momentum: float = 0.75
    kept: int = 4


_QUIET = 0.5  # share of the steps after which there is no noise


def climb(
    network: Network,
    low: Array,
    high: Array,
    plan: Climb,
    seed: int,
    *,
    start: Array | None = None,
    budget: Budget | None = None,
) -> Array:
    """The best points that the climbs passed, best first, `(plan.kept, *input_shape)` float32.

    Args:
        network: its first output is climbed.
        low, high: `(*input_shape)`, float32.
        start: begin round this point, instead of all over the box.
        budget: asked at every step; the climb ends with it.
    """
    shape = network.input_shape
    lo, hi = (torch.as_tensor(np.array(e), dtype=torch.float32) for e in (low, high))
    centre, half = (lo + hi) / 2, (hi - lo) / 2
    generator = torch.Generator().manual_seed(seed)

    def cloud() -> torch.Tensor:
        return torch.rand((plan.restarts, *shape), generator=generator) * 2 - 1

    rows = torch.arange(plan.restarts)
    if start is None:
        u = cloud()
        u[1::3] = u[1::3].sign()
        u[0] = 0.0
        length, noise = 1.0, plan.noise
    else:
        point = torch.as_tensor(np.asarray(start).reshape(shape), dtype=torch.float32)
        at = torch.where(half > 0, (point - centre) / half.clamp(min=1e-30), 0.0)
        u = (at + plan.spread * cloud() * (rows > 0).reshape(-1, *[1] * len(shape))).clamp(-1, 1)
        length, noise = plan.spread, 0.0
    loud = (rows % 2 == 1).reshape(-1, *[1] * len(shape))
    running = torch.zeros_like(u)
    best, points = torch.full((plan.restarts,), -math.inf), centre.expand(plan.restarts, *shape).clone()
    for step in range(plan.steps + 1):
        share = step / plan.steps
        amplitude = noise * max(0.0, 1.0 - share / _QUIET)
        v = (u + amplitude * loud * cloud()).clamp(-1, 1) if amplitude > 0 else u
        x = torch.minimum(torch.maximum(centre + half * v, lo), hi).requires_grad_()
        value = network.forward(x)[:, 0]
        up = value.detach() > best
        best = torch.where(up, value.detach(), best)
        points = torch.where(up.reshape(-1, *[1] * len(shape)), x.detach(), points)
        if step == plan.steps or not value.requires_grad or (budget is not None and budget.over):
            break
        (gradient,) = torch.autograd.grad(value.sum(), x)
        gradient = gradient * half
        size = gradient.flatten(1).abs().sum(1).clamp(min=1e-30).reshape(-1, *[1] * len(shape))
        running = plan.momentum * running + gradient / size
        pace = plan.last + (plan.first - plan.last) * (1 + math.cos(math.pi * share)) / 2
        u = (u + length * pace * running.sign()).clamp(-1, 1)
    found: Array = points[torch.argsort(best, descending=True, stable=True)[: plan.kept]].numpy()
    return found
