"""The attack's engine: projected gradient steps in which every batch element has a radius of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.relu import Relu
from onnxsub.region import InputSpace

__all__ = ["Objective", "Schedule", "Track", "descend"]

_CHUNK_BYTES = 2**28  # of all tensors of one forward pass; autograd holds about as much again
_CHUNK_WORK = 2e9  # multiplications of one forward pass: with its gradient half a second of one core, so that the clock is seen


class Objective:
    """Margins `m_t(x) = f_t(x) - f_y(x)` round an anchor, and their gradients, in batches that fit a stated memory.

    With a `target` only that t counts.

    Points are flat offsets `delta = x - x0` of shape `(B, n)`. A network that ends in Relu is read before it, with the margin
    `f_t - max(0, f_y)`: it has the same positive set, and a gradient where all logits are zero.

    Attributes:
        low, high: the offsets at which the domain ends, `(n,)`.
        reach: the radius at which the ball is the whole domain.
        values: numbers that one point's forward pass makes; multiplications: what it takes.
        evaluations: points evaluated so far (a gradient counts as one).
    """

    def __init__(
        self, network: Network, x0: Array, label: int, space: InputSpace, *, device: str, dtype: torch.dtype,
        target: int | None = None,
    ) -> None:
        self.label = label
        self.target = target
        self.classes = network.classes
        self.shape = network.input_shape
        self.x0 = torch.as_tensor(x0.reshape(-1).copy(), dtype=dtype, device=device)
        ends = (torch.as_tensor(np.array(end), dtype=dtype, device=device).flatten() for end in space.ends(x0.shape))
        self.low, self.high = (end - self.x0 for end in ends)
        self.low, self.high = self.low.clamp(max=0), self.high.clamp(min=0)
        self.reach = max(space.reach(x0), 1e-30)
        self.evaluations = 0
        last = network.producers.get(network.output)
        self._rectified = isinstance(last, Relu) and last.inputs[0] != network.input
        if last is not None and self._rectified:
            network = replace(network, output=last.inputs[0]).without_dead()
        self._network = network
        self.values = sum(math.prod(s) for s in network.shapes.values())
        self.multiplications = network.multiplications
        room = _CHUNK_BYTES // (self.values * self.x0.element_size())
        self._chunk = max(1, min(room, int(_CHUNK_WORK // max(self.multiplications, 1))))

    @property
    def n(self) -> int:
        """Number of input elements."""
        return len(self.x0)

    def project(self, delta: Tensor) -> Tensor:
        """`delta` clipped to the domain."""
        return torch.minimum(torch.maximum(delta, self.low), self.high)

    def logits(self, delta: Tensor) -> Tensor:
        """`f(x0 + delta)`, `(B, classes)`; before a final Relu except for the defended class."""
        self.evaluations += len(delta)
        f = self._network.forward((self.x0 + delta).reshape(-1, *self.shape))
        if self._rectified:
            own = torch.zeros(self.classes, dtype=torch.bool, device=f.device)
            own[self.label] = True
            f = torch.where(own, f.relu(), f)
        return f

    def worst(self, delta: Tensor, budget: Budget) -> tuple[Tensor, Tensor]:
        """`max_t m_t` and the t that attains it, `(B,)` each.

        Raises:
            OutOfTime: before a batch for which there is no time.
        """
        parts = []
        with torch.no_grad():
            for d in torch.split(delta, self._chunk):
                budget.check()
                parts.append(self._worst(self.logits(d)))
        return torch.cat([m for m, _ in parts]), torch.cat([t for _, t in parts])

    def gradient(self, delta: Tensor, targets: Tensor, budget: Budget) -> tuple[Tensor, Tensor, Tensor]:
        """`m_t`, its gradient `(B, n)` and `max_t m_t`, for one target per row.

        Raises:
            OutOfTime: before a batch for which there is no time.
        """
        parts = []
        for d, t in zip(torch.split(delta, self._chunk), torch.split(targets, self._chunk), strict=True):
            budget.check()
            parts.append(self._gradient(d, t))
        if len(parts) == 1:
            return parts[0]
        margins, gradients, worst = zip(*parts, strict=True)
        return torch.cat(margins), torch.cat(gradients), torch.cat(worst)

    def _gradient(self, delta: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            d = delta.detach().requires_grad_(True)
            f = self.logits(d)
            m = f.gather(1, targets[:, None])[:, 0] - f[:, self.label]
            # a network that is constant in its input has no graph to go back through
            g = torch.autograd.grad(m.sum(), d)[0] if m.requires_grad else torch.zeros_like(d)
        return m.detach(), g, self._worst(f.detach())[0]

    def _worst(self, f: Tensor) -> tuple[Tensor, Tensor]:
        if self.target is not None:
            m = f[:, self.target] - f[:, self.label]
            return m, torch.full((len(f),), self.target, device=f.device)
        others = f.clone()
        others[:, self.label] = -math.inf
        best, t = others.max(dim=1)
        return best - f[:, self.label], t


@dataclass(frozen=True)
class Schedule:
    """How `descend` moves.

    Attributes:
        steps: gradient steps.
        first, last: step length at the start and at the end, as a share of the radius; a cosine leads from one to the other.
        noise: amplitudes of the uniform noise at the first step, as shares of the radius, dealt to the rows in turn; they fall to
            zero at `quiet`. Robustly trained networks want 4 (nearly random corners), others are better served with less.
        quiet: share of the steps after which there is no noise.
        momentum: of the running gradient sum.
        growth: largest relative growth of a radius in one step; it shrinks by twice as much at most.
    """

    steps: int
    first: float = 1.0
    last: float = 0.002
    noise: tuple[float, ...] = (4.0, 4.0, 1.0)
    quiet: float = 0.5
    momentum: float = 0.75
    growth: float = 0.1


@dataclass(frozen=True, eq=False)
class Track:
    """Where a batch stands.

    Attributes:
        targets: class that each row aims at, `(B,)`.
        direction: u in [-1, 1], `(B, n)`: the point is `x0 + radius * u`, clipped to the domain.
        radius: `(B,)`.
        best: smallest radius at which the row was adversarial, inf for none, `(B,)`.
        point: its offset, `(B, n)` (zero for none).
    """

    targets: Tensor
    direction: Tensor
    radius: Tensor
    best: Tensor
    point: Tensor

    @staticmethod
    def begin(targets: Tensor, direction: Tensor, radius: Tensor) -> Track:
        """A batch that has not moved yet."""
        return Track(targets, direction, radius, torch.full_like(radius, math.inf), torch.zeros_like(direction))

    def take(self, rows: Tensor) -> Track:
        """The rows given."""
        return Track(self.targets[rows], self.direction[rows], self.radius[rows], self.best[rows], self.point[rows])

    def join(self, other: Track) -> Track:
        """Both batches."""
        return Track(
            *(torch.cat([getattr(self, f), getattr(other, f)]) for f in ("targets", "direction", "radius", "best", "point"))
        )

    @property
    def score(self) -> Tensor:
        """The radius that each row stands for: the best found, or where it still looks, `(B,)`."""
        return torch.where(self.best.isfinite(), self.best, self.radius)

    def resumed(self) -> Track:
        """Every row that has been adversarial put back on its best point."""
        found = self.best.isfinite()
        direction = torch.where(found[:, None], self.point / self.best.clamp(min=1e-30)[:, None], self.direction)
        return replace(self, direction=torch.where(found[:, None], direction, self.direction), radius=self.score)


def descend(
    objective: Objective, track: Track, schedule: Schedule, *, upper: float, generator: torch.Generator, budget: Budget
) -> Track:
    r"""Moves every row along the decision boundary towards smaller radii.

    A row is `x = x0 + r u` with `u` in `[-1, 1]^n`. One step takes the gradient g of its margin at x, moves u by the sign of the
    running sum of `g / |g|_1` (projected), and sets r to the root of the linear model, `m + g \cdot (x'(r) - x) = 0`, within the
    limits of the schedule and below the best radius of the row. At first x is drawn from a cloud round `u` instead: the
    averaged gradient sees past the kinks and dead units in which plain descent gets caught (randomised smoothing). On a
    network with flat regions this, not more restarts, is what finds the near points.

    Source: every row with a radius of its own as in Pintor et al. 2021 (FMN); sign steps with momentum as in Dong et al. 2018.

    Args:
        upper: no radius beyond this one.
        budget: where it ends, the rows stand where the last whole step left them.
    """
    u, r, best, point = track.direction, track.radius.clamp(max=upper), track.best, track.point
    running = torch.zeros_like(u)
    noisy = any(schedule.noise)
    deal = torch.arange(len(u), device=u.device) % len(schedule.noise)
    amplitude = torch.tensor(schedule.noise, dtype=u.dtype, device=u.device)[deal, None]
    ceiling = torch.full_like(r, upper)
    expected, shortfall = torch.full_like(r, math.nan), torch.zeros_like(r)
    for k in range(schedule.steps):
        noise = max(0.0, 1.0 - k / max(schedule.quiet * schedule.steps, 1e-9)) if noisy else 0.0
        v = u if noise == 0 else (u + noise * amplitude * _cloud(u, generator)).clamp_(-1, 1)
        delta = objective.project(r[:, None] * v)
        try:
            margin, g, worst = objective.gradient(delta, track.targets, budget)
        except OutOfTime:
            break
        if noise == 0:
            # kinks make the linear model promise too much; what it last promised too much is asked for on top
            missed = torch.nan_to_num(expected - margin).clamp(min=0)
            shortfall = torch.lerp(shortfall, missed, 0.3)
        size = delta.abs().amax(dim=1)
        better = (worst > 0) & (size < best)
        best = torch.where(better, size, best)
        point = torch.where(better[:, None], delta, point)

        length = schedule.last + (schedule.first - schedule.last) * (1 + math.cos(math.pi * k / schedule.steps)) / 2
        running.mul_(schedule.momentum).add_(g / g.abs().sum(dim=1, keepdim=True).clamp(min=1e-30))
        u = (u + length * running.sign()).clamp_(-1, 1)
        wanted = r[:, None] * u
        moved = objective.project(wanted)
        # coordinates that the domain stops do not move with the radius
        slope = (g * u * (moved == wanted)).sum(dim=1)
        predicted = margin + (g * (moved - delta)).sum(dim=1)
        root = torch.where(slope > 0, r - (predicted - shortfall) / slope.clamp(min=1e-30), math.inf)
        largest = torch.minimum(torch.minimum(r * (1 + schedule.growth) + 1e-4 * objective.reach, ceiling), best * 0.9999)
        chosen = torch.minimum(torch.maximum(root, r * (1 - 2 * schedule.growth)), largest)
        if noise == 0:
            expected = predicted + slope * (chosen - r)
        r = chosen
    return Track(track.targets, u, r, best, point)


def _cloud(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform on [-1, 1], shaped like `like`."""
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device).mul_(2).sub_(1)
