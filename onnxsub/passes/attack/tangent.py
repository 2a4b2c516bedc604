r"""Steps to the nearest point of the boundary's tangent: where few units are left, a handful of them ends beside the nearest point.

At x the margin `m = f_t - f_y` is replaced by its tangent `m(x) + g . (x' - x)`; the nearest zero of that in the domain is the
next x (`onnxsub.geometry`).
"""

from __future__ import annotations

import numpy as np
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.geometry import nearest_in_halfspace
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack.descent import Objective
from onnxsub.region import InputSpace

__all__ = ["tangent_steps"]

_NEAR = torch.cat([torch.linspace(0.95, 0.9975, 20), torch.linspace(1.0, 1.1, 41)]).double()
"""How far along the line from the anchor through a point the boundary is looked for, as shares of the point's offset."""
_HERE = 20  # place of the share 1.0, the point itself
_SHARE = 0.5  # of the way to the tangent's nearest point that is gone, after the first step


def tangent_steps(
    network: Network, x0: Array, label: int, space: InputSpace, x: Array, steps: int, *, budget: Budget | None = None,
    target: int | None = None,
) -> Array | None:
    """The nearest point with another class met on the way from x, `(*shape)` float64; None where there was none.

    In float64 on the network as it stands: a proposal, which is no witness before it was replayed.

    Args:
        x0: `(*shape)`, un-normalised.
        x: `(*shape)`, where the first tangent is taken.
        budget: where it ends, the nearest point so far is the answer.
        target: the one class that counts; None: every other class does.
    """
    budget = budget or Budget()
    objective = Objective(network, x0, label, space, device="cpu", dtype=torch.float64, target=target)
    low, high = objective.low.numpy(), objective.high.numpy()
    point = objective.project(torch.as_tensor(np.asarray(x, dtype=np.float64)).flatten() - objective.x0)[None]
    best, nearest = None, np.inf
    for i in range(steps):
        offset = point[0].numpy()
        line = objective.project(_NEAR[:, None] * point)
        try:
            worst, targets = objective.worst(line, budget)
            margin, gradient, _ = objective.gradient(point, targets[_HERE : _HERE + 1], budget)
        except OutOfTime:
            break
        beyond = torch.nonzero(worst >= 0)[:, 0]
        if len(beyond) and (radius := float(line[beyond[0]].abs().max())) < nearest:
            best, nearest = line[beyond[0]].numpy(), radius
        g = gradient[0].numpy()
        # a little beyond the boundary, so that what is on its far side is met
        needed = float(g @ offset - margin[0])
        step = nearest_in_halfspace(g, -(needed + 1e-6 * abs(needed)), low, high)
        if step is None:
            break
        # between two pieces full steps go to and fro
        share = _SHARE if i else 1.0
        point = (1 - share) * point + share * torch.as_tensor(step)[None]
    return None if best is None else x0 + best.reshape(x0.shape)
