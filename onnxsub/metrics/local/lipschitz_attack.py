"""The search for a point at which the output has changed more than L times as much as the input."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

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


def attack_ratio(query: Query, prop: LocalProperty, *, seed: int = 0, deadline: float = math.inf) -> Array | None:
    r"""A point, confirmed by onnxruntime, with `|f(x) - f(x0)|_inf > L |x - x0|_inf` beyond rounding; None: none was found.

    Starts: for every output and sign, the corner that its gradient points at, at the anchor and at random points, at radii
    eps, eps / 2, ..., eps / 128. The best are improved by projected sign gradients at their radius. Float64 throughout; what is
    found is replayed.

    Args:
        deadline: `time.perf_counter()` at which to stop.
    """
    network, judge = query.network, BallJudge(query, prop)
    low, high = (torch.as_tensor(end.astype(np.float64)).reshape(query.x0.shape) for end in (judge.lower, judge.upper))
    x0 = torch.as_tensor(query.x0.astype(np.float64))
    generator = torch.Generator().manual_seed(seed)
    block = max(1, _BLOCK // sum(math.prod(s) for s in network.shapes.values()))
    axes = [1] * x0.dim()

    def values(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([network.forward(part) for part in torch.split(x, block)])

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
        if time.perf_counter() > deadline:
            break
        signs += [g.sign() for g in _gradients(query, p)]
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
        if time.perf_counter() > deadline:
            return None
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


def _gradients(query: Query, point: Tensor) -> list[Tensor]:
    """The gradient of every logit at a point."""
    leaf = point.clone().requires_grad_()
    f = query.network.forward(leaf[None])[0]
    if not f.requires_grad:
        return []
    return [torch.autograd.grad(v, leaf, retain_graph=True)[0] for v in f if v.requires_grad]
