"""The search for a point at which the output has changed more than L times as much as the input."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.metrics.local.base import LocalProperty
from onnxsub.metrics.local.search import BallJudge
from onnxsub.ops.base import Array
from onnxsub.query import Query

__all__ = ["attack_ratio"]

_RADII = 8  # eps, eps / 2, ...
_POINTS = 12  # of the ball whose gradients are starting directions, besides the anchor
_KEPT = 32  # starts that are improved
_STEPS = 40
_JUDGED = 8  # points that are replayed at a time
_BLOCK = 2**24  # numbers of one forward pass
_WORK = 4e9  # multiplications of one forward pass: about half a second of one core in float64


def attack_ratio(query: Query, prop: LocalProperty, *, seed: int = 0, budget: Budget | None = None) -> Array | None:
    r"""A point, confirmed by onnxruntime, with `|f(x) - f(x0)|_inf > L |x - x0|_inf` beyond rounding; None: none was found.

    Starts: for every output and sign, the corner that its gradient points at, at the anchor and at random points, at radii
    eps, eps / 2, ..., eps / 128. The best are improved by projected sign gradients at their radius. Float64 throughout; what is
    found is replayed.

    Args:
        budget: looked at before every batch of points.
    """
    try:
        return _search(query, prop, seed, budget or Budget())
    except OutOfTime:
        return None


def _search(query: Query, prop: LocalProperty, seed: int, budget: Budget) -> Array | None:
    network, judge = query.network, BallJudge(query, prop)
    low, high = (torch.as_tensor(end.astype(np.float64)).reshape(query.x0.shape) for end in (judge.lower, judge.upper))
    x0 = torch.as_tensor(query.x0.astype(np.float64))
    generator = torch.Generator().manual_seed(seed)
    block = max(1, _BLOCK // sum(math.prod(s) for s in network.shapes.values()))
    block = max(1, min(block, int(_WORK // max(network.multiplications, 1))))
    axes = [1] * x0.dim()

    def values(x: Tensor) -> Tensor:
        found = []
        with torch.no_grad():
            for part in torch.split(x, block):
                budget.check()
                found.append(network.forward(part))
        return torch.cat(found)

    def project(x: Tensor, radius: Tensor) -> Tensor:
        r = radius.reshape(-1, *axes)
        return torch.minimum(torch.maximum(x, torch.maximum(x0 - r, low)), torch.minimum(x0 + r, high))

    start = values(x0[None])[0]

    def ratios(x: Tensor) -> Tensor:
        size = (x - x0).flatten(1).abs().amax(1)
        return torch.where(size > 0, (values(x) - start).abs().amax(1) / size.clamp(min=1e-300), 0.0)

    tried: set[bytes] = set()

    def confirmed(x: Tensor, ratio: Tensor) -> Array | None:
        for i in ratio.argsort(descending=True)[:_JUDGED].tolist():
            budget.check()
            if not float(ratio[i]) > prop.bound:
                return None
            point = x[i].numpy()
            if point.tobytes() not in tried:
                tried.add(point.tobytes())
                found = judge.judge(point)
                if found.confirmed:
                    return found.x.reshape(query.x0.shape).astype(np.float32)
        return None

    cloud = torch.rand((_POINTS + 1, *x0.shape), generator=generator, dtype=x0.dtype)
    points = low + (high - low) * cloud
    points[0] = x0
    signs = []
    for p in points:
        if budget.over:
            break
        signs += [g.sign() for g in _gradients(query, p, budget)]
    directions = torch.stack(signs + [-s for s in signs]) if signs else torch.ones((1, *x0.shape), dtype=x0.dtype)
    radii = prop.eps * 0.5 ** torch.arange(_RADII, dtype=x0.dtype)
    r = radii.repeat_interleave(len(directions))
    x = project(x0 + r.reshape(-1, *axes) * directions.repeat(_RADII, *axes), r)
    ratio = ratios(x)
    found = confirmed(x, ratio)
    if found is not None:
        return found
    best = ratio.topk(min(_KEPT, len(ratio))).indices
    x, r = x[best], r[best]
    difference = values(x) - start
    output = difference.abs().argmax(1)
    side = difference.gather(1, output[:, None])[:, 0].sign()
    for step in range(_STEPS):
        budget.check()
        leaf = x.clone().requires_grad_()
        f = network.forward(leaf)
        goal = (side * f.gather(1, output[:, None])[:, 0]).sum()
        if not goal.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(goal, leaf)
        length = r.reshape(-1, *axes) * (0.01 + (1 + math.cos(math.pi * step / _STEPS)) / 2)
        x = project(x + length * gradient.sign(), r)
        found = confirmed(x, ratios(x))
        if found is not None:
            return found
    return None


def _gradients(query: Query, point: Tensor, budget: Budget) -> list[Tensor]:
    """The gradient of every logit at a point."""
    leaf = point.clone().requires_grad_()
    f = query.network.forward(leaf[None])[0]
    if not f.requires_grad:
        return []
    found = []
    for v in f:
        budget.check()
        if v.requires_grad:
            found.append(torch.autograd.grad(v, leaf, retain_graph=True)[0])
    return found
