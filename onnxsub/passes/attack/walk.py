"""Walking a given point back to the decision boundary, and the judges that say which points count."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack.descent import Objective
from onnxsub.passes.attack.polish import AdversarialPoint, Confirm, as_points, settle, sharpen
from onnxsub.query import worst_margin
from onnxsub.region import InputSpace

__all__ = ["float64_confirm", "start_offsets", "walk_back"]


def walk_back(
    network: Network,
    x0: Array,
    label: int,
    space: InputSpace,
    points: Array,
    confirm: Confirm | None = None,
    *,
    steps: int = 40,
    upper: float | None = None,
    timeout: float | None = None,
    budget: Budget | None = None,
    device: str = "cpu",
    target: int | None = None,
) -> AdversarialPoint | None:
    """The nearest confirmed adversarial point reached from `points` along the decision boundary; None if there is none.

    A point need not be adversarial itself: a tie, or the witness of a substitute, is a good place to begin.

    Args:
        points: `(N, *shape)` or `(*shape)`, inside the domain.
        confirm: as for `attack_network`.
        timeout: seconds, a part of the budget.
        budget: where it ends, the nearest point reached so far is replayed, or the first one given.
        device: where the steps are computed.
        target: the one class that counts; None: every other class does.
    """
    x = np.asarray(x0, dtype=np.float32)
    offsets = start_offsets(points, x, space)
    confirm = confirm or float64_confirm(network, label, target)
    limit = min(space.reach(x), math.inf if upper is None else upper)
    budget = (budget or Budget()).part(math.inf if timeout is None else timeout)
    objective = Objective(network, x, label, space, device=device, dtype=torch.float32, target=target)
    candidates = offsets
    try:
        track = sharpen(objective, offsets.to(device), upper=limit, steps=steps, budget=budget)
        # the points reached first: where time is over, only the first one is replayed
        candidates = torch.cat([track.point[track.best.isfinite()].cpu(), offsets])
    except OutOfTime:
        pass
    return settle(x, candidates.to(torch.float64).numpy(), space, confirm, limit, budget)


def float64_confirm(network: Network, label: int, target: int | None = None) -> Confirm:
    """The network itself in float64 as the judge."""

    def confirm(x: Array) -> tuple[Array, Array]:
        with torch.no_grad():
            f = network.forward(torch.as_tensor(np.asarray(x, dtype=np.float64))).numpy()
        return worst_margin(f, label, target)

    return confirm


def start_offsets(points: Array, x0: Array, space: InputSpace) -> Tensor:
    """Start points as offsets `(N, n)`, checked."""
    p = np.asarray(points, dtype=np.float64)
    p = p[None] if p.shape == x0.shape else p
    if p.shape[1:] != x0.shape or len(p) == 0:
        raise InputError(f"the start points have shape {list(p.shape)}; give (N, {', '.join(map(str, x0.shape))}) with N >= 1")
    space.check(p, "the start points")
    inside = as_points(x0, (p - x0.astype(np.float64)).reshape(len(p), -1), space)
    return torch.as_tensor((inside.astype(np.float64) - x0).reshape(len(p), -1), dtype=torch.float32)
