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
from onnxsub.verifiers.bab.wide.parts import Multipliers, squares_for
from onnxsub.verifiers.programs.lp import WarmProgram
from onnxsub.verifiers.programs.solvers import Problem

__all__ = ["nearest_decided"]

_SECONDS = 20.0  # of one program
_STEPS = 6  # of programs, each at the zero of the last one's bound
_HALVINGS = 50
_FARTHER = 1e-5  # of the radius: how much farther out than what is proved a point is looked for
_RAYS = 1.0, -1.0, 1e3, -1e3, 1e6, -1e6  # how far along a ray of the dual is tried
_NEARER = 1e-7  # of the radius: how much nearer than where the line is zero it is asked to be negative


def nearest_decided(group: Group, close: float, budget: Budget) -> tuple[float, Tensor | None]:
    """A radius within which the row is negative, infinite where that is so within `close`; and a point where it is reached there.

    The largest value of the row within a radius is concave in it. The bound by its multipliers lies above it, so that the zeros of
    these come to the nearest point from below. What counts is the bound by the multipliers, never the solver's word.
    """
    whole = group.whole
    A, b = whole.A.numpy(), whole.b.numpy()
    lower, upper = group.lower.numpy(), group.upper.numpy()
    low, high = (t.numpy() for t in (whole.low, whole.high))
    none = np.zeros(len(low), dtype=np.bool_)
    program = WarmProgram(Problem(-whole.a.numpy(), 0.0, sp.csc_array(A), lower - b, upper - b, low, high, none))
    start = group.first(close)
    radius, proved = close, 0.0
    for _ in range(_STEPS):
        found = _solved(program, low, high, radius, budget)
        if found is None:
            if _empty(program, group, start, radius):
                proved = max(proved, radius)
            break
        nu = found[0]
        value = _value(group, start, nu, radius)
        if value < 0 and radius >= close:
            return float("inf"), None
        zero = _zero(group, nu, close) * (1 - _NEARER)
        if not zero > proved or _value(group, start, nu, zero) >= 0:
            break
        proved, last, radius = zero, radius, zero
        if abs(last - radius) <= _NEARER * radius:
            break
    if proved >= close:
        return float("inf"), None
    found = _solved(program, low, high, min(proved * (1 + _FARTHER), close), budget) if proved else None
    return proved, None if found is None else found[1]


def _zero(group: Group, nu: Tensor, most: float) -> float:
    """Where the bound by multipliers of the rows alone, which grows with the radius, is zero, as far as `most`."""
    whole = group.whole
    w = whole.a + nu @ whole.A
    rest = float(torch.maximum(-nu * group.lower, -nu * group.upper).sum() + nu @ whole.b + whole.k)
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        part = whole.within(middle)
        reached = float(torch.maximum(w * part.low, w * part.high).sum())
        low, high = (middle, high) if reached + rest < 0 else (low, middle)
    return low


def _empty(program: WarmProgram, group: Group, start: Multipliers, radius: float) -> bool:
    """Whether no point within a radius has its units there: the bound falls without end along a combination of the rows."""
    ray = program.ray if program.able and program.status == "kInfeasible" else None
    return ray is not None and any(_value(group, start, torch.from_numpy(s * ray), radius) < 0 for s in _RAYS)


def _value(group: Group, start: Multipliers, nu: Tensor, radius: float) -> float:
    """The bound within a radius by multipliers of the rows, without squares that cost."""
    given = replace(start, nu=(nu / start.unit)[None], price=torch.zeros_like(start.price))
    within = group.whole.within(radius)
    return float(evaluate(within, given, group.lower[None], group.upper[None], squares_for(within, given)).proved)


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
