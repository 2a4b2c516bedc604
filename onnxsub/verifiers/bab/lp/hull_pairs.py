r"""Cuts from the convex hull of two windows together, for windows that share inputs.

The hulls of single windows (`hull_windows.py`) let every window pair its elements with the inputs as it likes best: at a fractional
solution one window takes a pixel to be bright where the other one takes it to be dark. For two windows with largest elements j
and k the switches `z_jk` of both (`sum_k z_jk = z_j`, `sum_j z_jk = z_k`) say what is chosen together, and a weighted sum of them
is a window again,

    c1 y1 + c2 y2 = max_jk { (c1 w_j + c2 w_k) . v + c1 b_j + c2 b_k },

with `z_jk` as its switches: its hull holds both to one choice per input. The weights are the prices of y1 and y2, the multipliers
of the rows that hold them: there the sum is what counts. Any other weights would be valid, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.sparse as sp

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.lp.hull_windows import Largest, OpenWindow
from onnxsub.verifiers.programs.solvers import Problem

__all__ = ["Joined", "join"]

_PAIRS = 60  # pairs, at most: those that share most
_ELEMENTS = 64  # of a pair, at most
_FRACTIONAL = 1e-3  # of a switch, at least
_PRICE = 1e-9  # of a window, at least: relative to the largest one


@dataclass(frozen=True, eq=False)
class Joined:
    """Pairs of windows, and what their switches add to a program.

    Attributes:
        pairs: each a window of `K1 K2` elements.
        columns: number of the new ones, from 0 to 1 each, which stand behind those of the program.
        rows: new rows over all columns, each `= 0`.
    """

    pairs: list[Largest]
    columns: int
    rows: sp.csr_array


def join(problem: Problem, windows: list[OpenWindow], v: Array, multipliers: Array) -> Joined | None:
    """The pairs of windows that a solution leaves open and that share inputs; None: there are none.

    Args:
        v: all columns of the solution. multipliers: of the rows, there.
    """
    price = _prices(problem, windows, multipliers)
    open_ = [
        i for i, w in enumerate(windows)
        if price[i] > _PRICE * price.max() and np.minimum(v[w.z], 1 - v[w.z]).max() > _FRACTIONAL
    ]  # fmt: skip
    width = problem.col_upper - problem.col_lower
    reach = {i: price[i] * np.ptp(windows[i].w, axis=0) * width[windows[i].inputs] for i in open_}
    shares: list[tuple[float, int, int]] = []
    for i, j in combinations(open_, 2):
        one, other = windows[i], windows[j]
        if len(one.z) * len(other.z) > _ELEMENTS:
            continue
        _, at, there = np.intersect1d(one.inputs, other.inputs, return_indices=True)
        shared = float(np.minimum(reach[i][at], reach[j][there]).sum())
        if shared > 0:
            shares.append((-shared, i, j))
    if not shares:
        return None
    pairs, rows, behind = [], list[tuple[Array, Array]](), problem.columns
    for _, i, j in sorted(shares)[:_PAIRS]:
        one, other = windows[i], windows[j]
        z = behind + np.arange(len(one.z) * len(other.z)).reshape(len(one.z), len(other.z))
        behind += z.size
        pairs.append(_pair(one, other, z, price[[i, j]] / price[[i, j]].max()))
        for own, switches in ((one.z, z), (other.z, z.T)):
            rows += [(np.append(s, k), np.append(np.ones(len(s)), -1.0)) for k, s in zip(own, switches, strict=True)]
    starts = np.cumsum([0, *(len(c) for c, _ in rows)])
    index, data = (np.concatenate([r[k] for r in rows]) for k in (0, 1))
    return Joined(pairs, behind - problem.columns, sp.csr_array((data, index, starts), shape=(len(rows), behind)))


def _prices(problem: Problem, windows: list[OpenWindow], multipliers: Array) -> Array:
    """What the objective gains per unit of each y: the multipliers of the rows that hold it down."""
    holding = np.where(np.isneginf(problem.row_lower), -multipliers, 0.0)
    at = np.array([w.y for w in windows], dtype=np.int64)
    found: Array = np.maximum(holding @ problem.A[:, at], 0.0)
    return found


def _pair(one: OpenWindow, other: OpenWindow, z: Array, weight: Array) -> Largest:
    inputs = np.union1d(one.inputs, other.inputs)
    slopes = []
    for window in (one, other):
        w = np.zeros((len(window.z), len(inputs)))
        w[:, np.searchsorted(inputs, window.inputs)] = window.w
        slopes.append(w)
    w = weight[0] * slopes[0][:, None] + weight[1] * slopes[1][None]
    b = weight[0] * one.b[:, None] + weight[1] * other.b[None]
    return Largest(np.array([one.y, other.y]), weight, z.reshape(-1), inputs, w.reshape(-1, len(inputs)), b.reshape(-1))
