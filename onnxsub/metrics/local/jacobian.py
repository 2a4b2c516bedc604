r"""A certified Lipschitz constant round an anchor: the largest row sum of an interval matrix.

For a point x of a box that contains x0 there is a matrix J, the product of the operators' difference quotients between their
values at x and at x0, with

    f(x) - f(x0) = J (x - x0),
    |f(x) - f(x0)|_inf <= |x - x0|_inf  max_k max_{sign s} sum_i max(0, s J_ki [x_i can grow], -s J_ki [x_i can shrink]),

where an input at the end of the domain moves one way only. J over the box is an interval matrix, pulled back through the network by
each operator's `transpose_slopes` (Weng et al. 2018, Fast-Lip; Jordan and Dimakis 2020).
"""

from __future__ import annotations

import math

import torch

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.interval_rows import Rows
from onnxsub.propagate import Bounds, compute_bounds

__all__ = ["lipschitz_bound"]


def lipschitz_bound(
    network: Network, x0: Array, lower: Array, upper: Array, bounds: Bounds | None = None, *, budget: Budget | None = None
) -> float:
    """An upper bound of `|f(x) - f(x0)|_inf / |x - x0|_inf` over the other points of a box; inf where an operator has no slopes.

    Args:
        x0, lower, upper: `(*input_shape)`, float64, `lower <= x0 <= upper`.
        bounds: of all non-linear operators on that box, where they are known.

    Raises:
        OutOfTime: the budget ended; it is looked at before every operator.
    """
    budget = budget or Budget()
    budget.check()
    bounds = bounds or compute_bounds(network, lower, upper, output=False, budget=budget)
    with torch.no_grad():
        rows = torch.eye(network.classes, dtype=torch.float64).reshape(network.classes, *network.output_shape)
        pending: dict[str, Rows] = {network.output: (rows, torch.zeros_like(rows))}
        for op in reversed(network.ops):
            budget.check()
            part = pending.pop(op.output, None)
            if part is None:
                continue
            if "slopes" in op.unsupported:
                return math.inf
            found = op.transpose_slopes(part, *([bounds.pre[op.output]] if op.output in bounds.pre else []))
            for name, (centre, radius) in zip(op.inputs, found, strict=True):
                have = pending.get(name)
                pending[name] = (centre, radius) if have is None else (have[0] + centre, have[1] + radius)
        if network.input not in pending:
            return 0.0
        centre, radius = (t.flatten(1) for t in pending[network.input])
        up, down = (torch.as_tensor(m).reshape(-1).to(centre) for m in (upper > x0, lower < x0))
        low, high = centre - radius, centre + radius
        rise = torch.maximum(up * high, -down * low).clamp(min=0).sum(1)
        fall = torch.maximum(-up * low, down * high).clamp(min=0).sum(1)
        largest = float(torch.maximum(rise, fall).max()) * (1 + 1e-9)
        return math.inf if math.isnan(largest) else largest
