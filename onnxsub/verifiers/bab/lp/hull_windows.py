r"""Cuts from the convex hull of one window over a box: the largest of K affine functions (Anderson et al. 2020, section 5).

For `y = max_k a_k`, `a_k = w_k . v + b_k` over the box `[L, U]` of v, with the switch z_k of the largest one (`sum z = 1`), every
vector `s` of slopes gives

    y <= s . v + sum_k z_k (b_k + max { (w_k - s) . v : L <= v <= U })

since the window is `a_k` where `z_k = 1`. All of them together are the hull, of which the big-M rows are a weak consequence. The
cut that a point violates most is found input by input: the right-hand side is convex in `s_i` with kinks at the `w_ki`, and least
where the switches of the elements with larger `w_ki` sum up to the share `(v_i - L_i) / (U_i - L_i)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.lp.hull import OUTWARD, Cut, Entries, Unit, units_of, violated
from onnxsub.verifiers.programs.solvers import Problem

__all__ = ["Hulls", "Largest", "OpenWindow", "windows_of"]

_VIOLATED = 1e-4  # by how much a point must violate a cut of a unit
_OF_WINDOWS = 1e-5  # the same for windows: dozens of them add up to what is left of the bound
_APART = 1e-6  # ends of a row that defines a column


@dataclass(frozen=True, eq=False)
class Largest:
    """`weight . y <= max_k w_k . v + b_k` in a program, as `weight . y <= w_k . v + b_k` where the switch `z_k = 1`.

    `b_k` covers what the rows leave: they are read as they stand, so whatever operator wrote them, the cuts hold.

    Attributes:
        y, weight: columns of what is bounded, and their weights, none of them negative.
        z: columns of the switches, `(K,)`.
        inputs: columns v, `(n,)`.
        w: `(K, n)`. b: `(K,)`.
    """

    y: Array
    weight: Array
    z: Array
    inputs: Array
    w: Array
    b: Array

    @cached_property
    def _ranked(self) -> tuple[Array, Array]:
        """Elements in the order of their slopes, per input, and these slopes."""
        order = np.argsort(self.w, axis=0)
        return order, np.take_along_axis(self.w, order, 0)

    def violated(self, problem: Problem, v: Array, least: float) -> Cut | None:
        """The cut that a solution violates most; None: none by more than `least`.

        Args:
            v: all columns.
        """
        z, x = np.maximum(v[self.z], 0.0), v[self.inputs]
        low, high = problem.col_lower[self.inputs], problem.col_upper[self.inputs]
        order, ranked = self._ranked
        width = high - low
        share = np.clip(np.where(width > 0, (x - low) / np.where(width > 0, width, 1.0), 0.0), 0.0, 1.0)
        # switches of the elements with larger slopes than each one
        beyond = z[order][::-1].cumsum(axis=0)[::-1] - z[order]
        slope = np.take_along_axis(ranked, (beyond <= share).argmax(axis=0)[None], 0)[0]
        steep = self.w - slope
        height = self.b + np.maximum(steep * low, steep * high).sum(axis=1)
        size = 1.0 + float((np.abs(self.w).max(axis=0) * np.maximum(np.abs(low), np.abs(high))).sum()) + float(np.abs(self.b).max())
        height = height + OUTWARD * size
        used = slope != 0
        columns = np.concatenate([self.y, self.z, self.inputs[used]])
        cut = Cut(columns, np.concatenate([self.weight, -height, -slope[used]]), 0.0)
        return cut if cut.over(v) > least else None


@dataclass(frozen=True, eq=False)
class OpenWindow:
    """One window of a program: its column y, the columns z of its switches, and `y <= w_k . v + b_k` where `z_k = 1`."""

    y: int
    z: Array
    inputs: Array
    w: Array
    b: Array

    @cached_property
    def largest(self) -> Largest:
        """What its cuts are made of."""
        return Largest(np.array([self.y]), np.ones(1), self.z, self.inputs, self.w, self.b)

    def violated(self, problem: Problem, v: Array, least: float) -> Cut | None:
        """As `Largest.violated`."""
        return self.largest.violated(problem, v, least)


@dataclass(frozen=True, eq=False)
class Hulls:
    """The units and windows of a program whose hulls are known, and pairs of windows (`hull_pairs.py`)."""

    units: list[Unit]
    windows: list[OpenWindow]
    pairs: list[Largest] = field(default_factory=list)

    @staticmethod
    def of(problem: Problem) -> Hulls:
        """Those whose rows stand in it."""
        return Hulls(units_of(problem), windows_of(problem))

    def at(self, problem: Problem, v: Array) -> list[Cut]:
        """The cuts that a point, all columns, violates most: one per unit, window and pair at most."""
        found = [violated(problem, u, v, _VIOLATED) for u in self.units]
        found += [w.violated(problem, v, _OF_WINDOWS) for w in [*(w.largest for w in self.windows), *self.pairs]]
        return [c for c in found if c is not None]


def windows_of(problem: Problem) -> list[OpenWindow]:
    """The windows whose rows stand in a program as `encode_windows` writes them; others are left out."""
    entries = Entries(problem)
    ones = np.flatnonzero((problem.row_lower == 1.0) & (problem.row_upper == 1.0)).tolist()
    found = (_window(problem, entries, i) for i in ones)
    return [w for w in found if w is not None]


def _window(problem: Problem, entries: Entries, number: int) -> OpenWindow | None:
    """The window whose switches sum up to 1 in a row."""
    switches = entries.row(number)
    if len(switches) < 2 or any(c != 1.0 for c in switches.values()) or not problem.integer[list(switches)].all():
        return None
    links, over = [], []
    for z in switches:
        # y - x + bound z <= bound
        rows = [k for k in entries.reading(z) if k != number]
        if len(rows) != 1 or not np.isfinite(problem.row_upper[rows[0]]):
            return None
        link = entries.row(rows[0])
        over.append(float(problem.row_upper[rows[0]]) - link.pop(z))
        links.append(link)
    shared = [c for c in links[0] if all(link.get(c) == 1.0 for link in links)]
    if len(shared) != 1:
        return None
    (y,) = shared
    lines = [_line(problem, entries, link, y, room) for link, room in zip(links, over, strict=True)]
    inputs = np.unique(np.array([c for w, _ in lines for c in w], dtype=np.int64))
    if not (np.isfinite(problem.col_lower[inputs]).all() and np.isfinite(problem.col_upper[inputs]).all()):
        return None
    slopes = np.zeros((len(lines), len(inputs)))
    for k, (w, _) in enumerate(lines):
        slopes[k, np.searchsorted(inputs, list(w))] = list(w.values())
    return OpenWindow(y, np.array(list(switches)), inputs, slopes, np.array([b for _, b in lines]))


def _line(problem: Problem, entries: Entries, link: dict[int, float], y: int, over: float) -> tuple[dict[int, float], float]:
    """Columns and a constant with `y <= w . v + b` where the switch of a link is 1: the element as the columns it is made of.

    The element is a column with a row that defines it, or one or no column itself.
    """
    rest = {c: -w for c, w in link.items() if c != y}
    if len(rest) == 1 and 1.0 in rest.values():
        (x,) = rest
        for i in entries.reading(x):
            found, low = entries.row(i), float(problem.row_lower[i])
            # w v - x within equal ends, but for tiny coefficients left out
            if found.pop(x) != -1.0 or not found or not problem.row_upper[i] - low <= _APART:
                continue
            if y not in found and not problem.integer[list(found)].any():
                return found, over - low
    return rest, over
