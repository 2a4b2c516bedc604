"""Bounds of every pre-activation over a box of inputs: `ibp`, `fastlin`, `fastlin-ibp`, `crown`.

`alpha-crown` starts from `crown` and lives in `alpha.py`.

| method | lower line of an unstable ReLU | intersected with intervals | source |
|---|---|---|---|
| `ibp` | | | Gowal et al. 2018 |
| `fastlin` | u/(u-l), parallel to the upper one | no | Weng et al. 2018 |
| `fastlin-ibp` | likewise | yes, per unit: the reference method | |
| `crown` | 0 or 1, whichever gives the smaller relaxation | yes | Zhang et al. 2018 |

Rounding: bounds are computed in float64 unless asked otherwise and widened by `slack` (see there), which exceeds the
accumulated rounding of float64 by orders of magnitude. float32 bounds serve for ranking only and prove nothing.
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
from onnxsub.ops.base import Activation, Affine, Array, Box, Nonlinear
from onnxsub.ops.relaxation import Relaxation
from onnxsub.propagate.backward import Coefficients, flattened, pull_back
from onnxsub.propagate.chunks import MEMORY, row_chunks, unit_rows

__all__ = ["METHODS", "Bounds", "compute_bounds", "linear_range", "margin_bounds", "slack"]

METHODS = ("ibp", "fastlin", "fastlin-ibp", "crown", "alpha-crown")


@dataclass(frozen=True, eq=False)
class Bounds:
    """Intervals over one or more boxes of inputs.

    Attributes:
        lower, upper: the boxes, `(B, *input_shape)`.
        pre: input interval of every non-linear operator, by the name of the tensor it writes: `(B, *in_shape)` each.
        output: interval of the network's output, `(B, classes)`.
        relaxations: linear bounds of the non-linear operators on these intervals, by the same names; empty for `ibp`.
        method: as asked for.
    """

    lower: Tensor
    upper: Tensor
    pre: Mapping[str, Box]
    output: Box
    relaxations: Mapping[str, Relaxation]
    method: str

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
        mode = "crown" if self.method.endswith("crown") else "fastlin"
        relaxations = {op.output: op.relax(*pre[op.output], mode) for op in network.nonlinear if op.output in self.relaxations}
        return Bounds(lower, upper, pre, (low, high), relaxations, self.method)


def slack(lower: Tensor, upper: Tensor) -> Tensor:
    """How far computed ends are moved outward: 1e-9 of their size plus 1e-10 in float64 (1e-5 and 1e-6 in float32)."""
    relative, absolute = (1e-9, 1e-10) if lower.dtype == torch.float64 else (1e-5, 1e-6)
    return relative * torch.maximum(lower.abs(), upper.abs()) + absolute


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

    Raises:
        ValueError: unknown method.
        UnsupportedOperatorError: an operator has no linear bounds.
    """
    if budget is not None:
        budget.check()
    if method not in METHODS:
        raise ValueError(f"unknown bounds method {method!r}; choose one of {', '.join(METHODS)}")
    lo, hi = _boxes(network, lower, dtype), _boxes(network, upper, dtype)
    if method == "alpha-crown":
        from onnxsub.propagate.alpha import optimised_bounds

        with ieee_float32(lo.device):
            return optimised_bounds(network, lo, hi, units=units, only_unstable=only_unstable, memory=memory, steps=steps)
    with torch.no_grad(), ieee_float32(lo.device):
        return _propagate(network, lo, hi, method, units, only_unstable, output, memory)


def _boxes(network: Network, x: Array | Tensor, dtype: torch.dtype) -> Tensor:
    t = (x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))).to(dtype)  # anchors are not writable, torch wants that
    return t.unsqueeze(0) if t.dim() == len(network.input_shape) else t


def _propagate(
    network: Network,
    lower: Tensor,
    upper: Tensor,
    method: str,
    units: Mapping[str, Tensor] | None,
    only_unstable: bool,
    output: bool,
    memory: int,
) -> Bounds:
    mode = "crown" if method == "crown" else "fastlin"
    boxes: dict[str, Box] = {network.input: (lower, upper)}
    exact = {network.input}  # tensors whose interval no linear bound can improve
    pre: dict[str, Box] = {}
    relaxations: dict[str, Relaxation] = {}
    for op in network.ops:
        if "interval" in op.unsupported:
            raise op.missing("interval")
        if isinstance(op, Nonlinear):
            name = op.inputs[0]
            if method != "ibp" and name not in exact:
                wanted = _wanted(op, boxes[name], units, only_unstable)
                if len(wanted):
                    found = linear_range(network, name, wanted, relaxations, lower, upper, memory)
                    boxes[name] = _merge(boxes[name], wanted, found, intersect=method != "fastlin")
            pre[op.output] = boxes[name]
            if method != "ibp":
                relaxations[op.output] = op.relax(*boxes[name], mode)
            if isinstance(op, Activation):
                exact.add(op.output)  # the image of an interval under one monotone piece after the other
        elif isinstance(op, Affine) and len(op.inputs) == 1 and _stays_exact(network, op, exact):
            exact.add(op.output)
        boxes[op.output] = _widen(op.interval(*[boxes[n] for n in op.inputs]), exact=not isinstance(op, Affine))
    name = network.output
    if output and method != "ibp" and name not in exact:
        everything = torch.arange(network.classes, device=lower.device)
        found = linear_range(network, name, everything, relaxations, lower, upper, memory)
        boxes[name] = _merge(boxes[name], everything, found, intersect=method != "fastlin")
    l, u = boxes[name]
    return Bounds(lower, upper, pre, (flattened(l, 1), flattened(u, 1)), relaxations, method)


