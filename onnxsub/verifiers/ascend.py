"""Projected gradient ascent over a box, in batches: on the smallest row of a clause until a judge confirms a point, or on one
output.

A point is `x = centre + scale * half * u` with u in `[-1, 1]^n`; u moves by the sign of the running sum of normalised gradients
(Dong et al. 2018) with steps that shrink along a cosine. Noise at the first steps sees past kinks and dead units; a box that begins
larger than it is and shrinks lets points walk in from outside, where counterexamples are many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.device import check_device
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.verifiers.witness import Judge, Witness

__all__ = ["AttackPlan", "Climb", "ascend", "climb"]

_SHRUNK = 0.6  # share of a round after which the box has its own size
_QUIET = 0.5  # share of a round after which there is no noise
_STARTS = 1024  # of all clauses together: where there are more clauses than these, each has one
_FEW = 32  # inputs that vary, up to which points all over the box come near to whatever lies in it
_DRAWN, _CLAUSES = 4096, 64  # points drawn there, and clauses that each choose from them, at most
_SPREAD = 0.1  # how far starts lie round a given point, in halves of the box; steps are that much shorter too


@dataclass(frozen=True)
class AttackPlan:
    """How hard to search.

    Attributes:
        growth: one number per round: the search begins in a box that is `1 + growth` times as large, and shrinks to the box.
        noise: one number per round: amplitude of the uniform noise at the first step, in halves of the box; zero at half time.
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


@dataclass(frozen=True)
class Climb:
    """How hard to climb one output.

    Attributes:
        restarts: points that climb side by side; every other one has noise at first.
        steps: gradient steps.
        noise: amplitude of the noise at the first step, in halves of the box; round a given point there is none.
        kept: points that come back, at most.
    """

    restarts: int = 32
    steps: int = 60
    noise: float = 2.0
    kept: int = 4


