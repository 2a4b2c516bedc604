r"""Where a node is split: scores that cost nothing, then a look at both children of the best few.

The lines of an unstable unit lose `|a| (upper line - s)` or `|a| (s - lower line)` at the point where the node's bound is
attained, with a the coefficient of the backward pass; BaBSR (Bunel et al. 2020) takes the height of the upper line instead of the
loss at a point. The best candidates of both scores are tried: both children are bounded once with the parent's slopes and
multipliers, and the split whose worse child is best is made (filtered smart branching, De Palma et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.device import ieee_float32
from onnxsub.ops.base import Activation
from onnxsub.ops.curve import Curve
from onnxsub.ops.relaxation import Elementwise
from onnxsub.ops.relu import Relu
from onnxsub.ops.splitting import Splittable
from onnxsub.propagate.backward import flattened
from onnxsub.verifiers.bab.bound import Bounded, Bounder
from onnxsub.verifiers.bab.line import farthest
from onnxsub.verifiers.bab.nodes import Nodes
from onnxsub.verifiers.bab.relu.bounder import ReluBounder
from onnxsub.verifiers.bab.relu.look import foremost, handed_on, looked_at

__all__ = ["Splits", "choose"]

_Place = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Number among all elements that may be split to operator and flat element."""

_INSIDE = 1e-6  # of the size of an interval's ends: how far inside a threshold other than 0 must lie
_TIE = 1e-3  # weight of the better child where the worse ones are alike


@dataclass(frozen=True, eq=False)
class Splits:
    """One split per node: number of the activation (-1 where nothing is left to split), flat unit, threshold: `(B,)` each.

    Attributes:
        push: the multipliers that upper and lower children begin with, `(2, B)`.
    """

    layer: Tensor
    unit: Tensor
    threshold: Tensor
    push: Tensor

    def children(self, nodes: Nodes, rows: Tensor) -> Nodes:
        """Both sides of the splits of some of the nodes."""
        return nodes.take(rows).children(self.layer[rows], self.unit[rows], self.threshold[rows], self.push[:, rows])


@dataclass(frozen=True, eq=False)
class _Scores:
    """Per unit of all activations, `(B, U)`; -1 where there is nothing to split."""

    height: Tensor
    loss: Tensor
    threshold: Tensor


def _scores(bounder: Bounder, found: Bounded) -> _Scores:
    frame, nodes = bounder.frame, found.nodes
    heights: list[Tensor] = []
    losses: list[Tensor] = []
    thresholds: list[Tensor] = []
    x = (frame.x0 + found.point).reshape(-1, *frame.network.input_shape)
    with torch.no_grad():
        values = frame.values(x)
        for number, op in enumerate(bounder.splits):
            l, u, a = nodes.lower[number], nodes.upper[number], found.seen[number]
            if isinstance(op, Splittable):
                theta = l / 2 + u / 2
                loss = op.losses(a, l, u)
                loss = torch.where(~op.affine_on(l, u) & _well_inside(theta, l, u), loss, torch.full_like(loss, -1.0))
                for kept, t in ((heights, loss), (losses, loss), (thresholds, theta)):
                    kept.append(flattened(t, 1))
                continue
            alpha = nodes.alpha[number].double() if op.takes_alpha else None
            lines = op.relax(l, u, "crown", alpha)
            z = torch.minimum(torch.maximum(values[number], l), u)
            value = op.forward(z)
            above = lines.upper_slope * z + lines.upper_offset - value
            below = value - lines.lower_slope * z - lines.lower_offset
            loss = torch.where(a > 0, a * below, -a * above).clamp(min=0)
            height = torch.where(a > 0, torch.zeros_like(a), -a * lines.upper_offset).clamp(min=0)
            open_ = ~op.affine_on(l, u)
            theta = _thresholds(op, l, u)
            open_ = open_ & _well_inside(theta, l, u)
            closed = torch.full_like(a, -1.0)
            heights.append(flattened(torch.where(open_, height, closed), 1))
            losses.append(flattened(torch.where(open_, loss, closed), 1))
            thresholds.append(flattened(theta, 1))
    return _Scores(torch.cat(heights, 1), torch.cat(losses, 1), torch.cat(thresholds, 1))


def _thresholds(op: Activation, lower: Tensor, upper: Tensor) -> Tensor:
    """Where a unit is split: at the kink that lies inside, else (smooth functions) in the middle, or where it says."""
    kinks = op.kinks(lower)
    # a function of straight pieces is split at kinks alone; one with curved pieces also between them
    found = op.middle(lower, upper)
    for kink in kinks:
        inside = _well_inside(kink, lower, upper) if not op.piecewise_linear else (kink > lower) & (kink < upper)
        found = torch.where(inside, kink, found)
    return found


