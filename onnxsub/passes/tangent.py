r"""Steps to the nearest point of the boundary's tangent: where few units are left, a handful of them ends beside the nearest point.

At x the margin `m = f_t - f_y` is replaced by its tangent `m(x) + g . (x' - x)`. The nearest zero of that in the domain is at the
smallest r with `sum_i |g_i| min(r, room_i) >= g . (x - x0) - m(x)`, every element moved by r in the direction of `g_i` or to the
end of the domain (DeepFool, Moosavi-Dezfooli et al. 2016, in the maximum norm with bounds).
"""

from __future__ import annotations

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.descent import Objective
from onnxsub.region import InputSpace

__all__ = ["step_to_tangent", "tangent_steps"]

_NEAR = torch.cat([torch.linspace(0.95, 0.9975, 20), torch.linspace(1.0, 1.1, 41)]).double()
"""How far along the line from the anchor through a point the boundary is looked for, as shares of the point's offset."""
_HERE = 20  # place of the share 1.0, the point itself
_SHARE = 0.5  # of the way to the tangent's nearest point that is gone, after the first step


def step_to_tangent(gradient: Array, needed: float, low: Array, high: Array) -> Array | None:
    """The offset t in `[low, high]` with the smallest `|t|_inf` and `gradient . t >= needed`; None: there is none.

    Args:
        gradient, low, high: `(n,)`; low at most 0, high at least 0.
    """
    size = np.abs(gradient)
    room = np.where(gradient > 0, high, -low)
    if needed <= 0:
        return np.zeros_like(gradient)
    if float(size @ room) < needed:
        return None
    order = np.argsort(room)
    # below room r_k, the elements before k are at their ends and the others move by r
    ended = np.concatenate([[0.0], np.cumsum((size * room)[order])[:-1]])
    moving = float(size.sum()) - np.concatenate([[0.0], np.cumsum(size[order])[:-1]])
    with np.errstate(divide="ignore", invalid="ignore"):
        radii = (needed - ended) / moving
    k = int(np.flatnonzero(radii <= room[order])[0]) if (radii <= room[order]).any() else -1
    radius = float(radii[k]) if k >= 0 else float(room.max())
    return np.sign(gradient) * np.minimum(radius, room)


def tangent_steps(network: Network, x0: Array, label: int, space: InputSpace, x: Array, steps: int) -> Array | None:
    """The nearest point with another class met on the way from x, `(*shape)` float64; None where there was none.

    In float64 on the network as it stands: a proposal, which is no witness before it was replayed.

    Args:
        x0: `(*shape)`, un-normalised.
        x: `(*shape)`, where the first tangent is taken.
    """
    objective = Objective(network, x0, label, space, device="cpu", dtype=torch.float64)
    low, high = objective.low.numpy(), objective.high.numpy()
    point = objective.project(torch.as_tensor(np.asarray(x, dtype=np.float64)).flatten() - objective.x0)[None]
    best, nearest = None, np.inf
    for i in range(steps):
        offset = point[0].numpy()
        line = objective.project(_NEAR[:, None] * point)
        worst, targets = objective.worst(line)
        beyond = torch.nonzero(worst >= 0)[:, 0]
        if len(beyond) and (radius := float(line[beyond[0]].abs().max())) < nearest:
            best, nearest = line[beyond[0]].numpy(), radius
        margin, gradient, _ = objective.gradient(point, targets[_HERE : _HERE + 1])
        g = gradient[0].numpy()
        # a little beyond the boundary, so that what is on its far side is met
        needed = float(g @ offset - margin[0])
        step = step_to_tangent(g, needed + 1e-6 * abs(needed), low, high)
        if step is None:
            break
        # between two pieces full steps go to and fro
        share = _SHARE if i else 1.0
        point = (1 - share) * point + share * torch.as_tensor(step)[None]
    return None if best is None else x0 + best.reshape(x0.shape)
