"""Scores of splits and a look at both children of the best few: what `bab/branch.py` does, by matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxsub.verifiers.bab.bound import Bounded
from onnxsub.verifiers.bab.relu.ascent import Batch
from onnxsub.verifiers.bab.relu.bounder import ReluBounder
from onnxsub.verifiers.bab.relu.lines import Push, Slopes, pulled

__all__ = ["looked_at"]

_NUMBERS = 2**17  # of one block of rows
_TIE = 1e-3  # weight of the better child where the worse ones are alike


def looked_at(bounder: ReluBounder, found: Bounded, close: float, look: int) -> tuple[Tensor, Tensor]:
    """The best of the open units for every node, -1 where there is none, and how far its worse child is from being done.

    Args:
        look: candidates, half of them by each score; at most 1: the best by both together, of which no child is looked at.
    """
    with torch.no_grad():
        b = bounder.batch(found.nodes, torch.float32)
        alpha = bounder.m.gathered(found.nodes.alpha)
        low = b.lines.low(alpha)
        height, loss = _scores(b, low, -bounder.m.gathered(found.seen).float(), found.point.float())
        none = (height < 0).all(1)
        if look <= 1:
            mixed = height / height.amax(1, keepdim=True).clamp(min=1e-30) + loss / loss.amax(1, keepdim=True).clamp(min=1e-30)
            value, best = mixed.masked_fill(height < 0, -1.0).max(1)
            return torch.where(none, -1, best), value
        half = min(max(1, look // 2), height.shape[1])
        candidates = torch.cat([height.topk(half, 1).indices, loss.topk(half, 1).indices], 1)
        left = _left_after(b, low, b.push(found.nodes.beta, found.nodes.gamma), candidates, close)
        left = left.masked_fill(height.gather(1, candidates) < 0, torch.inf)
        value, place = left.min(1)
        return torch.where(none, -1, candidates.gather(1, place[:, None])[:, 0]), value


def _scores(b: Batch, low: Tensor, lam: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """Height of the upper line, and what the lines lose at the point where the bound is attained; -1 for units that are closed."""
    z = b.m.values(point)
    value = z.clamp(min=0)
    positive = lam.clamp(min=0)
    above = torch.addcmul(b.lines.offset, b.lines.slope, z) - value
    loss = positive * above + (positive - lam) * torch.addcmul(value, low, z, value=-1)
    closed = b.lines.free == 0
    return (positive * b.lines.offset).masked_fill(closed, -1.0), loss.clamp(min=0).masked_fill(closed, -1.0)


def _left_after(b: Batch, low: Tensor, push: Push, candidates: Tensor, close: float) -> Tensor:
    """How far the worse child of each candidate is from being closed, with the slopes that it inherits: `(B, candidates)`."""
    count, width = candidates.shape
    most, least = torch.maximum(b.low, b.high.clamp(max=close)), torch.minimum(b.high, b.low.clamp(min=-close))
    centre, half = (most + least) / 2, (most - least) / 2
    p, t = b.parts, b.target
    own = (p.out_a[t], p.out_w[t], p.out_k[t])
    found = []
    step = max(1, _NUMBERS // (2 * width * max(half.shape[1], b.m.count)))
    for part in torch.split(torch.arange(count, device=half.device), step):
        unit = candidates[part].repeat(1, 2).flatten()[:, None]  # upper children of a node, then lower ones
        side = torch.cat([half.new_ones(width), half.new_zeros(width)]).repeat(len(part))[:, None]

        def many(x: Tensor, part: Tensor = part) -> Tensor:
            return x[part, None].expand(-1, 2 * width, *x.shape[1:]).flatten(0, 1)

        lines = Slopes(
            many(b.lines.slope).scatter(1, unit, side), many(b.lines.offset).scatter(1, unit, 0.0), many(b.lines.free)
        )  # fmt: skip
        outer, bias = (None if x is None else many(x) for x in (push.outer, push.bias))
        pushed = Push(many(push.inner), outer, bias)
        rows = (many(own[0]), many(own[1]), many(own[2]))
        line = pulled(p, b.m.blocks, rows, lines, many(low).scatter(1, unit, side), pushed)
        c = line.c.reshape(len(part), 2 * width, -1)
        value = line.k.reshape(len(part), 2 * width) + torch.mul(c, centre[part, None]).sum(2)
        value = value + c.abs_().mul_(half[part, None]).sum(2)
        found.append(value.reshape(len(part), 2, width))
    value = torch.cat(found)
    return value.amax(1) + _TIE * value.mean(1)
