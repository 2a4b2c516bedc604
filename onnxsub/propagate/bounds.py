"""Bounds of every pre-activation over a box of inputs: `ibp`, `fastlin`, `fastlin-ibp`, `crown`.

`alpha-crown` starts from `crown` and lives in `alpha.py`.

| method | lower line of an unstable ReLU | intersected with intervals | source |
|---|---|---|---|
| `ibp` | | | Gowal et al. 2018 |
| `fastlin` | u/(u-l), parallel to the upper one | no | Weng et al. 2018 |
| `fastlin-ibp` | likewise | yes, per unit: the reference method | |
| `crown` | 0 or 1, whichever gives the smaller relaxation | yes | Zhang et al. 2018 |

Rounding: bounds are computed in float64 unless asked otherwise and widened by `slack` (`rounding.py`), which is relative to each
unit's own scale. float32 bounds serve for ranking only and prove nothing. An end that is not finite is no bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.device import ieee_float32
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Affine, Array, Box, Nonlinear, Operator
from onnxsub.ops.relaxation import Relaxation
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.propagate.backward import flattened
from onnxsub.propagate.chunks import MEMORY
from onnxsub.propagate.known import Known
from onnxsub.propagate.linear import linear_range, per_domain, row_range
from onnxsub.propagate.rounding import Scales, absolute_product, after, settled, slack

__all__ = ["METHODS", "Bounds", "compute_bounds", "linear_range", "margin_bounds", "per_domain", "slack"]

METHODS = ("ibp", "fastlin", "fastlin-ibp", "crown", "alpha-crown")


@dataclass(frozen=True)
class _Kind:
    """What a method does.

    Attributes:
        mode: of `Nonlinear.relax`; None: intervals only.
        intersect: whether linear bounds are intersected with the intervals.
    """

    mode: str | None
    intersect: bool = True


_KINDS: Mapping[str, _Kind] = {
    "ibp": _Kind(None),
    "fastlin": _Kind("fastlin", intersect=False),
    "fastlin-ibp": _Kind("fastlin"),
    "crown": _Kind("crown"),
    "alpha-crown": _Kind("crown"),
}


def _kind(method: str) -> _Kind:
    if method not in METHODS:
        raise ValueError(f"unknown bounds method {method!r}; choose one of {', '.join(METHODS)}")
    if method not in _KINDS:
        raise NotImplementedError(f"bounds method {method!r} is in METHODS but has no implementation; add it to _KINDS")
    return _KINDS[method]


@dataclass(frozen=True, eq=False)
class Bounds:
    """Intervals over one or more boxes of inputs.

    Attributes:
        lower, upper: the boxes, `(B, *input_shape)`.
        pre: input interval of every non-linear operator, by the name of the tensor it writes: `(B, *in_shape)` each.
        output: interval of the network's output, `(B, classes)`.
        relaxations: linear bounds of the non-linear operators on these intervals, by the same names; empty for `ibp`.
        method: as asked for.
        scales: of all tensors (`rounding.py`).
    """

    lower: Tensor
    upper: Tensor
    pre: Mapping[str, Box]
    output: Box
    relaxations: Mapping[str, Relaxation]
    method: str
    scales: Scales

    def arrays(self, name: str) -> tuple[Array, Array]:
        """The interval of one operator's input over the first box, flattened, float64."""
        l, u = self.pre[name]
        return l[0].reshape(-1).double().cpu().numpy(), u[0].reshape(-1).double().cpu().numpy()

    def on_cpu(self, network: Network) -> Bounds:
        """The same on the processor; the lines are drawn anew on the same intervals."""
        if self.lower.device.type == "cpu":
            return self
        lower, upper, low, high = (t.cpu() for t in (self.lower, self.upper, *self.output))
        pre = {name: (l.cpu(), u.cpu()) for name, (l, u) in self.pre.items()}
        mode = _kind(self.method).mode or "crown"
        relaxations = {op.output: op.relax(*pre[op.output], mode) for op in network.nonlinear if op.output in self.relaxations}
        scales = Scales({name: s.cpu() for name, s in self.scales.items()})
        return Bounds(lower, upper, pre, (low, high), relaxations, self.method, scales)