def _well_inside(theta: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Ends at rest are rounded to float32, which a threshold other than 0 may not survive."""
    room = torch.where(theta == 0, torch.zeros_like(theta), _INSIDE * (lower.abs() + upper.abs()))
    return (theta > lower + room) & (theta < upper - room)


def choose(bounder: Bounder, found: Bounded, close: float, look: int) -> Splits:
    """The split of every node.

    Args:
        close: the radius at which a node is done.
        look: how many candidates are tried, half of them by each score; 1: the best by both scores together is taken as it is.
    """
    if not bounder.splits:
        nothing = torch.zeros_like(found.nodes.target)
        return Splits(nothing - 1, nothing, nothing.double(), nothing.double().expand(2, -1))
    with ieee_float32(bounder.frame.device):
        if isinstance(bounder, ReluBounder):
            best = looked_at(bounder, found, close, look)
            layer, unit = bounder.m.unit_of(best.unit.clamp(min=0))
            return Splits(torch.where(best.unit < 0, -1, layer), unit, found.line.k.new_zeros(len(unit)), best.push)
        return _choose(bounder, found, close, look)


def _choose(bounder: Bounder, found: Bounded, close: float, look: int) -> Splits:
    scores = _scores(bounder, found)
    height, loss = scores.height, scores.loss
    sizes = torch.tensor([0, *(math.prod(op.in_shapes[0]) for op in bounder.splits)], device=height.device).cumsum(0)

    def place(flat: Tensor) -> tuple[Tensor, Tensor]:
        layer = torch.bucketize(flat, sizes[1:], right=True)
        return layer, flat - sizes[layer]

    none = (height < 0).all(1)
    if look <= 1:
        mixed = height / height.amax(1, keepdim=True).clamp(min=1e-30) + loss / loss.amax(1, keepdim=True).clamp(min=1e-30)
        best = torch.where(height < 0, torch.full_like(mixed, -1.0), mixed).argmax(1)
    else:
        candidates = foremost(height, loss, look)
        left = _left_after(bounder, found, candidates, scores.threshold, place, close)
        left = torch.where(height.gather(1, candidates) >= 0, left, torch.full_like(left, torch.inf))
        best = candidates.gather(1, left.argmin(1, keepdim=True))[:, 0]
    layer, unit = place(best)
    threshold = scores.threshold.gather(1, best[:, None])[:, 0]
    push = _handed_on(bounder, found, torch.arange(len(unit), device=unit.device), layer, unit)
    return Splits(torch.where(none, -1, layer), unit, threshold, push)


def _handed_on(bounder: Bounder, found: Bounded, rows: Tensor, layer: Tensor, unit: Tensor) -> Tensor:
    """The multipliers with which children keep the lines of their nodes (`relu/look.py`), of Relus; 0 of others: `(2, N)`.

    Args:
        rows: of the nodes. layer, unit: of the splits, `(N,)` each.
    """
    push = found.line.k.new_zeros((2, len(rows)))
    for number, op in enumerate(bounder.splits):
        mine = torch.nonzero(layer == number)[:, 0]
        if isinstance(op, Relu) and len(mine):
            lam, alpha = (flattened(t, 1)[rows[mine], unit[mine]] for t in (-found.seen[number], found.nodes.alpha[number]))
            push[:, mine] = handed_on(lam, alpha.to(lam))
    return push


def _inherited(op: Curve, number: int, nodes: Nodes, rows: Tensor, children: Nodes, layer: Tensor) -> Elementwise:
    """The lines of children: those of their node but where it was this operator that was split, for lines are dear to find."""
    kept, mine = torch.cat([rows, rows]), torch.nonzero(torch.cat([layer, layer]) == number)[:, 0]
    whole = op.relax(nodes.lower[number].float(), nodes.upper[number].float(), "crown")
    parts = [t[kept] for t in (whole.lower_slope, whole.lower_offset, whole.upper_slope, whole.upper_offset)]
    if len(mine):
        own = op.relax(children.lower[number][mine].float(), children.upper[number][mine].float(), "crown")
        for part, new in zip(parts, (own.lower_slope, own.lower_offset, own.upper_slope, own.upper_offset), strict=True):
            part[mine] = new
    return Elementwise(*parts)


def _left_after(bounder: Bounder, parents: Bounded, candidates: Tensor, thresholds: Tensor, place: _Place, close: float) -> Tensor:
    """How far the worse child of each candidate is from being closed, with the slopes that it inherits: `(B, candidates)`."""
    count, width = candidates.shape
    rows = torch.arange(count, device=candidates.device).repeat_interleave(width)
    flat = candidates.reshape(-1)
    layer, unit = place(flat)
    nodes, push = parents.nodes, _handed_on(bounder, parents, rows, layer, unit)
    children = nodes.take(rows).children(layer, unit, thresholds[rows, flat], push)
    with torch.no_grad():
        dtype = torch.float32
        known = {
            op.output: _inherited(op, number, nodes, rows, children, layer)
            for number, op in enumerate(bounder.splits)
            if isinstance(op, Curve)
        }
        found = bounder.relaxations(children, children.alpha, children.beta, children.gamma, dtype, known)
        line = bounder.line(children, found, dtype)
        point = farthest(line.c, children.low.float(), children.high.float(), torch.full_like(line.k, close))
        value = (line.k + (line.c * point).sum(1)).reshape(2, count, width)
    return value.amax(0) + _TIE * value.mean(0)
