r"""Scores of splits and a look at both children of the best few: what `bab/branch.py` does, by matrices.

A child of unit i has the line `c . delta + k` of its node, where the upper line is replaced if that was used, and `+-z_i >= 0`.
With a line `d . delta + e` above `+-z_i`, every v >= 0 gives a bound:

    f_t - f_y <= max_delta (c + v d) . delta + k + v e

The best v is what the child's multiplier begins with: from 0 it would take a search tens of steps to come there, and a child whose
unit was on its lower line would be bounded worse than its node (with v = 0 the slope of the piece is not the one that was chosen).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.propagate.halfspace import multipliers
from onnxsub.verifiers.bab.bound import Bounded
from onnxsub.verifiers.bab.relu.ascent import Batch
from onnxsub.verifiers.bab.relu.bounder import ReluBounder
from onnxsub.verifiers.bab.relu.lines import Push, Slopes, pulled

__all__ = ["Looked", "candidates_of", "handed_on", "looked_at"]

_NUMBERS = 2**17  # of one block of rows
_TIE = 1e-3  # weight of the better child where the worse ones are alike
_TINY = 1e-30
_EACH = 2  # candidates of every layer by each score, at least


@dataclass(frozen=True, eq=False)
class Looked:
    """The splits of B nodes.

    Attributes:
        unit: position among the open units, -1 where there is none, `(B,)`.
        left: how far the worse child is from being done; where no child was looked at, a score. `(B,)`.
        push: the multipliers that upper and lower children begin with, `(2, B)`.
    """

    unit: Tensor
    left: Tensor
    push: Tensor


def handed_on(lam: Tensor, alpha: Tensor) -> Tensor:
    """The multipliers with which children whose unit reads `lam` have their node's line: of upper children, then of lower ones.

    Where lam < 0 the node has `lam h <= lam alpha z`. The upper child has `lam h = lam z = lam alpha z - |lam| (1 - alpha) z`, the
    lower one `lam h = 0 = lam alpha z + |lam| alpha z`.
    """
    return (-lam).clamp(min=0) * torch.stack([1 - alpha, alpha])


def looked_at(bounder: ReluBounder, found: Bounded, close: float, look: int) -> Looked:
    """The best of the open units for every node.

    Args:
        look: candidates, about (`candidates_of`); at most 1: the best by both scores, of which no child is looked at.
    """
    with torch.no_grad():
        b = bounder.batch(found.nodes, torch.float32)
        alpha = bounder.m.gathered(found.nodes.alpha)
        low = b.lines.low(alpha)
        lam = -bounder.m.gathered(found.seen).float()
        height, loss = _scores(b, low, lam, found.point.float())
        none = (height < 0).all(1)
        push = b.push(found.nodes.beta, found.nodes.gamma)
        if push.outer is not None:
            lam = lam - push.outer
        kept = handed_on(lam, low)
        if look <= 1:
            mixed = height / height.amax(1, keepdim=True).clamp(min=1e-30) + loss / loss.amax(1, keepdim=True).clamp(min=1e-30)
            value, best = mixed.masked_fill(height < 0, -1.0).max(1)
            return Looked(torch.where(none, -1, best), value, kept.gather(2, best.expand(2, -1)[..., None])[..., 0])
        candidates = candidates_of(height, loss, [stop - start for start, stop in b.m.blocks], look)
        left, more = _left_after(b, low, push, candidates, close)
        left = left.masked_fill(height.gather(1, candidates) < 0, torch.inf)
        value, place = left.min(1)
        best = candidates.gather(1, place[:, None])
        begin = kept.gather(2, best.expand(2, -1, -1)) + more.gather(2, place[:, None].expand(2, -1, -1))
        return Looked(torch.where(none, -1, best[:, 0]), value, begin[..., 0])


def candidates_of(height: Tensor, loss: Tensor, sizes: list[int], look: int) -> Tensor:
    """Units that are worth a look, `(B, C)`: the first ones of every layer by each score.

    Scores of layers do not compare: they say what a line loses where the unit is read, not what splits would change behind it. A
    unit of an early layer with a fiftieth of the last layer's scores can close both children (PERFORMANCE.md).

    Args:
        height, loss: `(B, U)`. sizes: units of every layer.
        look: candidates of all layers together, at least `_EACH` by each score from each.
    """
    found: list[Tensor] = []
    at = 0
    for size in sizes:
        most = min(size, max(_EACH, look // (2 * len(sizes))))
        found.extend(score[:, at : at + size].topk(most, 1).indices + at for score in (height, loss))
        at += size
    return torch.cat(found, 1)


def _scores(b: Batch, low: Tensor, lam: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """Height of the upper line, and what the lines lose at the point where the bound is attained; -1 for units that are closed."""
    z = b.m.values(point)
    value = z.clamp(min=0)
    positive = lam.clamp(min=0)
    above = torch.addcmul(b.lines.offset, b.lines.slope, z) - value
    loss = positive * above + (positive - lam) * torch.addcmul(value, low, z, value=-1)
    closed = b.lines.free == 0
    return (positive * b.lines.offset).masked_fill(closed, -1.0), loss.clamp(min=0).masked_fill(closed, -1.0)


def _left_after(b: Batch, low: Tensor, push: Push, candidates: Tensor, close: float) -> tuple[Tensor, Tensor]:
    """How far the worse child of each candidate is from being closed, and v of both: `(B, candidates)` and `(2, B, candidates)`."""
    count, width = candidates.shape
    most, least = torch.maximum(b.low, b.high.clamp(max=close)), torch.minimum(b.high, b.low.clamp(min=-close))
    centre, half = (most + least) / 2, (most - least) / 2
    p, t = b.parts, b.target
    own = (p.out_a[t], p.out_w[t], p.out_k[t])
    values, pushes = [], []
    step = max(1, _NUMBERS // (2 * width * max(half.shape[1], b.m.count)))
    for part in torch.split(torch.arange(count, device=half.device), step):
        unit = candidates[part].repeat(1, 2).flatten()[:, None]  # upper children of a node, then lower ones
        side = torch.cat([half.new_ones(width), half.new_zeros(width)]).repeat(len(part))[:, None]

        def many(x: Tensor, part: Tensor = part) -> Tensor:
            return x[part, None].expand(-1, 2 * width, *x.shape[1:]).flatten(0, 1)

        lows, slope, offset = many(low), many(b.lines.slope), many(b.lines.offset)
        lines = Slopes(slope.scatter(1, unit, side), offset.scatter(1, unit, 0.0), many(b.lines.free))
        outer, bias = (None if x is None else many(x) for x in (push.outer, push.bias))
        rows = (many(own[0]), many(own[1]), many(own[2]))
        line = pulled(p, b.m.blocks, rows, lines, lows, Push(many(push.inner), outer, bias))
        # lines above z of upper children and above -z of lower ones
        only = torch.zeros_like(lows)
        plain = Slopes(slope, offset, lines.free)
        above = pulled(p, b.m.blocks, (None, only, only[:, 0]), plain, lows, Push(only.scatter(1, unit, 2 * side - 1)))
        value, v = _cut_largest((line.c, line.k), (above.mu @ p.a, above.k), many(centre), many(half))
        values.append(value.reshape(len(part), 2, width))
        pushes.append(v.reshape(len(part), 2, width))
    value = torch.cat(values)
    return value.amax(1) + _TIE * value.mean(1), torch.cat(pushes).transpose(0, 1)


def _cut_largest(
    line: tuple[Tensor, Tensor], cut: tuple[Tensor, Tensor], centre: Tensor, half: Tensor
) -> tuple[Tensor, Tensor]:
    """The largest value of `c . x + k` in a box where `d . x + e >= 0`, and the multiplier of the latter: `(N,)` each."""
    (c, k), (d, e) = line, cut
    k, e = k + (c * centre).sum(1), e + (d * centre).sum(1)
    width, cut_width = (c.abs() * half).sum(1), (d.abs() * half).sum(1)
    row, scale = (1 / w.clamp(min=_TINY) for w in (width, cut_width))
    v = multipliers((-c * row[:, None])[:, None], d * scale[:, None], half, (e * scale)[:, None], row[:, None])[:, 0]
    v = (v * width * scale).nan_to_num(0.0, 0.0, 0.0)
    plain, less = k + width, k + v * e + (torch.addcmul(c, v[:, None], d).abs_() * half).sum(1)
    better = less < plain
    return torch.where(better, less, plain), v * better
