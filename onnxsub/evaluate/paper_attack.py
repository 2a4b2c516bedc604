"""The reference experiment's attack: bisection of the radius, projected gradient descent without a random start at each.

`r` is halved on `[0, 0.7 interval]` (`[0, 0.35]` as published). At each radius 100 steps of `r / 50` go along the sign of the
gradient of the cross-entropy, each clipped to the ball and to the domain, from the anchor. The first point that onnxruntime gives
another class ends the descent.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackResult
from onnxsub.passes.attack.polish import as_points
from onnxsub.query import Query

__all__ = ["paper_attack"]

_SHARE = 0.7  # of the interval of the search: 0.35 of 0.5
_STEPS = 100
_STEP = 1 / 50  # of the radius


def paper_attack(query: Query, interval: float, precision: float) -> AttackResult:
    """The point at the smallest radius of the bisection at which the descent succeeded.

    Args:
        interval: of the search for distances. precision: the bisection ends where its interval is not wider.
    """
    start = time.perf_counter()
    best: Array | None = None
    low, high = 0.0, min(_SHARE * interval, query.space.reach(query.x0))
    radius, evaluations = high, 0
    while best is None or high - low > precision:
        point, steps = _descend(query, radius)
        evaluations += steps
        if point is not None:
            best, high = point, radius
        elif best is None:
            break
        else:
            low = radius
        radius = (low + high) / 2
    times = {"total": time.perf_counter() - start}
    settings = {"method": "pgd", "steps": _STEPS, "upper": _SHARE * interval, "precision": precision}
    if best is None:
        return AttackResult(False, math.inf, None, None, -math.inf, times, evaluations, False, settings)
    margin, label = query.margins(best[None])
    d_adv = float(query.radius(best[None])[0])
    return AttackResult(True, d_adv, best, int(label[0]), float(margin[0]), times, evaluations, False, settings)


def _descend(query: Query, radius: float) -> tuple[Array | None, int]:
    """The first adversarial point of the descent within the radius, and the steps taken."""
    low, high = (torch.as_tensor(end, dtype=torch.float32) for end in query.space.ball(query.x0, radius))
    x0 = query.x0.astype(np.float64)
    others = torch.arange(query.classes) != query.label
    x = torch.as_tensor(np.array(query.x0), dtype=torch.float32)
    for step in range(1, _STEPS + 1):
        x.requires_grad_(True)
        f = query.network.forward(x[None])[0]
        # its gradient has the signs of the cross-entropy's, and is not zero where a softmax in float32 is
        loss = f[others].logsumexp(0) - f[query.label]
        (gradient,) = torch.autograd.grad(loss, x)
        x = torch.minimum(torch.maximum(x.detach() + radius * _STEP * gradient.sign(), low), high)
        point = as_points(query.x0, (x.double().numpy() - x0).reshape(1, -1), query.space)
        if query.margins(point)[0][0] > 0:
            return point[0], step
    return None, _STEPS
