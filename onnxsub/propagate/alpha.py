r"""`alpha-crown`: CROWN bounds whose lower slopes are optimised (Xu et al. 2021, "Fast and Complete", eq. 9).

Any lower slope `alpha` in [0, 1] of an unstable ReLU gives a sound bound, so gradient steps may look for the one that makes
each bound tightest. Every row (unit and end) has slopes of its own: rows are handled as domains, so that the slopes of
one row are one `(*shape)` tensor. The best bound seen per row is kept, never worse than CROWN.

The search divides every row by a power of two near its scale (`rounding.py`) and looks at the balanced network (`balance.py`),
so that neither float32 nor Adam sees how large anything is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Affine, Box, Nonlinear
from onnxsub.ops.relaxation import Relaxation
from onnxsub.propagate.adam import Adam
from onnxsub.propagate.backward import Coefficients, flattened, pull_back, terms
from onnxsub.propagate.balance import balancing, scaled
from onnxsub.propagate.bounds import Bounds, compute_bounds
from onnxsub.propagate.chunks import MEMORY
from onnxsub.propagate.linear import linear_range
from onnxsub.propagate.rounding import Scales, absolute_product, scales_of, settled, slack

__all__ = ["optimised_bounds", "optimised_minimum"]

_STEP_WORK = 2**30
"""Products of the rows of one gradient step on their way back."""


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
    budget: Budget | None = None,
) -> Bounds:
    """Bounds by alpha-CROWN: layer by layer, each on the tightened intervals of the layers before.

    Args:
        steps: gradient steps per layer.
        rate: first step size of Adam; it decays by 0.98 per step.
        budget: looked at per step and per operator.

    Raises:
        OutOfTime: the budget ended.
    """
    with torch.no_grad():
        base = compute_bounds(
            network, lower, upper, "crown", dtype=lower.dtype, units=units, only_unstable=only_unstable, memory=memory,
            budget=budget,
        )  # fmt: skip
        if not base.relaxations:
            return base
    search = _Search(network, base.scales, steps, rate, memory, budget)
    pre: dict[str, Box] = {}
    relaxations: dict[str, Relaxation] = {}
    boxes: dict[str, Box] = {}
    for op in network.nonlinear:
        box = base.pre[op.output]
        name = op.inputs[0]
        if name in boxes:
            box = boxes[name]
        elif isinstance(op, Activation) and any(isinstance(o, Activation) for o in network.ancestors(name)):
            box = _refine(network, op, box, pre, relaxations, lower, upper, units, search)
        boxes[name] = pre[op.output] = box
        relaxations[op.output] = op.relax(*box, "crown")
    l, u = base.output
    if any(isinstance(o, Activation) for o in network.ancestors(network.output)):
        index = torch.arange(network.classes, device=lower.device)
        with torch.no_grad():
            found = linear_range(
                network, network.output, index, relaxations, lower, upper, memory, scales=base.scales, budget=budget
            )
        l, u = torch.maximum(l, found[0]), torch.minimum(u, found[1])
        rows = torch.eye(network.classes, dtype=lower.dtype, device=lower.device).reshape(1, network.classes, *network.output_shape)
        low = search.minimum(network.output, Coefficients(rows), pre, relaxations, lower, upper)
        high = -search.minimum(network.output, Coefficients(-rows), pre, relaxations, lower, upper)
        l, u = torch.maximum(l, low), torch.minimum(u, high)
    return Bounds(lower, upper, pre, (l, u), relaxations, "alpha-crown", base.scales)


def _refine(
    network: Network,
    op: Nonlinear,
    box: Box,
    pre: Mapping[str, Box],
    relaxations: Mapping[str, Relaxation],
    lower: Tensor,
    upper: Tensor,
    units: Mapping[str, Tensor] | None,
    search: _Search,
) -> Box:
    """The interval of one activation's input, its unstable units tightened."""
    l, u = flattened(box[0], 1).clone(), flattened(box[1], 1).clone()
    wanted = torch.arange(l.shape[1]) if units is None or op.output not in units else units[op.output]
    wanted = wanted.to(l.device)
    with torch.no_grad():  # the layers before are tighter than when `base` was computed
        found = None
        if len(wanted):
            found = linear_range(
                network, op.inputs[0], wanted, relaxations, lower, upper, search.memory, scales=search.scales, budget=search.budget
            )
    if found is not None:
        l[:, wanted] = torch.maximum(l[:, wanted], found[0])
        u[:, wanted] = torch.minimum(u[:, wanted], found[1])
    assert isinstance(op, Activation)
    unstable = ~op.affine_on(l.reshape(box[0].shape), u.reshape(box[1].shape))
    unstable = flattened(unstable, 1).any(0)
    index = wanted[unstable[wanted]]
    step = max(1, search.memory // (4 * l.shape[1] * l.element_size()))
    for part in torch.split(index, step) if len(index) else ():
        rows = torch.zeros((1, len(part), l.shape[1]), dtype=l.dtype, device=l.device)
        rows[0, torch.arange(len(part), device=l.device), part] = 1.0
        start = Coefficients(rows.reshape(1, len(part), *op.in_shapes[0]))
        low = search.minimum(op.inputs[0], start, pre, relaxations, lower, upper)
        high = -search.minimum(op.inputs[0], Coefficients(-start.data), pre, relaxations, lower, upper)
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
    scales: Scales | None = None,
    budget: Budget | None = None,
) -> Tensor:
    """Lower bounds of the rows `start` `(1, R, *shape)` of a tensor over the boxes, by optimised slopes: `(B, R)`.

    Args:
        scales: of all tensors up to this one; None: by plain intervals.
        budget: looked at per step and per operator.

    Raises:
        OutOfTime: the budget ended.
    """
    scales = scales_of(network, lower, upper) if scales is None else scales
    return _Search(network, scales, steps, rate, memory, budget).minimum(tensor, start, pre, relaxations, lower, upper)


