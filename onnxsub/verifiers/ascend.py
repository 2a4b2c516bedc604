"""The search for a counterexample of a property: projected gradient ascent on the smallest row of a clause, in batches.

A counterexample counts only after onnxruntime confirmed it on the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.device import check_device
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.verifiers.witness import Judge, Witness

__all__ = ["AttackPlan", "ascend"]


@dataclass(frozen=True)
class AttackPlan:
    """How hard to search.

    Attributes:
        growth: one number per round: the search begins in a box that is `1 + growth` times as large, and shrinks to the box.
            From outside, where counterexamples are many, it walks into regions that a start inside does not reach.
        noise: one number per round: amplitude of the uniform noise at the first step, in halves of the box; zero at half time. It
            sees past kinks and dead units.
        restarts: starts per clause and round.
        steps: gradient steps of a round.
        first, last: step length at the start and at the end of a round, in halves of the box.
        momentum: of the running gradient sum.
        seed: of the starts.
        device: where torch computes; what is drawn is the same on all.
    """

    growth: tuple[float, ...] = (0.0, 3.0, 8.0)
    noise: tuple[float, ...] = (0.0, 4.0, 4.0)
    restarts: int = 24
    steps: int = 100
    first: float = 1.0
    last: float = 0.002
    momentum: float = 0.75
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_device(self.device, "attack")


_SHRUNK = 0.6  # share of a round after which the box has its own size
_QUIET = 0.5  # share of a round after which there is no noise


def ascend(
    network: Network,
    clauses: tuple[tuple[int, ...], ...],
    judge: Judge,
    plan: AttackPlan,
    *,
    start: Array | None = None,
    budget: Budget | None = None,
) -> Witness | None:
    r"""Looks for a point at which all rows of one clause are `>= 0`; returns the first that is confirmed.

    A point is `x = centre + scale * half * u` with u in `[-1, 1]^n`; u moves by the sign of the running sum of normalised
    gradients. Half of the starts climb the smallest row, the others the sum of the negative rows, which moves all of them at once.

    Args:
        network: from the input to the rows, as `as_margin_network` makes it.
        clauses: row numbers.
        start: a point to search round, instead of all over the box.
        budget: asked at every step; the search ends with it.
    """
    shape = network.input_shape
    member = torch.zeros((len(clauses), network.classes), dtype=torch.bool, device=plan.device)
    for k, clause in enumerate(clauses):
        member[k, list(clause)] = True
    owner = torch.arange(len(clauses), device=plan.device).repeat_interleave(plan.restarts)
    mine = member[owner]
    climbs_least = torch.arange(len(owner), device=plan.device) % 2 == 0
    ends = (torch.as_tensor(np.array(e), dtype=torch.float32, device=plan.device) for e in (judge.lower, judge.upper))
    low, high = (e.reshape(shape) for e in ends)
    centre, half = (low + high) / 2, (high - low) / 2
    generator = torch.Generator().manual_seed(plan.seed)
    tried: set[bytes] = set()
    for growth, noise in zip(plan.growth, plan.noise, strict=True):
        u = _starts(len(owner), centre, generator) if start is None else _near(len(owner), start, centre, half, generator)
        running = torch.zeros_like(u)
        for step in range(plan.steps + 1):
            if budget is not None and budget.over:
                return None
            share = step / plan.steps
            scale = 1.0 + growth * max(0.0, 1.0 - share / _SHRUNK)
            amplitude = noise * max(0.0, 1.0 - share / _QUIET)
            v = (u + amplitude * _cloud(u, generator)).clamp_(-1, 1) if amplitude > 0 else u
            x = centre + scale * half * v
            if scale == 1.0:
                x = torch.minimum(torch.maximum(x, low), high)  # rounding
            x.requires_grad_()
            values = network.forward(x)
            least = torch.where(mine, values, torch.inf).amin(1)
            if scale == 1.0:
                found = _try_best(x.detach(), least.detach(), judge, tried)
                if found is not None:
                    return found
            goal = torch.where(climbs_least, least, torch.where(mine, values.clamp(max=0), 0.0).sum(1))
            if step == plan.steps or not goal.requires_grad:
                break
            (gradient,) = torch.autograd.grad(goal.sum(), x)
            gradient = gradient * half
            size = gradient.flatten(1).abs().sum(1).clamp(min=1e-30).reshape(-1, *[1] * len(shape))
            running = plan.momentum * running + gradient / size
            length = plan.last + (plan.first - plan.last) * (1 + math.cos(math.pi * share)) / 2
            u = (u + (length if start is None else 0.1 * length) * running.sign()).clamp_(-1, 1)
    return None


def _cloud(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform on [-1, 1], shaped like `like`."""
    return torch.rand(like.shape, generator=generator).to(like.device) * 2 - 1


def _starts(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """The centre, uniform points and corners."""
    u = _cloud(like.expand(count, *like.shape), generator)
    u[1::3] = u[1::3].sign()
    u[0] = 0.0
    return u


def _near(count: int, start: Array, centre: Tensor, half: Tensor, generator: torch.Generator) -> Tensor:
    """The given point, and points in a cloud round it."""
    point = torch.as_tensor(np.asarray(start).reshape(centre.shape), dtype=torch.float32, device=centre.device)
    u = torch.where(half > 0, (point - centre) / half.clamp(min=1e-30), 0.0)
    cloud = 0.1 * _cloud(u.expand(count, *u.shape), generator)
    cloud[0] = 0.0
    return (u + cloud).clamp(-1, 1)


def _try_best(x: Tensor, least: Tensor, judge: Judge, tried: set[bytes]) -> Witness | None:
    """Has the point with the largest smallest row confirmed, where that row is not negative and the point is new."""
    best = int(least.argmax())
    if not float(least[best]) >= 0:
        return None
    point = x[best].cpu().numpy()
    key = point.tobytes()
    if key in tried:
        return None
    tried.add(key)
    witness = judge.judge(point)
    return witness if witness.confirmed else None
