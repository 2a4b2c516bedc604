r"""Bounds that hold where a target is reached: over `B(r)` cut by `f_t >= f_y`.

A MILP about target t only needs its pre-activation bounds at points with `f_t >= f_y`. The backward pass gives a linear upper
bound `f_t - f_y <= c.x + k`, so all these points lie in the half-space `c.x + k >= 0`. A linear function over a box cut by
a half-space is bounded exactly by one multiplier:

    min { a.x : x in box, c.x + k >= 0 } = max_{v >= 0}  min_{x in box} (a - v c).x - v k,

where every v gives a valid bound. Tighter intervals give tighter lines, hence a tighter half-space, and so on until
nothing moves. Near the boundary, where a MILP is asked, most units turn out to be stable (Kotha et al. 2023 use the same
duality to bound the inputs of a network from its outputs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Activation, Box, Nonlinear
from onnxsub.ops.relaxation import Relaxation
from onnxsub.propagate import Bounds, Coefficients, pull_back
from onnxsub.propagate.backward import flattened
from onnxsub.propagate.halfspace import cut_minimum
from onnxsub.propagate.rounding import slack as widening

__all__ = ["GAIN", "MOST_UNITS", "Tightened", "no_sliver", "tighten"]

MOST_UNITS = 2000
"""Networks with more unstable units than this are left as they are: one pass would cost more than it saves."""

GAIN = 0.01
"""A pass that narrows the total width by less than this share is the last."""

_PASSES = 40
_NARROWEST = 1e-5
_CHUNK = 2**22  # values of one block of rows


@dataclass(frozen=True, eq=False)
class HalfSpace:
    """`c.x + k >= 0` over the flat input."""

    c: Tensor
    k: float


@dataclass(frozen=True, eq=False)
class Tightened:
    """What holds for every x of the box with `f_t - f_y >= -slack`.

    Attributes:
        lower, upper: of the input, `(*input_shape)`.
        pre: input intervals of the non-linear operators, flattened.
        margin: upper bound of `f_t - f_y`; below `-slack` there is no such x.
    """

    lower: Tensor
    upper: Tensor
    pre: dict[str, tuple[Tensor, Tensor]]
    margin: float


def tighten(
    network: Network,
    bounds: Bounds,
    target: int,
    label: int,
    slack: float,
    stop: Callable[[], bool] | None = None,
    gain: float = GAIN,
) -> Tightened | None:
    """Intervals for the points of the box of `bounds` with `f_t - f_y >= -slack`; None: there is no such point.

    Args:
        network: the one that `bounds` speak of, best in its folded form.
        stop: asked between blocks of rows; True ends the work with what is proved so far.
        gain: share of the total width that a pass must bring for another one to follow.
    """
    with torch.no_grad():
        return _Tightening(network, bounds, target, label, slack).run(stop, gain)


class _Tightening:
    def __init__(self, network: Network, bounds: Bounds, target: int, label: int, slack: float) -> None:
        self.network = network
        self.slack = slack
        self.scales = bounds.scales
        self.lower, self.upper = (b[0].double().flatten().clone() for b in (bounds.lower, bounds.upper))
        self.pre: dict[str, Box] = {name: (l.double().clone(), u.double().clone()) for name, (l, u) in bounds.pre.items()}
        self.start, self.start_pre = (self.lower, self.upper), dict(self.pre)
        self.relaxations: dict[str, Relaxation] = {}
        for op in network.nonlinear:
            self.relaxations[op.output] = op.relax(*self.pre[op.output], "crown")
        row = torch.zeros((1, 1, network.classes), dtype=torch.float64)
        row[..., target], row[..., label] = 1.0, -1.0
        self.row = row.reshape(1, 1, *network.output_shape)
        scale = flattened(self.scales[network.output], 1)[0].double()
        self.terms = float(scale[target] + scale[label])
        self.margin = float("inf")
        self.cuts: list[HalfSpace] = []

    def run(self, stop: Callable[[], bool] | None, gain: float) -> Tightened | None:
        width = self._width()
        for _ in range(_PASSES):
            self._cut()
            if self.margin < -self.slack or not self._shrink_box():
                return None
            if not all(self._units(op, stop) for op in self.network.nonlinear):
                return None
            before, width = width, self._width()
            if width > (1 - gain) * before or (stop is not None and stop()):
                break
        shape = self.network.input_shape
        lower, upper = no_sliver((self.lower, self.upper), self.start)
        flat = {}
        for name, ends in self.pre.items():
            l, u = no_sliver(ends, self.start_pre[name])
            flat[name] = l.flatten(), u.flatten()
        return Tightened(lower.reshape(shape), upper.reshape(shape), flat, self.margin)

    def _width(self) -> float:
        total = 0.0
        for op in self.network.nonlinear:
            l, u = self.pre[op.output]
            open_ = ~op.affine_on(l, u) if isinstance(op, Activation) else torch.ones_like(l, dtype=torch.bool)
            total += float((u - l)[open_].sum())
        return total

    def _cut(self) -> None:
        """The half-space of the present relaxations; the two latest are kept, since a change of slopes may loosen one."""
        a, b = self._linear(self.network.output, -self.row)
        c, k = -a[0], -float(b[0])
        room = float(torch.where(c > 0, c * self.upper, c * self.lower).sum()) + k
        # relative to what was summed: neither the scale of the logits nor that of a layer may count
        size = float((c.abs() * torch.maximum(self.lower.abs(), self.upper.abs())).sum()) + abs(k) + self.terms
        rounded = 1e-9 * (abs(room) + 0.1 * size) + 1e-300
        self.margin = min(self.margin, room + rounded)
        self.cuts = [HalfSpace(c, k + self.slack + rounded), *self.cuts[:1]]

    def _shrink_box(self) -> bool:
        """Moves the ends of every input to where the half-spaces are still reached; False: nothing is left."""
        for cut in self.cuts:
            room = float(torch.where(cut.c > 0, cut.c * self.upper, cut.c * self.lower).sum()) + cut.k
            if room < 0:
                return False
            reach = room / cut.c.abs().clamp(min=1e-300)
            rounded = 1e-12 * torch.maximum(self.lower.abs(), self.upper.abs()) + 1e-300
            up, down = cut.c > 0, cut.c < 0
            self.lower = torch.where(up, torch.maximum(self.lower, self.upper - reach - rounded), self.lower)
            self.upper = torch.where(down, torch.minimum(self.upper, self.lower + reach + rounded), self.upper)
        return True

    def _units(self, op: Nonlinear, stop: Callable[[], bool] | None) -> bool:
        """Tightens the units of one operator; False: an interval became empty, so there is no such point."""
        l, u = (t.flatten().clone() for t in self.pre[op.output])
        index = torch.arange(len(l))
        if isinstance(op, Activation):
            index = index[~op.affine_on(*self.pre[op.output]).flatten()]
        if len(index) == 0:
            return True
        rows = max(1, _CHUNK // len(self.lower))
        scale = self.scales[op.inputs[0]][0].double().flatten()
        for part in torch.split(index, rows):
            if stop is not None and stop():
                break
            start = torch.zeros((1, len(part), len(l)), dtype=torch.float64)
            start[0, torch.arange(len(part)), part] = 1.0
            start = start.reshape(1, len(part), *op.in_shapes[0])
            for sign in (1.0, -1.0):
                a, b = self._linear(op.inputs[0], sign * start)
                found = torch.stack([self._minimum(a, b, cut) for cut in self.cuts]).amax(0)
                found = found - widening(found, found, scale[part])
                if sign > 0:
                    l[part] = torch.maximum(l[part], found)
                else:
                    u[part] = torch.minimum(u[part], -found)
        if (l > u).any():
            return False
        shape = (1, *op.in_shapes[0])
        self.pre[op.output] = l.reshape(shape), u.reshape(shape)
        self.relaxations[op.output] = op.relax(*self.pre[op.output], "crown")
        return True

    def _minimum(self, a: Tensor, b: Tensor, cut: HalfSpace) -> Tensor:
        k = torch.tensor([cut.k], dtype=torch.float64)
        return cut_minimum(a[None], b[None], cut.c[None], k, self.lower[None], self.upper[None])[0]

    def _linear(self, tensor: str, start: Tensor) -> tuple[Tensor, Tensor]:
        """`a.x + b <= start . tensor`: `(rows, inputs)` and `(rows,)`."""
        bound = pull_back(self.network, tensor, Coefficients(start), self.relaxations)
        return bound.coefficients.full(self.network.input_shape)[0].flatten(1), bound.lower_bias[0]


def no_sliver(ends: Box, before: Box) -> Box:
    """`ends`, nowhere narrower than a small share of `before`: solvers lose their footing in slivers (docs/soundness.md)."""
    short = (_NARROWEST * (before[1] - before[0]) - (ends[1] - ends[0])).clamp(min=0) / 2
    short = short.nan_to_num(nan=0.0, posinf=0.0)  # next to an infinite end nothing is narrow
    return torch.maximum(ends[0] - short, before[0]), torch.minimum(ends[1] + short, before[1])
