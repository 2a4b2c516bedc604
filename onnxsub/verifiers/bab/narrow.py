r"""Narrower intervals for nodes: where `f_t >= f_y`, the line of a node's bound cuts the box, and what is left bounds every unit.

All points of interest of a node lie in its box and in the half-space `c \cdot delta + k >= 0` of its line. A linear bound
`a \cdot delta + b` of a unit is smallest there at

    max_{v >= 0} min_{delta in box} (a - v c) \cdot delta + b - v k,

of which every v gives a sound value; a bisection of v finds a good one. What `verifiers/milp/tighten.py` does for one ball is
done here for a batch of nodes, each with its own splits.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from onnxsub.device import ieee_float32
from onnxsub.ops.base import Nonlinear
from onnxsub.ops.relaxation import Relaxation
from onnxsub.propagate.backward import Coefficients, flattened, pull_back
from onnxsub.propagate.bounds import per_domain, slack
from onnxsub.propagate.halfspace import cut_minimum
from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.line import Line
from onnxsub.verifiers.bab.nodes import Nodes
from onnxsub.verifiers.bab.relu.bounder import ReluBounder
from onnxsub.verifiers.bab.relu.narrow import narrowed_units

__all__ = ["cut_box", "narrowed"]

_VALUES = 2**23  # of one block of rows
_ROOM = 1e-12  # of the size of an input's ends, for rounding


def narrowed(bounder: Bounder, nodes: Nodes, line: Line) -> Nodes:
    """The nodes with the intervals of their unstable units, and their boxes, cut by their lines.

    Args:
        line: of the nodes, float64.
    """
    with ieee_float32(bounder.frame.device), torch.no_grad():
        if isinstance(bounder, ReluBounder):
            return narrowed_units(bounder, nodes, cut_box(nodes.low, nodes.high, line), line)
        return _narrowed(bounder, nodes, line)


def _narrowed(bounder: Bounder, nodes: Nodes, line: Line) -> Nodes:
    low, high = cut_box(nodes.low, nodes.high, line)
    lower, upper = list(nodes.lower), list(nodes.upper)
    dtype = torch.float64
    with torch.no_grad():
        for number, op in enumerate(bounder.splits):
            l, u = flattened(lower[number], 1).clone(), flattened(upper[number], 1).clone()
            open_ = ~flattened(op.affine_on(lower[number], upper[number]), 1)
            index = torch.nonzero(open_.any(0))[:, 0]
            if len(index) == 0:
                continue
            current = replace(nodes, lower=tuple(lower), upper=tuple(upper))
            found = bounder.relaxations(current, current.alpha, current.beta, current.gamma, dtype)
            step = max(1, _VALUES // (len(nodes) * line.c.shape[1]))
            for part in torch.split(index, step):
                start = l.new_zeros((1, len(part), l.shape[1]))
                start[0, torch.arange(len(part), device=l.device), part] = 1.0
                start = start.reshape(1, len(part), *op.in_shapes[0])
                old_l, old_u = l[:, part], u[:, part]
                scale = torch.maximum(old_l.abs(), old_u.abs())
                first, second = _ends(bounder, op.inputs[0], start, found, line, (low, high), scale)
                l[:, part] = torch.maximum(old_l, first)
                u[:, part] = torch.minimum(old_u, second)
            shape = lower[number].shape
            lower[number], upper[number] = l.reshape(shape), u.reshape(shape)
    return replace(nodes, low=low, high=high, lower=tuple(lower), upper=tuple(upper))


def cut_box(low: Tensor, high: Tensor, line: Line) -> tuple[Tensor, Tensor]:
    """Moves the ends of every input to where the half-space is still reached."""
    c = line.c
    # no choice per element, whose branches cost ten times as much; `abs` because -0 would turn what is endless round
    positive, negative = c.clamp(min=0).abs(), c.clamp(max=0).abs()
    top = ((positive * high - negative * low).sum(1) + line.k).clamp(min=0)[:, None]
    # where the half-space does not lean there is no end: 0 / 0 is no number, which fmax and fmin pass over
    room = _ROOM * torch.maximum(low.abs(), high.abs())
    return torch.fmax(low, high - top / positive - room), torch.fmin(high, low + top / negative + room)


def _ends(
    bounder: Bounder, tensor: str, start: Tensor, found: dict[str, Relaxation], cut: Line, box: tuple[Tensor, Tensor], scale: Tensor
) -> tuple[Tensor, Tensor]:
    network = bounder.frame.network
    x0 = bounder.frame.x0.to(start.dtype)
    results = []
    exact = not any(isinstance(o, Nonlinear) for o in network.ancestors(tensor))
    for sign in (1.0, -1.0):
        if sign > 0 or not exact:
            rows = per_domain(network, tensor, Coefficients(sign * start), found, len(box[0]))
            bound = pull_back(network, tensor, rows, found)
            a = bound.coefficients.full(network.input_shape).flatten(2)
            b = bound.lower_bias + a @ x0
        else:
            a, b = -a, -b
        value = cut_minimum(a, b, cut.c, cut.k, *box)
        results.append(value - slack(value, value, scale))
    return results[0], -results[1]
