"""Attacks of a fixed number of steps on whole batches: what training and the figures on the cards use."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["perturb", "robust_accuracy"]


def perturb(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    radius: float,
    steps: int,
    size: float,
    rng: torch.Generator,
    *,
    climb: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """`x_{k+1} = clip(x_k + size * sign(grad loss(x_k)))` onto the ball of `radius` and [0, 1], from a random start in the ball.

    One step of 1.25 radii is the fast attack of Wong et al. 2020 (algorithm 3); more and smaller ones are Madry et al. 2018.

    Args:
        x: images `(N, ...)` in [0, 1]. y: their labels `(N,)`. size: of a step, in input units. rng: on the CPU.
        climb: what the steps go up, of the points `(N, ...)` in one number; None: the sum of their cross entropies.
    """
    lower, upper = (x - radius).clamp_(min=0), (x + radius).clamp_(max=1)
    start = torch.rand(x.shape, generator=rng, dtype=x.dtype).to(x.device)
    point = torch.minimum(torch.maximum(x + radius * (2 * start - 1), lower), upper)
    for _ in range(steps):
        with torch.enable_grad():
            point.requires_grad_(True)
            height = cross_entropy(net(point), y, reduction="sum") if climb is None else climb(point)
            (gradient,) = torch.autograd.grad(height, point)
        point = torch.clamp(torch.add(point.detach(), gradient.sign_(), alpha=size), lower, upper)
    return point.detach()


def robust_accuracy(
    net: nn.Module, x: Tensor, y: Tensor, radius: float, *, steps: int = 40, restarts: int = 3, seed: int = 0, rows: int = 500
) -> float:
    """Share of images that are classified rightly at the start and at the end of every one of `restarts` attacks.

    An upper bound of the robust accuracy. A step has 2.5 radii / steps; `rows` images are attacked at once.
    """
    rng = torch.Generator().manual_seed(seed)
    standing = 0
    for i in range(0, len(y), rows):
        xs, ys = x[i : i + rows], y[i : i + rows]
        xs, ys = _right(net, xs, xs, ys)
        for _ in range(restarts if radius else 0):
            if len(ys):
                xs, ys = _right(net, perturb(net, xs, ys, radius, steps, 2.5 * radius / steps, rng), xs, ys)
        standing += len(ys)
    return standing / len(y)


@torch.no_grad()
def _right(net: nn.Module, points: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of `x` and `y` whose `points` are classified rightly."""
    held = net(points).argmax(1) == y
    return x[held], y[held]
