r"""`alpha-crown`: CROWN bounds whose lower slopes are optimised (Xu et al. 2021, "Fast and Complete", eq. 9).

Any lower slope `alpha` in [0, 1] of an unstable ReLU gives a sound bound, so gradient steps may look for the one that makes
each bound tightest. Every row (unit and end) has slopes of its own: rows are handled as domains, so that the slopes of
one row are one `(*shape)` tensor. The best bound seen per row is kept, never worse than CROWN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Activation, Box, Nonlinear
from onnxsub.ops.relaxation import Relaxation
from onnxsub.propagate.adam import Adam
from onnxsub.propagate.backward import Coefficients, flattened, pull_back
from onnxsub.propagate.bounds import Bounds, compute_bounds, linear_range, slack
from onnxsub.propagate.chunks import MEMORY

__all__ = ["optimised_bounds", "optimised_minimum"]


def optimised_bounds(
    network: Network,
    lower: Tensor,
    upper: Tensor,
    *,
    units: Mapping[str, Tensor] | None = None,
    only_unstable: bool = False,
    memory: int = MEMORY,
    steps: int = 20,
    rate: float = 0.25,
) -> Bounds:
    """Bounds by alpha-CROWN: layer by layer, each on the tightened intervals of the layers before.

    Args:
        steps: gradient steps per layer.
        rate: first step size of Adam; it decays by 0.98 per step.
    """
    with torch.no_grad():
        base = compute_bounds(
            network, lower, upper, "crown", dtype=lower.dtype, units=units, only_unstable=only_unstable, memory=memory
        )
        if not base.relaxations:
            return base
    pre: dict[str, Box] = {}
    relaxations: dict[str, Relaxation] = {}
    boxes: dict[str, Box] = {}
    for op in network.nonlinear:
        box = base.pre[op.output]
        name = op.inputs[0]
        if name in boxes:
            box = boxes[name]
        elif isinstance(op, Activation) and any(isinstance(o, Activation) for o in network.ancestors(name)):
            box = _refine(network, op, box, pre, relaxations, lower, upper, units, memory, steps, rate)
        boxes[name] = pre[op.output] = box
        relaxations[op.output] = op.relax(*box, "crown")
    l, u = base.output
    if any(isinstance(o, Activation) for o in network.ancestors(network.output)):
        index = torch.arange(network.classes, device=lower.device)
        with torch.no_grad():
            found = linear_range(network, network.output, index, relaxations, lower, upper, memory)
        l, u = torch.maximum(l, found[0]), torch.minimum(u, found[1])
        rows = torch.eye(network.classes, dtype=lower.dtype, device=lower.device).reshape(1, network.classes, *network.output_shape)
        low = optimised_minimum(
            network, network.output, Coefficients(rows), pre, relaxations, lower, upper, steps=steps, rate=rate, memory=memory
        )
        high = -optimised_minimum(
            network, network.output, Coefficients(-rows), pre, relaxations, lower, upper, steps=steps, rate=rate, memory=memory
        )
        l, u = torch.maximum(l, low), torch.minimum(u, high)
    return Bounds(lower, upper, pre, (l, u), relaxations, "alpha-crown")


def _refine(
    network: Network,
    op: Nonlinear,
    box: Box,
    pre: Mapping[str, Box],
    relaxations: Mapping[str, Relaxation],
    lower: Tensor,
    upper: Tensor,
    units: Mapping[str, Tensor] | None,
    memory: int,
    steps: int,
    rate: float,
) -> Box:
    """The interval of one activation's input, its unstable units tightened."""
    l, u = flattened(box[0], 1).clone(), flattened(box[1], 1).clone()
    wanted = torch.arange(l.shape[1]) if units is None or op.output not in units else units[op.output]
    wanted = wanted.to(l.device)
    with torch.no_grad():  # the layers before are tighter than when `base` was computed
        found = linear_range(network, op.inputs[0], wanted, relaxations, lower, upper, memory) if len(wanted) else None
    if found is not None:
        l[:, wanted] = torch.maximum(l[:, wanted], found[0])
        u[:, wanted] = torch.minimum(u[:, wanted], found[1])
    assert isinstance(op, Activation)
    unstable = ~op.affine_on(l.reshape(box[0].shape), u.reshape(box[1].shape))
    unstable = flattened(unstable, 1).any(0)
    index = wanted[unstable[wanted]]
    step = max(1, memory // (4 * l.shape[1] * l.element_size()))
    for part in torch.split(index, step) if len(index) else ():
        rows = torch.zeros((1, len(part), l.shape[1]), dtype=l.dtype, device=l.device)
        rows[0, torch.arange(len(part), device=l.device), part] = 1.0
        start = Coefficients(rows.reshape(1, len(part), *op.in_shapes[0]))
        low = optimised_minimum(network, op.inputs[0], start, pre, relaxations, lower, upper, steps=steps, rate=rate, memory=memory)
        negative = Coefficients(-start.data)
        high = -optimised_minimum(
            network, op.inputs[0], negative, pre, relaxations, lower, upper, steps=steps, rate=rate, memory=memory
        )
        l[:, part] = torch.maximum(l[:, part], low)
        u[:, part] = torch.minimum(u[:, part], high)
    return l.reshape(box[0].shape), u.reshape(box[1].shape)


def optimised_minimum(
    network: Network,
    tensor: str,
    start: Coefficients,
    pre: Mapping[str, Box],
    relaxations: Mapping[str, Relaxation],
    lower: Tensor,
    upper: Tensor,
    *,
    steps: int = 20,
    rate: float = 0.25,
    memory: int = MEMORY,
) -> Tensor:
    """Lower bounds of the rows `start` `(1, R, *shape)` of a tensor over the boxes, by optimised slopes: `(B, R)`."""
    domains = lower.shape[0]
    best = lower.new_full((domains, start.data.shape[1]), -torch.inf)
    ops = [o for o in network.ancestors(tensor) if isinstance(o, Activation)]
    widest = max(math.prod(s) for s in (network.input_shape, *(o.out_shape for o in network.ancestors(tensor))))
    limit = max(1, int(memory // (8 * widest * lower.element_size() * max(1, len(ops)))))
    for b in range(domains):
        box = (lower[b : b + 1], upper[b : b + 1])
        before = [o.output for o in network.ancestors(tensor) if isinstance(o, Nonlinear)]
        intervals = {name: (pre[name][0][b : b + 1], pre[name][1][b : b + 1]) for name in before}
        fixed = {name: _relax(network, name, intervals[name], None) for name in before}
        for rows in torch.split(torch.arange(start.data.shape[1], device=lower.device), limit):
            a = Coefficients(start.data[0, rows].unsqueeze(1))
            values = _optimise(network, tensor, a, ops, intervals, fixed, box, steps, rate)
            best[b, rows] = values
    return best - slack(best, best)


def _optimise(
    network: Network,
    tensor: str,
    rows: Coefficients,
    ops: list[Activation],
    intervals: Mapping[str, Box],
    fixed: Mapping[str, Relaxation],
    box: Box,
    steps: int,
    rate: float,
) -> Tensor:
    count = rows.data.shape[0]
    turned = [op for op in ops if op.takes_alpha]
    if not turned:
        with torch.no_grad():
            return pull_back(network, tensor, rows, fixed).minimum(*box).squeeze(1)
    # float32 looks for the slopes; the bound that counts is one pass in the precision of the box
    short = Coefficients(rows.data.float(), rows.window)
    short_box = (box[0].float(), box[1].float())
    ends = {name: (l.float(), u.float()) for name, (l, u) in intervals.items()}
    names = {op.output for op in turned}
    still = {name: _relax(network, name, ends[name], None) for name in fixed if name not in names}
    alphas = {}
    for op in turned:
        l, u = ends[op.output]
        alphas[op.output] = (u > -l).to(l.dtype).expand(count, *l.shape[1:]).clone().requires_grad_()
    free = list(alphas.values())
    chosen = [a.detach().clone() for a in free]
    best = torch.full((count,), -torch.inf, device=short.data.device)
    adam = Adam(free, [rate] * len(free), decay=0.98)
    for step in range(steps + 1):
        with torch.enable_grad():
            found = {n: _relax(network, n, ends[n], alphas[n]) for n in alphas}
            value = pull_back(network, tensor, short, {**still, **found}).minimum(*short_box).squeeze(1)
        up = value.detach() > best
        best = torch.where(up, value.detach(), best)
        for kept, now in zip(chosen, free, strict=True):
            kept.copy_(torch.where(up.reshape(-1, *[1] * (now.dim() - 1)), now.detach(), kept))
        if step == steps:
            break
        adam.step(torch.autograd.grad(-value.sum(), free, allow_unused=True))
        with torch.no_grad():
            for a in free:
                a.clamp_(0, 1)
    with torch.no_grad():
        exact = dict(fixed)
        for op, alpha in zip(turned, chosen, strict=True):
            exact[op.output] = _relax(network, op.output, intervals[op.output], alpha.to(box[0].dtype))
        return pull_back(network, tensor, rows, exact).minimum(*box).squeeze(1)


def _relax(network: Network, name: str, box: Box, alpha: Tensor | None) -> Relaxation:
    """The relaxation of the activation that writes `name`, one domain per row of `alpha`."""
    op = network.producers[name]
    assert isinstance(op, Nonlinear)
    return op.relax(box[0], box[1], "crown", alpha)
