"""The search for a counterexample of a property: projected gradient ascent on the smallest row of a clause, in batches.

A counterexample counts only after onnxruntime confirmed it on the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from onnxsub.device import check_device
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.properties.property import Case
from onnxsub.runtime import Runtime

__all__ = ["AttackPlan", "Judge", "Judging", "PropertyWitness", "ascend"]


@dataclass(frozen=True, eq=False)
class PropertyWitness:
    """A point and what onnxruntime says of it.

    Attributes:
        x: `(inputs,)`, float64, inside the box; the file is fed its cast to the model's input type.
        y: `(outputs,)`: the file's own output there.
        clause: the clause that is nearest to holding.
        margin: its smallest row `b - A y`.
        confirmed: whether it holds.
        path: where it was saved.
    """

    x: Array = field(repr=False)
    y: Array
    clause: int
    margin: float
    confirmed: bool
    path: str | None = None

    @property
    def kind(self) -> str:
        """`strict`, `tie` (a row is exactly 0) or `rejected`."""
        return "rejected" if not self.confirmed else "strict" if self.margin > 0 else "tie"


class Judging(Protocol):
    """Who says what a point of one case is worth.

    Attributes:
        lower, upper: the smallest and the largest point of the box that can be judged, any shape of `inputs` elements.
    """

    lower: Array
    upper: Array

    def judge(self, x: Array) -> PropertyWitness:
        """The verdict on a point of any shape."""
        ...


class Judge:
    """Replays points of one case on the file."""

    def __init__(self, runtime: Runtime, case: Case) -> None:
        self._runtime = runtime
        self._case = case
        self._dtype = runtime.model.input_dtype
        self.lower, self.upper = _inside(case, self._dtype)

    def judge(self, x: Array) -> PropertyWitness:
        """The verdict on a point of any shape, moved into the box and onto the model's number grid first."""
        fed = np.clip(np.asarray(x, dtype=np.float64).reshape(-1).astype(self._dtype), self.lower, self.upper)
        model = self._runtime.model
        y = self._runtime.raw(fed.reshape(1, *model.input_shape), one_by_one=True).reshape(-1).astype(np.float64)
        # where a side is narrower than the grid, the point named is the end of the box that is cast to `fed`
        point = np.clip(fed.astype(np.float64), self._case.lower, self._case.upper)
        least = [float(np.min(clause.margins(y))) for clause in self._case.clauses]
        holding = [k for k, clause in enumerate(self._case.clauses) if clause.holds(y)]
        best = max(holding or range(len(least)), key=lambda k: -math.inf if math.isnan(least[k]) else least[k])
        return PropertyWitness(point, y, best, least[best], bool(holding) and self._case.contains(point))


def _inside(case: Case, dtype: np.dtype[np.generic]) -> tuple[Array, Array]:
    """The smallest and the largest number of a type inside each side of the box; twice the nearest where there is none."""
    low, high = case.lower.astype(dtype), case.upper.astype(dtype)
    low = np.where(low.astype(np.float64) < case.lower, np.nextafter(low, dtype.type(np.inf)), low)
    high = np.where(high.astype(np.float64) > case.upper, np.nextafter(high, dtype.type(-np.inf)), high)
    none = low > high
    nearest = case.lower.astype(dtype)
    return np.where(none, nearest, low), np.where(none, nearest, high)


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
    judge: Judging,
    plan: AttackPlan,
    *,
    start: Array | None = None,
    late: Callable[[], bool] = lambda: False,
) -> PropertyWitness | None:
    r"""Looks for a point at which all rows of one clause are `>= 0`; returns the first that is confirmed.

    A point is `x = centre + scale * half * u` with u in `[-1, 1]^n`; u moves by the sign of the running sum of normalised
    gradients. Half of the starts climb the smallest row, the others the sum of the negative rows, which moves all of them at once.

    Args:
        network: from the input to the rows, as `as_margin_network` makes it.
        clauses: row numbers.
        start: a point to search round, instead of all over the box.
        late: asked at every step; True ends the search.
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
            if late():
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


def _try_best(x: Tensor, least: Tensor, judge: Judging, tried: set[bytes]) -> PropertyWitness | None:
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