@dataclass(frozen=True, eq=False)
class _Search:
    """How slopes of a network's bounds are looked for."""

    network: Network
    scales: Scales
    steps: int
    rate: float
    memory: int
    budget: Budget | None

    @cached_property
    def units(self) -> dict[str, int]:
        return balancing(self.network, self.scales)

    @cached_property
    def balanced(self) -> Network:
        return scaled(self.network, self.units) if self.units else self.network

    def minimum(
        self,
        tensor: str,
        start: Coefficients,
        pre: Mapping[str, Box],
        relaxations: Mapping[str, Relaxation],
        lower: Tensor,
        upper: Tensor,
    ) -> Tensor:
        """`optimised_minimum`."""
        network, domains, count = self.network, lower.shape[0], start.data.shape[1]
        best = lower.new_full((domains, count), -torch.inf)
        passed = torch.zeros_like(best)
        before = network.ancestors(tensor)
        ops = [o for o in before if isinstance(o, Activation)]
        names = [o.output for o in before if isinstance(o, Nonlinear)]
        size = absolute_product(flattened(start.data[0], 1), flattened(self.scales[tensor], 1))
        widest = max(math.prod(s) for s in (network.input_shape, *(o.out_shape for o in before)))
        work = sum(o.out_size * terms(o) for o in before if isinstance(o, Affine))
        # a gradient step, which cannot be interrupted, takes about 0.2 s at most
        limit = max(1, min(self.memory // (8 * widest * lower.element_size() * max(1, len(ops))), _STEP_WORK // max(1, work)))
        for b in range(domains):
            box = (lower[b : b + 1], upper[b : b + 1])
            intervals = {name: (pre[name][0][b : b + 1], pre[name][1][b : b + 1]) for name in names}
            fixed = {name: _relax(network, name, intervals[name], None) for name in names}
            own = {n: s[b : b + 1] for n, s in self.scales.finite.items()}
            for rows in torch.split(torch.arange(count, device=lower.device), limit):
                a = Coefficients(start.data[0, rows].unsqueeze(1))
                best[b, rows], passed[b, rows] = self._optimise(tensor, a, size[b, rows], ops, intervals, fixed, own, box)
        return settled(best - slack(best, best, size, passed, largest=self.scales.largest), best)[0]

    def _optimise(
        self,
        tensor: str,
        rows: Coefficients,
        size: Tensor,
        ops: list[Activation],
        intervals: Mapping[str, Box],
        fixed: Mapping[str, Relaxation],
        scales: Mapping[str, Tensor],
        box: Box,
    ) -> tuple[Tensor, Tensor]:
        """The best bound of every row `(R, 1, *shape)` of size `(R,)`, and what its slack needs: `(R,)` each."""
        exact = dict(fixed)
        turned = [op for op in ops if op.takes_alpha]
        if turned:
            exact |= self._slopes(tensor, rows, size, turned, intervals, box)
        with torch.no_grad():
            bound = pull_back(self.network, tensor, rows, exact, scales=scales, budget=self.budget)
            assert bound.passed is not None  # scales were given
            return bound.minimum(*box).squeeze(1), bound.passed.squeeze(1)

    def _slopes(
        self,
        tensor: str,
        rows: Coefficients,
        size: Tensor,
        turned: list[Activation],
        intervals: Mapping[str, Box],
        box: Box,
    ) -> dict[str, Relaxation]:
        """The relaxations of the activations whose slopes were looked for, one domain per row."""
        count = rows.data.shape[0]
        # float32 looks for the slopes; the bound that counts is one pass in the precision of the box
        shift = torch.where(torch.isfinite(size) & (size > 0), torch.frexp(size).exponent, 0) + self.units.get(tensor, 0)
        ordinary = torch.ldexp(rows.data, -shift.reshape(-1, *[1] * (rows.data.dim() - 1)))
        short = Coefficients(ordinary.float(), rows.window)
        short_box = (box[0].float(), box[1].float())
        ends = {}
        for name, interval in intervals.items():
            unit = torch.tensor(self.units.get(self.network.producers[name].inputs[0], 0), device=shift.device)
            ends[name] = torch.ldexp(interval[0], unit).float(), torch.ldexp(interval[1], unit).float()
        names = {op.output for op in turned}
        still = {name: _relax(self.balanced, name, ends[name], None) for name in ends if name not in names}
        alphas = {}
        for op in turned:
            l, u = ends[op.output]
            alphas[op.output] = (u > -l).to(l.dtype).expand(count, *l.shape[1:]).clone().requires_grad_()
        free = list(alphas.values())
        chosen = [a.detach().clone() for a in free]
        best = torch.full((count,), -torch.inf, device=short.data.device)
        adam = Adam(free, [self.rate] * len(free), decay=0.98)
        for step in range(self.steps + 1):
            with torch.enable_grad():
                found = {n: _relax(self.balanced, n, ends[n], alphas[n]) for n in alphas}
                bound = pull_back(self.balanced, tensor, short, {**still, **found}, budget=self.budget)
                value = bound.minimum(*short_box).squeeze(1)
            up = value.detach() > best
            best = torch.where(up, value.detach(), best)
            for kept, now in zip(chosen, free, strict=True):
                kept.copy_(torch.where(up.reshape(-1, *[1] * (now.dim() - 1)), now.detach(), kept))
            if step == self.steps:
                break
            adam.step(torch.autograd.grad(-value.sum(), free, allow_unused=True))
            with torch.no_grad():
                for a in free:
                    # a gradient that is not finite must not make the slope so
                    a.nan_to_num_(0.5).clamp_(0, 1)
        dtype = box[0].dtype
        return {
            op.output: _relax(self.network, op.output, intervals[op.output], alpha.to(dtype))
            for op, alpha in zip(turned, chosen, strict=True)
        }


def _relax(network: Network, name: str, box: Box, alpha: Tensor | None) -> Relaxation:
    """The relaxation of the activation that writes `name`, one domain per row of `alpha`."""
    op = network.producers[name]
    assert isinstance(op, Nonlinear)
    return op.relax(box[0], box[1], "crown", alpha)