@dataclass(frozen=True, eq=False)
class _Box:
    """A box of float32 points on a device, and where its random numbers come from."""

    low: Tensor
    high: Tensor
    generator: torch.Generator

    @staticmethod
    def of(network: Network, low: Array, high: Array, seed: int, device: str = "cpu") -> _Box:
        ends = (torch.as_tensor(np.array(e), dtype=torch.float32, device=device).reshape(network.input_shape) for e in (low, high))
        lower, upper = ends
        return _Box(lower, upper, torch.Generator().manual_seed(seed))

    @property
    def centre(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def half(self) -> Tensor:
        return (self.high - self.low) / 2

    def cloud(self, count: int) -> Tensor:
        """Uniform on [-1, 1], `(count, *shape)`."""
        return torch.rand((count, *self.low.shape), generator=self.generator).to(self.low.device) * 2 - 1

    def starts(self, count: int, start: Array | None) -> Tensor:
        """The centre, uniform points and corners; or a given point and a cloud round it."""
        u = self.cloud(count)
        if start is None:
            u[1::3] = u[1::3].sign()
            u[0] = 0.0
            return u
        point = torch.as_tensor(np.asarray(start).reshape(self.low.shape), dtype=torch.float32, device=self.low.device)
        at = torch.where(self.half > 0, (point - self.centre) / self.half.clamp(min=1e-30), 0.0)
        u[0] = 0.0
        return (at + _SPREAD * u).clamp(-1, 1)


@dataclass(frozen=True, eq=False)
class _Begin:
    """How a round begins: its number, the starts, which of them have noise, and the scale of the step lengths (of each start)."""

    number: int
    u: Tensor
    loud: Tensor
    scale: float | Tensor


def _round(
    network: Network, box: _Box, plan: AttackPlan, goal: Callable[[Tensor], Tensor], begin: _Begin, budget: Budget | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The points of one round that lie in the box, and their outputs, step by step.

    Args:
        goal: outputs to what is climbed, per point.
    """
    u, loud, scale = begin.u, begin.loud, begin.scale
    growth, noise, axes = plan.growth[begin.number], plan.noise[begin.number], [1] * (u.dim() - 1)
    running = torch.zeros_like(u)
    for step in range(plan.steps + 1):
        if budget is not None and budget.over:
            return
        share = step / plan.steps
        size = 1.0 + growth * max(0.0, 1.0 - share / _SHRUNK)
        amplitude = noise * max(0.0, 1.0 - share / _QUIET)
        v = (u + amplitude * loud * box.cloud(len(u))).clamp_(-1, 1) if amplitude > 0 else u
        x = box.centre + size * box.half * v
        if size == 1.0:
            x = torch.minimum(torch.maximum(x, box.low), box.high)  # rounding
        x.requires_grad_()
        values = network.forward(x)
        climbed = goal(values)
        if size == 1.0:
            yield x.detach(), values.detach()
        if step == plan.steps or not climbed.requires_grad:
            return
        (gradient,) = torch.autograd.grad(climbed.sum(), x)
        gradient = gradient * box.half
        total = gradient.flatten(1).abs().sum(1).clamp(min=1e-30).reshape(-1, *axes)
        running = plan.momentum * running + gradient / total
        length = plan.last + (plan.first - plan.last) * (1 + math.cos(math.pi * share)) / 2
        u = (u + scale * length * running.sign()).clamp_(-1, 1)


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

    Half of the starts climb the smallest row, the others the sum of the negative rows, which moves all of them at once.

    Args:
        network: from the input to the rows, as `as_margin_network` makes it.
        clauses: row numbers.
        start: a point to search round, instead of all over the box.
        budget: asked at every step; the search ends with it.
    """
    box = _Box.of(network, judge.lower, judge.upper, plan.seed, plan.device)
    member = torch.zeros((len(clauses), network.classes), dtype=torch.bool, device=plan.device)
    for k, clause in enumerate(clauses):
        member[k, list(clause)] = True
    owner = torch.arange(len(clauses), device=plan.device).repeat_interleave(max(1, min(plan.restarts, _STARTS // len(clauses))))
    mine = member[owner]
    climbs_least = torch.arange(len(owner), device=plan.device) % 2 == 0

    def least(values: Tensor) -> Tensor:
        return torch.where(mine, values, torch.inf).amin(1)

    def goal(values: Tensor) -> Tensor:
        return torch.where(climbs_least, least(values), torch.where(mine, values.clamp(max=0), 0.0).sum(1))

    tried: set[bytes] = set()
    loud = torch.ones((len(owner), *[1] * len(network.input_shape)), device=plan.device)
    for number in range(len(plan.growth)):
        starts = box.starts(len(owner), start)
        scale = torch.full_like(loud, 1.0 if start is None else _SPREAD)
        if start is None and plan.growth[number] == plan.noise[number] == 0:
            chosen = _choose(network, box, starts, member, owner)
            scale[chosen] = _SPREAD
        begin = _Begin(number, starts, loud, scale)
        for x, values in _round(network, box, plan, goal, begin, budget):
            found = _try_best(x, least(values), judge, tried)
            if found is not None:
                return found
    return None


def _choose(network: Network, box: _Box, starts: Tensor, member: Tensor, owner: Tensor) -> Tensor:
    """Makes a third of each clause's starts those of many points at which its smallest row is largest, in place; says which.

    Where few inputs vary, gradients often vanish far from what is looked for, and many points cost less than one round.
    """
    if int((box.half > 0).sum()) > _FEW or len(member) > _CLAUSES:
        return torch.zeros(0, dtype=torch.long)
    u, chosen = box.cloud(_DRAWN), []
    with torch.no_grad():
        values = network.forward(box.centre + box.half * u).flatten(1)
    for k, mine in enumerate(member):
        places = torch.nonzero(owner == k)[2::3, 0]
        least = values[:, mine].amin(1).nan_to_num(nan=-math.inf)
        starts[places] = u[least.topk(len(places)).indices]
        chosen.append(places)
    return torch.cat(chosen)


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


def climb(
    network: Network,
    box: tuple[Array, Array],
    plan: Climb,
    seed: int,
    *,
    start: Array | None = None,
    budget: Budget | None = None,
) -> Array:
    """The best points that the climbs of a network's first output passed, best first, `(plan.kept, *input_shape)` float32.

    Args:
        box: `(*input_shape)` each, float32.
        start: begin round this point, instead of all over the box.
        budget: asked at every step; the climb ends with it.
    """
    inside = _Box.of(network, *box, seed)
    steps = AttackPlan((0.0,), (plan.noise if start is None else 0.0,), plan.restarts, plan.steps)
    loud = (torch.arange(plan.restarts) % 2 == 1).float().reshape(-1, *[1] * len(network.input_shape))
    begin = _Begin(0, inside.starts(plan.restarts, start), loud, 1.0 if start is None else _SPREAD)
    best = torch.full((plan.restarts,), -math.inf)
    points = inside.centre.expand(plan.restarts, *network.input_shape).clone()
    for x, values in _round(network, inside, steps, lambda v: v[:, 0], begin, budget):
        up = values[:, 0] > best
        best = torch.where(up, values[:, 0], best)
        points = torch.where(up.reshape(-1, *[1] * len(network.input_shape)), x, points)
    found: Array = points[torch.argsort(best, descending=True, stable=True)[: plan.kept]].numpy()
    return found