def compute_bounds(
    network: Network,
    lower: Array | Tensor,
    upper: Array | Tensor,
    method: str = "crown",
    *,
    dtype: torch.dtype = torch.float64,
    units: Mapping[str, Tensor] | None = None,
    only_unstable: bool = False,
    output: bool = True,
    memory: int = MEMORY,
    steps: int = 20,
    within: Mapping[str, Box] | None = None,
    budget: Budget | None = None,
) -> Bounds:
    """Intervals of all pre-activations and of the output over boxes of inputs.

    Args:
        lower, upper: `(*input_shape)` for one box or `(B, *input_shape)`; tensors are bounded on their device.
        method: see the module.
        units: flat positions whose linear bounds are wanted, by the name of the tensor that the operator writes; the others
            keep their interval bounds. Default: all.
        only_unstable: leave units that intervals prove stable at their interval.
        output: whether the output is bounded linearly too.
        memory: bytes for the coefficients of one chunk of rows.
        steps: gradient steps per layer of `alpha-crown`.
        within: intervals of pre-activations that hold already, by the tensor that the operator writes, `(B, *in_shape)`; not for
            `alpha-crown`.
        budget: looked at per operator, per chunk of rows and per gradient step.

    Raises:
        ValueError: unknown method.
        NotImplementedError: a method that METHODS names and nothing implements.
        UnsupportedOperatorError: an operator has no linear bounds.
        OutOfTime: the budget ended.
    """
    kind = _kind(method)
    lo, hi = _boxes(network, lower, dtype), _boxes(network, upper, dtype)
    if method == "alpha-crown":
        from onnxsub.propagate.alpha import optimised_bounds

        with ieee_float32(lo.device):
            return optimised_bounds(
                network, lo, hi, units=units, only_unstable=only_unstable, memory=memory, steps=steps, budget=budget
            )
    with torch.no_grad(), ieee_float32(lo.device):
        return _propagate(network, lo, hi, method, kind, units, only_unstable, output, memory, within or {}, budget)


def _boxes(network: Network, x: Array | Tensor, dtype: torch.dtype) -> Tensor:
    t = (x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))).to(dtype)  # anchors are not writable, torch wants that
    return t.unsqueeze(0) if t.dim() == len(network.input_shape) else t


def _propagate(
    network: Network,
    lower: Tensor,
    upper: Tensor,
    method: str,
    kind: _Kind,
    units: Mapping[str, Tensor] | None,
    only_unstable: bool,
    output: bool,
    memory: int,
    within: Mapping[str, Box],
    budget: Budget | None,
) -> Bounds:
    boxes: dict[str, Box] = {network.input: (lower, upper)}
    scales = Scales({network.input: torch.maximum(lower.abs(), upper.abs())})
    known = Known(network)
    pre: dict[str, Box] = {}
    relaxations: dict[str, Relaxation] = {}
    for op in network.ops:
        if "interval" in op.unsupported:
            raise op.missing("interval")
        if budget is not None:
            budget.check()
        if isinstance(op, Nonlinear):
            name = op.inputs[0]
            if op.output in within:
                (l, u), (low, high) = boxes[name], within[op.output]
                boxes[name] = torch.maximum(l, low), torch.minimum(u, high)
            if kind.mode is not None:
                wanted = known.left(name, _wanted(op, boxes[name], units, only_unstable))
                if len(wanted):
                    found = linear_range(network, name, wanted, relaxations, lower, upper, memory, scales=scales, budget=budget)
                    boxes[name] = _merge(boxes[name], wanted, found, intersect=kind.intersect)
                    known.bounded(name, wanted)
            pre[op.output] = boxes[name]
            if kind.mode is not None:
                relaxations[op.output] = op.relax(*boxes[name], kind.mode)
            if isinstance(op, Activation):
                known.image(op.output)
        elif isinstance(op, Affine):
            known.affine(op)
        boxes[op.output], scales[op.output] = _step(op, [boxes[n] for n in op.inputs], [scales[n] for n in op.inputs])
    name = network.output
    if output and kind.mode is not None and not known.exact(name):
        everything = torch.arange(network.classes, device=lower.device)
        found = linear_range(network, name, everything, relaxations, lower, upper, memory, scales=scales, budget=budget)
        boxes[name] = _merge(boxes[name], everything, found, intersect=kind.intersect)
    l, u = boxes[name]
    return Bounds(lower, upper, pre, (flattened(l, 1), flattened(u, 1)), relaxations, method, scales)


