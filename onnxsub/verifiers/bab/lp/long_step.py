r"""What fixing a binary would do to a solved linear program, without solving it again: one long step of the dual simplex method.

Fixing a basic column k moves the multipliers along the row `rho = e_k B^{-1}` of the inverse of the basis, `y + theta rho`, and the
reduced costs along `d - theta A^T rho`. Every y gives a valid dual bound (`linear.py`), and along this ray it is a concave function
of theta with one break where a reduced cost or a multiplier changes its sign. Its largest value is found by sorting the breaks (the
long-step rule of Maros 2003); an ordinary ratio test would stop at the first break, which among hundreds of bounded inputs is next
to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxsub.ops.base import Array

__all__ = ["Ahead", "Columns", "long_steps"]

_TINY = 1e-9  # of a ray, relative to its largest entry
_ZERO = 1e-12  # of a reduced cost


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns and rows alike: `value` is the reduced cost or the multiplier, `low` and `high` are the ends."""

    value: Array
    low: Array
    high: Array


@dataclass(frozen=True, eq=False)
class Ahead:
    """For each of k candidates, fixed at 0 and at 1: by how much the bound moves at least, and how far along the ray that is.

    Attributes:
        gain, step: `(k, 2)`; a step has the sign of its direction.
    """

    gain: Array
    step: Array


def long_steps(columns: Columns, rays: Array, candidates: Array, enough: float) -> Ahead:
    """The best steps.

    Args:
        rays: `(k, n)`: how fast the values fall along each ray.
        candidates: `(k,)`: which column each ray belongs to.
        enough: a gain above which it does not matter how large it is: along some rays it has no end.
    """
    k = len(rays)
    value, low, high = columns.value, columns.low, columns.high
    w = np.where(np.abs(rays) > _TINY * np.abs(rays).max(axis=1, keepdims=True), rays, 0.0)
    w = np.stack([w, -w], axis=1)  # (k, 2, n): fixed at 0 the candidate's own value may fall below zero, at 1 rise above
    own = np.arange(k)
    w[own, :, candidates] = 0.0
    zero = np.abs(value) <= _ZERO
    ends = np.where(value > 0, low, high)
    ends = np.where(zero, np.where(w < 0, low, high), ends)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = -np.where(w != 0, w * ends, 0.0).sum(-1)
        slope[:, 1] += 1.0  # the candidate itself: -1 (b - 0) along the first ray, +1 (b - 0) along the second one, at b = 0 and 1
        breaks = np.where((w != 0) & ~zero, value / w, np.inf)
        breaks[breaks <= 0] = np.inf
        drops = np.where(np.isfinite(breaks), np.abs(w) * (high - low), 0.0)
    gain, step = np.zeros((k, 2)), np.zeros((k, 2))
    for i in range(k):
        for side in range(2):
            first = slope[i, side]
            if not first > 0 or not np.isfinite(first):
                continue
            at = np.flatnonzero(np.isfinite(breaks[i, side]))
            at = at[np.argsort(breaks[i, side, at])]
            t, left = breaks[i, side, at], first - np.cumsum(drops[i, side, at])
            over = np.flatnonzero(left <= 0)
            stop = float(t[over[0]]) if len(over) else float(t[-1]) if len(t) else 0.0
            passed = t < stop
            won = first * stop - float(drops[i, side, at[passed]] @ (stop - t[passed]))
            rest = (float(left[-1]) if len(t) else first) if not len(over) else 0.0
            if rest > _TINY * first and won < 2 * enough:
                stop, won = stop + (2 * enough - won) / rest, 2 * enough
            step[i, side], gain[i, side] = stop * (1 - 2 * side), won
    return Ahead(gain, step)
