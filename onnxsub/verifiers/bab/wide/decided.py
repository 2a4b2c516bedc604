"""A node without open units: a linear program, whose multipliers the bound without squares takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.wide.bound import evaluate
from onnxsub.verifiers.bab.wide.group import Group
from onnxsub.verifiers.bab.wide.parts import squares_for
from onnxsub.verifiers.programs.lp import WarmProgram
from onnxsub.verifiers.programs.solvers import Problem

__all__ = ["nearest_decided"]

_SECONDS = 20.0  # of one program
_STEPS = 6  # of Newton on the radius
_BEYOND = 1e-7  # of the radius: how much farther in a step goes than to where the line is zero


def nearest_decided(group: Group, close: float, budget: Budget) -> tuple[float, Tensor | None]:
    """A radius within which the row is negative, infinite where that is so within `close`; and a point where it is reached there.

    The largest value of the row within a radius is concave in it and the bound by its multipliers is linear, so that steps to
    where it is zero come to the nearest point. What counts is the bound by the multipliers, never the solver's word.
    """
    whole = group.whole
    A, b = whole.A.numpy(), whole.b.numpy()
    lower, upper = group.lower.numpy(), group.upper.numpy()
    low, high = (t.numpy() for t in (whole.low, whole.high))
    none = np.zeros(len(low), dtype=np.bool_)
    program = WarmProgram(Problem(-whole.a.numpy(), 0.0, sp.csc_array(A), lower - b, upper - b, low, high, none))
    start = group.first(close)
    radius, point = close, None
    for _ in range(_STEPS):
        found = _solved(program, low, high, radius, budget)
        if found is None:
            break
        nu, d = found
        given = replace(start, nu=(nu / start.unit)[None], price=torch.zeros_like(start.price))
        within = whole.within(radius)
        squares = squares_for(within, given)
        value = float(evaluate(within, given, group.lower[None], group.upper[None], squares).proved)
        if value < 0:
            return radius if radius < close else float("inf"), point
        point = d
        w = whole.a + nu @ whole.A
        rate = float((w.clamp(min=0) @ (whole.high >= radius).double()) + (w.clamp(max=0).abs() @ (whole.low <= -radius).double()))
        radius = radius - value / rate - _BEYOND * radius if rate > 0 else 0.0
        if not radius > 0:
            break
    return 0.0, point


def _solved(program: WarmProgram, low: Array, high: Array, radius: float, budget: Budget) -> tuple[Tensor, Tensor] | None:
    """Multipliers of the rows and the point at which the row is largest within a radius."""
    if not program.able:
        return None
    index = np.arange(len(low), dtype=np.int32)
    program.highs.changeColsBounds(len(low), index, np.maximum(low, -radius), np.minimum(high, radius))
    if not program.run(_SECONDS, budget) or program.status != "kOptimal":
        return None
    d = np.asarray(program.highs.getSolution().col_value, dtype=np.float64)
    return torch.from_numpy(program.multipliers.copy()), torch.from_numpy(d)
