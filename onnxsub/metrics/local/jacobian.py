r"""A certified Lipschitz constant round an anchor: the largest row sum of any generalised Jacobian on a box.

For x in a box X that contains x0, with J(z) in Clarke's generalised Jacobian of f at z (mean value theorem along the segment),

    f_k(x) - f_k(x0) = J_k(z) . (x - x0) for some z of the segment,
    |f(x) - f(x0)|_inf <= |x - x0|_inf  max_k max_{sign s} sum_i max(0, s J_ki [x_i can grow], -s J_ki [x_i can shrink]),

where an input at the end of the domain moves one way only. J over X is an interval matrix, pulled back through the network: an
affine operator multiplies by its transpose, an activation by the interval of its slopes on the interval of its input
(Weng et al. 2018, Fast-Lip; Jordan and Dimakis 2020).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Affine, Array
from onnxsub.ops.maxpool import MaxPool
from onnxsub.ops.smooth import Smooth
from onnxsub.propagate import Bounds, compute_bounds

__all__ = ["lipschitz_bound"]

_ROUND = 1e-13
"""Share of the terms of a sum by which every product is widened: more than float64 rounds away in sums of 1e3 terms."""

_Part = tuple[Tensor, Tensor]  # centre and radius of an interval matrix, `(rows, *shape)` each


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
        pending: dict[str, _Part] = {network.output: (rows, torch.zeros_like(rows))}
        for op in reversed(network.ops):
            budget.check()
            part = pending.pop(op.output, None)
            if part is None:
                continue
            if isinstance(op, Affine):
                found = _through_affine(op, part)
            elif isinstance(op, Activation):
                found = (_through_slopes(op, part, *bounds.pre[op.output]),)
            elif isinstance(op, MaxPool):
                found = (_through_pool(op, part, *bounds.pre[op.output]),)
            else:
                return torch.inf
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
        return float(torch.maximum(rise, fall).max()) * (1 + 1e-9)


def _through_affine(op: Affine, part: _Part) -> tuple[_Part, ...]:
    centre, radius = part
    radius = radius + _ROUND * (centre.abs() + radius)
    with torch.enable_grad():  # |L|^T is the vector-Jacobian product of the magnitude, which is linear for what is not negative
        xs = [torch.zeros((len(radius), *s), dtype=radius.dtype, requires_grad=True) for s in op.in_shapes]
        grads = torch.autograd.grad(op.magnitude(*xs), xs, radius, allow_unused=True)
        sizes = torch.autograd.grad(op.magnitude(*xs), xs, _ROUND * centre.abs(), allow_unused=True)
    spread = [torch.zeros_like(x) if g is None or s is None else g + s for g, s, x in zip(grads, sizes, xs, strict=True)]
    return tuple(zip(op.transpose(centre), spread, strict=True))


def _through_slopes(op: Activation, part: _Part, lower: Tensor, upper: Tensor) -> _Part:
    if isinstance(op, Smooth):
        # s' is even and falls away from 0
        ends = torch.stack([op.derivative(lower), op.derivative(upper)])
        low, high = ends.amin(0), op.derivative(torch.zeros_like(lower).clamp(min=lower, max=upper))
    else:
        points = torch.stack([lower, *(k.clamp(min=lower, max=upper) for k in op.kinks(lower)), upper]).sort(0).values
        slopes = torch.stack([op.tangent((a + b) / 2)[0] for a, b in itertools.pairwise(points)])
        low, high = slopes.amin(0), slopes.amax(0)
    return _product(part, low, high)


def _product(part: _Part, low: Tensor, high: Tensor) -> _Part:
    """The interval product, elementwise."""
    centre, radius = part
    corners = torch.stack([e * s for e in (centre - radius, centre + radius) for s in (low, high)])
    least, most = corners.amin(0), corners.amax(0)
    return (least + most) / 2, (most - least) / 2 + _ROUND * torch.maximum(least.abs(), most.abs())


def _through_pool(op: MaxPool, part: _Part, lower: Tensor, upper: Tensor) -> _Part:
    """The slope of a window's element is 1 where no other one can be the largest, 0 where it cannot be, else in [0, 1]."""
    index = torch.as_tensor(op.index)  # (P, K), -1 for padding
    pad = torch.nn.functional.pad
    low = pad(lower.flatten(2), (0, 1), value=-torch.inf)[0][:, index]
    high = pad(upper.flatten(2), (0, 1), value=-torch.inf)[0][:, index]
    able = high >= low.amax(-1, keepdim=True)
    sole = able & (able.sum(-1, keepdim=True) == 1)
    rows, channels = part[0].shape[:2]
    shaped = tuple(t.reshape(rows, channels, -1, 1) for t in part)
    centre, radius = _product((shaped[0], shaped[1]), sole.to(lower.dtype), able.to(lower.dtype))
    size = lower.flatten(2).shape[-1]
    where = torch.where(index < 0, size, index).reshape(1, 1, -1).expand(rows, channels, -1)
    found = []
    for t in (centre, radius):
        whole = t.new_zeros((rows, channels, size + 1))
        whole.scatter_add_(-1, where, t.reshape(rows, channels, -1))
        found.append(whole[..., :size].reshape(rows, *op.in_shapes[0]))
    return found[0], found[1]