def _stays_exact(network: Network, op: Affine, exact: set[str]) -> bool:
    """Interval arithmetic is exact for an affine image of a box: of the input itself, or by way of elementwise operators."""
    source = op.inputs[0]
    if source == network.input:
        return True
    if source not in exact:
        return False
    before = network.producers.get(source)
    # behind a mixing operator or an activation the elements depend on each other, so only elementwise steps keep exactness
    return not op.mixing or (isinstance(before, Affine) and not before.mixing and _only_elementwise(network, source))


def _only_elementwise(network: Network, tensor: str) -> bool:
    while tensor != network.input:
        op = network.producers[tensor]
        if not isinstance(op, Affine) or op.mixing or len(op.inputs) != 1:
            return False
        tensor = op.inputs[0]
    return True


def _widen(box: Box, exact: bool) -> Box:
    if exact:
        return box
    s = slack(*box)
    return box[0] - s, box[1] + s


def _wanted(op: Nonlinear, box: Box, units: Mapping[str, Tensor] | None, only_unstable: bool) -> Tensor:
    index = torch.arange(box[0][0].numel()) if units is None or op.output not in units else units[op.output]
    index = index.to(box[0].device)
    if only_unstable and isinstance(op, Activation) and len(index):
        stable = flattened(op.affine_on(*box), 1).all(0)
        index = index[~stable[index]]
    return index


def linear_range(
    network: Network,
    tensor: str,
    index: Tensor,
    relaxations: Mapping[str, Relaxation],
    lower: Tensor,
    upper: Tensor,
    memory: int = MEMORY,
) -> Box:
    """Linear bounds of the flat positions `index` of a tensor over the boxes: `(B, len(index))` each, in the order of `index`."""
    shape = network.shapes[tensor]
    parallel = all(relaxations[op.output].parallel for op in network.ancestors(tensor) if isinstance(op, Nonlinear))
    domains = lower.shape[0]
    lows = lower.new_empty((domains, len(index)))
    highs = torch.empty_like(lows)
    place = torch.empty(int(index.max()) + 1, dtype=torch.long, device=index.device)
    place[index] = torch.arange(len(index), device=index.device)
    for chunk in row_chunks(network, tensor, index, domains=domains, itemsize=lower.element_size(), memory=memory):
        rows = per_domain(network, tensor, unit_rows(chunk, shape, lower), relaxations, domains)
        where = place[chunk]
        if parallel:
            lows[:, where], highs[:, where] = pull_back(network, tensor, rows, relaxations, both=True).range(lower, upper)
        else:
            lows[:, where] = pull_back(network, tensor, rows, relaxations).minimum(lower, upper)
            negative = Coefficients(-rows.data, rows.window)
            highs[:, where] = -pull_back(network, tensor, negative, relaxations).minimum(lower, upper)
    s = slack(lows, highs)
    return lows - s, highs + s


def per_domain(
    network: Network, tensor: str, rows: Coefficients, relaxations: Mapping[str, Relaxation], domains: int
) -> Coefficients:
    """Rows that are common to all domains, stated for each one where a pooling before `tensor` picks other elements in each."""
    if domains == 1 or all(relaxations[op.output].windowed for op in network.ancestors(tensor) if isinstance(op, Nonlinear)):
        return rows
    return Coefficients(rows.data.expand(domains, *rows.data.shape[1:]), rows.window)


def _merge(box: Box, index: Tensor, found: Box, *, intersect: bool) -> Box:
    l, u = flattened(box[0], 1).clone(), flattened(box[1], 1).clone()
    if intersect:
        l[:, index] = torch.maximum(l[:, index], found[0])
        u[:, index] = torch.minimum(u[:, index], found[1])
    else:
        l[:, index], u[:, index] = found
    return l.reshape(box[0].shape), u.reshape(box[1].shape)


def margin_bounds(network: Network, bounds: Bounds, rows: Array | Tensor) -> Box:
    """Bounds of `rows @ logits` over the boxes of `bounds`: rows `(m, classes)`, result `(B, m)` each.

    Bounding a difference of logits directly is tighter than subtracting their intervals.
    """
    l, u = bounds.output
    c = torch.as_tensor(rows).to(l)
    positive, negative = c.clamp(min=0), c.clamp(max=0)
    low, high = l @ positive.T + u @ negative.T, u @ positive.T + l @ negative.T
    if bounds.relaxations or not network.nonlinear:
        whole = Coefficients(c.reshape(1, c.shape[0], *network.output_shape))
        start = per_domain(network, network.output, whole, bounds.relaxations, bounds.lower.shape[0])
        with torch.no_grad(), ieee_float32(c.device):
            a = pull_back(network, network.output, start, bounds.relaxations).minimum(bounds.lower, bounds.upper)
            b = -pull_back(network, network.output, Coefficients(-start.data), bounds.relaxations).minimum(
                bounds.lower, bounds.upper
            )
        s = slack(a, b)
        low, high = torch.maximum(low, a - s), torch.minimum(high, b + s)
    return low, high
