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

__all__ = ["Looked", "foremost", "handed_on", "looked_at"]

_NUMBERS = 2**17  # of one block of rows
_TIE = 1e-3  # weight of the better child where the worse ones are alike
_TINY = 1e-30
_EACH = 3  # candidates of every layer by each score
_FEW = 300  # open units up to which candidates come from every layer at once
_GAIN = 0.02  # share of a line's largest value that a split must take from the worse child


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
        look: candidates; those of every layer come on top where none of them gains. At most 1: the best by both scores, of which
            no child is looked at.
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
        sizes = [stop - start for start, stop in b.m.blocks]
        few = b.m.count <= _FEW
        first = of_every_layer(height, loss, sizes, max(2, look // (2 * len(sizes)))) if few else foremost(height, loss, look)
        found_left, best, more = _best(b, low, push, first, height, close)
        # of many units what is best among the foremost helps most in the long run, if it helps at all; with cuts it mostly does
        stuck = torch.nonzero(~(found_left < (1 - _GAIN) * _largest(found, b, close)) & ~none)[:, 0]
        if len(stuck) and push.outer is None and not few:
            other = of_every_layer(height[stuck], loss[stuck], sizes, _EACH)
            outer, bias = (None if t is None else t[stuck] for t in (push.outer, push.bias))
            rest = Push(push.inner[stuck], outer, bias)
            left, unit, pushed = _best(b.take(stuck), low[stuck], rest, other, height[stuck], close)
            better = left < found_left[stuck]
            rows = stuck[better]
            found_left[rows], best[rows], more[:, rows] = left[better], unit[better], pushed[:, better]
        begin = kept.gather(2, best.expand(2, -1)[..., None])[..., 0] + more
        return Looked(torch.where(none, -1, best), found_left, begin)


def foremost(height: Tensor, loss: Tensor, look: int) -> Tensor:
    """The first units of all layers together by each score, `(B, C)`.

    Args:
        height, loss: `(B, U)`. look: how many, half of them by each score.
    """
    half = min(max(1, look // 2), height.shape[1])
    return torch.cat([height.topk(half, 1).indices, loss.topk(half, 1).indices], 1)


def of_every_layer(height: Tensor, loss: Tensor, sizes: list[int], each: int) -> Tensor:
    """The first units of every layer by each score, `(B, C)`.

    Scores of layers do not compare: they say what a line loses where the unit is read, not what splits would change behind it. A
    unit of an early layer with a fiftieth of the last layer's scores can close both children (PERFORMANCE.md).

    Args:
        height, loss: `(B, U)`. sizes: units of every layer. each: how many of a layer by each score.
    """
    found: list[Tensor] = []
    at = 0
    for size in sizes:
        found.extend(score[:, at : at + size].topk(min(size, each), 1).indices + at for score in (height, loss))
        at += size
    return torch.cat(found, 1)


def _best(
    b: Batch, low: Tensor, push: Push, candidates: Tensor, height: Tensor, close: float
) -> tuple[Tensor, Tensor, Tensor]:
    """How far the worse child of the best candidate is from being closed, which one that is, and v of its children."""
    left, more = _left_after(b, low, push, candidates, close)
    left = left.masked_fill(height.gather(1, candidates) < 0, torch.inf)
    value, place = left.min(1)
    unit = candidates.gather(1, place[:, None])[:, 0]
    return value, unit, more.gather(2, place.expand(2, -1)[..., None])[..., 0]


def _largest(found: Bounded, b: Batch, close: float) -> Tensor:
    """The largest values of the nodes' lines within the radius: `(B,)`."""
    c, (most, least) = found.line.c.float(), _ends(b, close)
    return found.line.k.float() + torch.where(c > 0, c * most, c * least).sum(1)


def _ends(b: Batch, close: float) -> tuple[Tensor, Tensor]:
    """The largest and the smallest offset of every input within a radius."""
    return torch.maximum(b.low, b.high.clamp(max=close)), torch.minimum(b.high, b.low.clamp(min=-close))


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
    most, least = _ends(b, close)
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
