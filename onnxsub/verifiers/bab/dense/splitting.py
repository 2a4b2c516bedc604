"""Which unit of a node is split: by the height of its lines over its graph, and by what the bound loses there."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxsub.verifiers.bab.dense.ball import Ball
from onnxsub.verifiers.bab.dense.bound import Evaluated, Nodes, attained

__all__ = ["choose"]

_TINY = 1e-30
_LATER = 0.5  # of a score: what a unit behind the first layer counts; what decides one of the first narrows all that follows


def choose(ball: Ball, nodes: Nodes, found: Evaluated) -> Tensor:
    """The unit of every node, `(N,)`; nodes have an open unit. A look at both children of the best few chose no better ones."""
    q, lines, open_ = found.q, found.lines, nodes.open
    z = attained(ball.single, ball.layers, lines, q, found.w)
    z = torch.minimum(torch.maximum(z, nodes.lower), nodes.upper)
    h = z.clamp(min=0)
    above, below = lines.slope * z + lines.offset - h, h - lines.low * z
    most_below = torch.minimum((1 - lines.low) * nodes.upper, -lines.low * nodes.lower)
    score = torch.zeros_like(q)
    for up, down in ((above, below), (lines.offset, most_below)):
        loss = torch.where(open_, torch.where(q > 0, q * up, -q * down).clamp(min=0), torch.zeros_like(q))
        score += loss / loss.amax(1, keepdim=True).clamp(min=_TINY)
    score[:, ball.layers[0].stop :] *= _LATER
    return torch.where(open_, score, torch.full_like(score, -1.0)).argmax(1)
