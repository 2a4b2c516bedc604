r"""Cuts from the convex hull of one ReLU over a box (Anderson et al. 2020, "Strong mixed-integer programming formulations").

For `y = max(0, z)`, `z = w . v + b` over the box `[L, U]` of v, with the binary a of the sign, every subset I of the inputs gives

    y <= sum_{i in I} w_i (v_i - m_i (1 - a)) + (b + sum_{i not in I} w_i M_i) a

where `m_i`, `M_i` are the ends of `[L_i, U_i]` at which `w_i v_i` is smallest and largest: for a = 1 the terms of I are what they
are in z and the others at most their largest, for a = 0 every `w_i (v_i - m_i)` is at least 0. All of them together are the hull,
of which the big-M rows are a weak consequence. The cut that a point violates most is found input by input: i is in I where
`w_i v_i < w_i (m_i (1 - a) + M_i a)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from onnxsub.ops.base import Array
from onnxsub.verifiers.programs.solvers import Problem

__all__ = ["OUTWARD", "Cut", "Entries", "Unit", "units_of", "violated"]

OUTWARD = 1e-9  # of the size of a cut: far more than its coefficients can round


@dataclass(frozen=True, eq=False)
class Unit:
    """One ReLU of a program: its columns y and a, and `z = w . v + b +- room` over the columns `inputs`.

    `room` also covers what the big-M rows leave: `y <= room` for a = 0 and `y <= z + room` for a = 1 follow from the rows as they
    stand, so whatever operator wrote them, the cuts hold.
    """

    y: int
    a: int
    inputs: Array
    w: Array
    b: float
    room: float


@dataclass(frozen=True, eq=False)
class Cut:
    """`coefficients . columns <= upper`."""

    columns: Array
    coefficients: Array
    upper: float

    def over(self, v: Array) -> float:
        """By how much a point, all columns, violates it."""
        return float(self.coefficients @ v[self.columns]) - self.upper


class Entries:
    """The coefficients of a program, row by row and column by column."""

    def __init__(self, problem: Problem) -> None:
        self._rows, self._columns = sp.csr_array(problem.A), sp.csc_array(problem.A)

    def row(self, i: int) -> dict[int, float]:
        """Coefficients of a row by column."""
        at = slice(self._rows.indptr[i], self._rows.indptr[i + 1])
        return dict(zip(self._rows.indices[at].tolist(), self._rows.data[at].tolist(), strict=True))

    def reading(self, column: int) -> list[int]:
        """The rows that have a column."""
        found: list[int] = self._columns.indices[self._columns.indptr[column] : self._columns.indptr[column + 1]].tolist()
        return found


def units_of(problem: Problem) -> list[Unit]:
    """The ReLUs whose big-M rows and whose row of z stand in a program as `relu_rows` writes them; others are left out."""
    return list(_units(problem, Entries(problem)))


def _units(problem: Problem, entries: Entries) -> Iterator[Unit]:
    row = entries.row
    for a in np.flatnonzero(problem.integer).tolist():
        own = [(row(i), float(problem.row_upper[i])) for i in entries.reading(a)]
        if sorted(len(r) for r, _ in own) != [2, 3]:
            continue
        (short, off), (long, on) = sorted(own, key=lambda r: len(r[0]))
        (y,) = short.keys() - {a}
        rest = long.keys() - {a, y}
        if short[y] != 1.0 or long.get(y) != 1.0 or len(rest) != 1:
            continue
        (z,) = rest
        # y <= off for a = 0, and y <= z + on - long[a] for a = 1: zero both for a ReLU, not for a Clip at another threshold
        over = max(off, on - long[a], 0.0)
        if long[z] != -1.0 or not np.isfinite(over):
            continue
        for i in entries.reading(z):
            ends = problem.row_lower[i], problem.row_upper[i]
            found = row(i)
            # the row that defines z: it has other columns than y and a, and equal ends but for tiny coefficients left out
            if found.keys() <= {a, y, z} or found[z] != -1.0 or not np.isfinite(ends).all():
                continue
            inputs = np.array([c for c in found if c != z])
            w = np.array([found[c] for c in inputs.tolist()])
            middle, room = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
            if np.isfinite(problem.col_lower[inputs]).all() and np.isfinite(problem.col_upper[inputs]).all():
                yield Unit(y, a, inputs, w, -float(middle), float(room) + over)
            break


def violated(problem: Problem, unit: Unit, v: Array, least: float) -> Cut | None:
    """The cut of a unit that a solution violates most; None: none by more than `least`.

    Args:
        v: all columns.
    """
    a, x, w = float(v[unit.a]), v[unit.inputs], unit.w
    low, high = problem.col_lower[unit.inputs], problem.col_upper[unit.inputs]
    m, M = np.where(w > 0, low, high), np.where(w > 0, high, low)
    inside = w * x < w * (m * (1 - a) + M * a)
    at_a = unit.b + unit.room + float((w * M)[~inside].sum()) + float((w * m)[inside].sum())
    constant = -float((w * m)[inside].sum())
    # y - sum_I w_i v_i - at_a * a <= constant
    size = 1.0 + float(np.abs(w * np.maximum(np.abs(low), np.abs(high))).sum()) + abs(unit.b)
    upper = constant + unit.room + OUTWARD * size
    columns = np.concatenate([[unit.y, unit.a], unit.inputs[inside]])
    cut = Cut(columns, np.concatenate([[1.0, -at_a], -w[inside]]), upper)
    return cut if cut.over(v) > least else None
