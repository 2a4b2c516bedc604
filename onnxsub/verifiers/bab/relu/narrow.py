"""Narrower intervals for the units that a node leaves open: what `bab/narrow.py` does, by matrices and compiled loops."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from onnxsub.propagate.rounding import slack
from onnxsub.verifiers.bab.line import Line
from onnxsub.verifiers.bab.nodes import Nodes
from onnxsub.verifiers.bab.relu.bounder import ReluBounder
from onnxsub.verifiers.bab.relu.cut import Halved
from onnxsub.verifiers.bab.relu.lines import Push, Slopes, pulled
from onnxsub.verifiers.bab.relu.multipliers import Joined, Sides

__all__ = ["narrowed_units"]

_NUMBERS = 2**19  # of one block of rows


def narrowed_units(bounder: ReluBounder, nodes: Nodes, box: tuple[Tensor, Tensor], line: Line) -> Nodes:
    """The nodes with the intervals of their open units cut by their lines.

    Args:
        box: of the nodes, cut already.
    """
    m, parts = bounder.m, bounder.m.double
    lower, upper = m.gathered(nodes.lower), m.gathered(nodes.upper)
    sides = Sides.of(m, nodes)
    cuts = Joined.of(m, bounder.cut_list, nodes.target, torch.float64)
    alpha = m.gathered(nodes.alpha).double()
    rows = torch.arange(len(nodes), device=lower.device)
    for number, (start, stop) in enumerate(m.blocks):
        l, u = lower[:, start:stop], upper[:, start:stop]
        open_ = (l < 0) & (u > 0)
        most = int(open_.sum(1).max())
        if not most:
            continue
        # as many units of every node as the one with most of them has open
        chosen = open_.to(torch.uint8).topk(most, 1).indices
        lines = Slopes.of(bounder.relu, lower[:, :start], upper[:, :start])
        low = lines.low(alpha[:, :start])
        # multipliers of what lies behind these units say nothing about them, and their constants must not count
        push = Push(low)
        if start:
            push = sides.before(start).push(nodes.beta.double(), start)
            if cuts is not None:
                push = cuts.before(start).push(nodes.gamma.double(), push)
        step = max(1, _NUMBERS // (most * parts.a.shape[1]))
        for part in torch.split(rows, step):
            unit = chosen[part]
            halved = Halved(line.c[part], line.k[part], box[0][part], box[1][part], 2 * most)
            old_l, old_u = l[part].gather(1, unit), u[part].gather(1, unit)
            scale = torch.maximum(old_l.abs(), old_u.abs())
            ends = []
            for sign in (1.0, -1.0):
                if number:
                    before = (lines.take(part), low[part])
                    value = halved.minimum(*_above(bounder, number, unit, sign, before, _rows(push, part)), -1.0)
                else:
                    value = halved.minimum(parts.a[start + unit], parts.b[start + unit], sign)
                ends.append(value - slack(value, value, scale))
            l[part] = l[part].scatter(1, unit, torch.maximum(old_l, ends[0]))
            u[part] = u[part].scatter(1, unit, torch.minimum(old_u, -ends[1]))
    return replace(nodes, low=box[0], high=box[1], lower=m.spread(lower, nodes.lower), upper=m.spread(upper, nodes.upper))


def _above(
    bounder: ReluBounder, number: int, unit: Tensor, sign: float, lines: tuple[Slopes, Tensor], push: Push
) -> tuple[Tensor, Tensor]:
    """Lines above `-sign z` of units of one Relu: `(B, R, n)` and `(B, R)`.

    Args:
        unit: their numbers among the open units of that Relu, `(B, R)`.
        lines: of the nodes before that Relu, and the lower slopes.
        push: of the nodes, by splits and cuts of the units before that Relu.
    """
    m, parts = bounder.m, bounder.m.double
    start, stop = m.blocks[number]
    most = unit.shape[1]
    place = (start + unit).flatten()

    def many(t: Tensor) -> Tensor:
        return t[:, None].expand(-1, most, *t.shape[1:]).flatten(0, 1)

    inner = Slopes(*(many(t) for t in (lines[0].slope, lines[0].offset, lines[0].free)))
    outer, bias = (None if t is None else many(t) for t in (push.outer, push.bias))
    rows = (None, parts.w[place, :start] * -sign, parts.b[place] * -sign)
    found = pulled(parts, m.blocks[:number], rows, inner, many(lines[1]), Push(many(push.inner), outer, bias))
    # the units themselves are functions of the offset too: one product for both
    mu = torch.cat([found.mu, found.mu.new_zeros((len(place), stop - start))], 1).scatter_(1, place[:, None], -sign)
    return (mu @ parts.a[:stop]).reshape(*unit.shape, -1), found.k.reshape(unit.shape)


def _rows(push: Push, part: Tensor) -> Push:
    """What multipliers of some of the nodes add."""
    outer, bias = (None if t is None else t[part] for t in (push.outer, push.bias))
    return Push(push.inner[part], outer, bias)
