"""Which unit of a node is split: two scores that cost nothing, then a look at both children of the best few (`bab/branch.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxsub.verifiers.bab.dense.ball import Ball
from onnxsub.verifiers.bab.dense.bound import Evaluated, Nodes, attained, evaluate

__all__ = ["choose"]

_TIE = 1e-3  # weight of the better child where the worse ones are alike


def choose(ball: Ball, nodes: Nodes, found: Evaluated, scale: Tensor, look: int) -> Tensor:
    """The unit of every node, `(N,)`; nodes have an open unit.

    Args:
        look: how many are looked at, half of them by each score: the height of the lines that the bound uses over the unit's graph,
            and what of it is lost where the bound is attained.
    """
    q, lines, open_ = found.q, found.lines, nodes.open
    z = attained(ball.single, ball.layers, lines, q, found.w)
    z = torch.minimum(torch.maximum(z, nodes.lower), nodes.upper)
    h = z.clamp(min=0)
    above, below = lines.slope * z + lines.offset - h, h - lines.low * z
    most_below = torch.minimum((1 - lines.low) * nodes.upper, -lines.low * nodes.lower)
    loss = torch.where(q > 0, q * above, -q * below)
    height = torch.where(q > 0, q * lines.offset, -q * most_below)
    closed = torch.full_like(q, -1.0)
    loss, height = (torch.where(open_, t.clamp(min=0), closed) for t in (loss, height))
    half = min(max(1, look // 2), q.shape[1])
    candidates = torch.cat([height.topk(half, 1).indices, loss.topk(half, 1).indices], 1)
    rows = torch.arange(len(nodes)).repeat_interleave(candidates.shape[1])
    children = nodes.take(rows).children(candidates.reshape(-1))
    value = evaluate(ball, children, scale).value.reshape(2, *candidates.shape)
    left = value.amax(0) + _TIE * value.mean(0)
    left = torch.where(open_.gather(1, candidates), left, torch.full_like(left, torch.inf))
    return candidates.gather(1, left.argmin(1, keepdim=True))[:, 0]