def _step(op: Operator, read: list[Box], scales: list[Tensor]) -> tuple[Box, Tensor]:
    """Interval and scale of what an operator writes; affine operators round, so their ends move outward."""
    (l, u), scale = after(op, read, scales)
    if not isinstance(op, Affine):
        return (l, u), scale
    s = slack(l, u, scale)
    return settled(l - s, u + s), scale


def _wanted(op: Nonlinear, box: Box, units: Mapping[str, Tensor] | None, only_unstable: bool) -> Tensor:
    index = torch.arange(box[0][0].numel()) if units is None or op.output not in units else units[op.output]
    index = index.to(box[0].device)
    if isinstance(op, SubstitutedMax) and (units is None or op.output not in units):
        index = torch.from_numpy(op.read).to(index)  # no other input's interval matters
    if only_unstable and isinstance(op, Activation) and len(index):
        stable = flattened(op.affine_on(*box), 1).all(0)
        index = index[~stable[index]]
    return index


def _merge(box: Box, index: Tensor, found: Box, *, intersect: bool) -> Box:
    found = settled(*found)
    l, u = flattened(box[0], 1).clone(), flattened(box[1], 1).clone()
    if intersect:
        l[:, index] = torch.maximum(l[:, index], found[0])
        u[:, index] = torch.minimum(u[:, index], found[1])
    else:
        l[:, index], u[:, index] = found
    return l.reshape(box[0].shape), u.reshape(box[1].shape)


def margin_bounds(network: Network, bounds: Bounds, rows: Array | Tensor, *, budget: Budget | None = None) -> Box:
    """Bounds of `rows @ logits` over the boxes of `bounds`: rows `(m, classes)`, result `(B, m)` each.

    Bounding a difference of logits directly is tighter than subtracting their intervals. An end that is infinite is no bound.

    Raises:
        OutOfTime: the budget ended.
    """
    l, u = bounds.output
    c = torch.as_tensor(rows).to(l)
    with torch.no_grad(), ieee_float32(c.device):
        scale = absolute_product(c, flattened(bounds.scales[network.output], 1))
        up, down = c.clamp(min=0), (-c).clamp(min=0)
        low, high = _product(l, up) - _product(u, down), _product(u, up) - _product(l, down)
        low, high = settled(low, high)  # no slack: the ends of the logits have room for more than a product rounds
        if bounds.relaxations or not network.nonlinear:
            whole = c.reshape(c.shape[0], *network.output_shape)
            found = row_range(
                network, network.output, whole, scale, bounds.relaxations, bounds.lower, bounds.upper,
                scales=bounds.scales, budget=budget,
            )  # fmt: skip
            low, high = torch.maximum(low, found[0]), torch.minimum(high, found[1])
    return low, high


def _product(ends: Tensor, rows: Tensor) -> Tensor:
    """`ends @ rows^T` for `rows >= 0`, with `0 * inf = 0`: `(B, m)`."""
    finite = torch.isfinite(ends)
    if bool(finite.all()):
        return ends @ rows.T
    lost = (~finite).to(rows) @ (rows > 0).to(rows).T > 0
    # of one kind in one call: lower ends are -inf where they are none, upper ones +inf
    sign = torch.where(finite, 0.0, ends).sum()
    return (torch.where(finite, ends, 0.0) @ rows.T).masked_fill(lost, float(sign))
