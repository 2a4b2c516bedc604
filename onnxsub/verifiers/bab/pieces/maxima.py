r"""A row as a sum of maxima of affine functions, where no unit that is left open reads another one:

    row(d) <= a . d + k + sum_i max_j (w_ij . d + b_ij) + sum_i min_j (w_ij . d + b_ij)

for all offsets d from the anchor at which the row is not negative. A window or a Relu that the row rises with is one of the
maxima, one that it falls with one of the minima, with the row's own weight in w and b. Elements that another one reaches wherever
in the box are left out, by their difference: around an anchor whose elements are all equal, intervals tell nothing apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.ops.relu import Relu
from onnxsub.ops.windows import Windows, contenders
from onnxsub.verifiers.bab.wide.blocks import Walk
from onnxsub.verifiers.box.clause import ClauseModel

__all__ = ["Affines", "Maxima"]

_COMPARED = 2**24  # numbers that the comparison of one unit's elements may go over


@dataclass(frozen=True, eq=False)
class Affines:
    """`w . d + b`, several of them: `(K, n)` and `(K,)`."""

    w: Array
    b: Array

    @staticmethod
    def joined(parts: Sequence[Affines], n: int) -> Affines:
        """All of several, over n inputs."""
        w, b = [e.w for e in parts], [e.b for e in parts]
        return Affines(np.concatenate([np.zeros((0, n)), *w]), np.concatenate([np.zeros(0), *b]))

    def take(self, index: Array | list[int]) -> Affines:
        """Some of them."""
        return Affines(self.w[index], self.b[index])

    def times(self, factor: float) -> Affines:
        """All of them, multiplied."""
        return Affines(factor * self.w, factor * self.b)

    def undominated(self, low: Array, high: Array) -> list[int]:
        """Those that no other one reaches wherever in a box; of equal ones the last is left."""
        middle, half = (low + high) / 2, (high - low) / 2
        left = list(range(len(self.b)))
        if self.w.size * len(left) > _COMPARED:
            return left
        for j in range(len(self.b)):
            others = [i for i in left if i != j]
            over = self.w[j] - self.w[others]
            if (over @ middle + np.abs(over) @ half + self.b[j] - self.b[others] <= 0).any():
                left.remove(j)
        return left


@dataclass(frozen=True, eq=False)
class Maxima:
    """The row of the module.

    Attributes:
        a: `(n,)`. k: relaxed as all proofs are (`BoxModel.slack`).
        rising: the maxima; falling: the minima. Each has at least two elements.
        low, high: the box of d, `(n,)`.
    """

    a: Array
    k: float
    rising: tuple[Affines, ...]
    falling: tuple[Affines, ...]
    low: Array
    high: Array

    @staticmethod
    def of(model: ClauseModel) -> Maxima | None:
        """The row of a clause with one row; None where an open unit reads another one, or is neither window nor Relu, or a number
        is not finite."""
        with np.errstate(all="ignore"):  # looked at when all is there
            found = Maxima._of(model)
            return found if found is not None and found._finite else None

    @staticmethod
    def _of(model: ClauseModel) -> Maxima | None:
        network = model.local.network
        if len(model.members) != 1 or not all(isinstance(op, Windows | Relu) for op in network.nonlinear):
            return None
        walk = Walk(model.local)
        last = walk.rows(network.output)
        units = _Units(model, walk)
        if last is None or not units.read():
            return None
        x0 = np.asarray(model.local.box.x0, dtype=np.float64).reshape(-1)
        low, high = model.lower.reshape(-1) - x0, model.upper.reshape(-1) - x0
        w, v, b = units.reduced(*(part[[model.row]] for part in last))
        a, weights, k = w[0], v[0], float(b[0]) + float(w[0] @ x0) + model.slack
        rising, falling = list[Affines](), list[Affines]()
        for place, elements in units.open.items():
            c, moved = weights[place], Affines(elements.w, elements.b + elements.w @ x0)
            own = moved.take(moved.undominated(low, high)).times(c)
            if c == 0 or len(own.b) == 1:
                a, k = a + own.w[0], k + float(own.b[0])
            else:
                (rising if c > 0 else falling).append(own)
        return Maxima(a, k, tuple(rising), tuple(falling), low, high)

    @property
    def _finite(self) -> bool:
        parts = [self.a, np.array(self.k), self.low, self.high, *(t for e in (*self.rising, *self.falling) for t in (e.w, e.b))]
        return all(bool(np.isfinite(t).all()) for t in parts)

    def within(self, radius: float) -> tuple[Array, Array]:
        """The box within a radius of the anchor."""
        return np.maximum(self.low, -radius), np.minimum(self.high, radius)

    @cached_property
    def _all(self) -> tuple[tuple[Affines, Array], tuple[Affines, Array]]:
        """All elements of the maxima and of the minima, and where each of these begins."""

        def joined(part: tuple[Affines, ...]) -> tuple[Affines, Array]:
            return Affines.joined(part, len(self.a)), np.cumsum([0, *(len(e.b) for e in part)])[:-1]

        return joined(self.rising), joined(self.falling)

    def values(self, d: Array) -> Array:
        """The right-hand side of the module at points `(N, n)`."""
        found: Array = d @ self.a + self.k
        for (e, first), most in zip(self._all, (np.maximum, np.minimum), strict=True):
            if len(first):
                found = found + most.reduceat(d @ e.w.T + e.b, first, axis=1).sum(axis=1)
        return found

    def winners(self, d: Array) -> tuple[int, ...]:
        """Which element of each of the maxima is the largest at a point."""
        return tuple(int((e.w @ d + e.b).argmax()) for e in self.rising)


class _Units:
    """The units of a folded network: those that are one element on the intervals as functions of the input and of the others."""

    def __init__(self, model: ClauseModel, walk: Walk) -> None:
        self._model, self._walk = model, walk
        self._w, self._v, self._b = np.zeros((walk.units, walk.inputs)), np.zeros((walk.units, walk.units)), np.zeros(walk.units)
        self._is_open = np.zeros(walk.units, dtype=np.bool_)
        self.open: dict[int, Affines] = {}

    def read(self) -> bool:
        """Whether all of it could be read, and no open unit reads an open one."""
        for op in self._model.local.network.nonlinear:
            found = self._walk.rows(op.inputs[0])
            if found is None:
                return False
            lower, upper = (np.asarray(e, dtype=np.float64).reshape(-1) for e in self._model.intervals[op.output])
            first = self._walk.places[op.output].start
            if isinstance(op, Windows):
                alive = contenders(op.table, lower, upper)
                pieces = [op.table[i][alive[i]] for i in range(len(op.table))]
            else:
                # -1: the constant 0
                pieces = [np.array([-1] if u <= 0 else [i] if l >= 0 else [i, -1]) for i, (l, u) in enumerate(zip(lower, upper))]  # noqa: B905
            for i, own in enumerate(pieces):
                if not self._take(first + i, own, found):
                    return False
        return True

    def _take(self, place: int, own: Array, found: tuple[Array, Array, Array]) -> bool:
        on = (own >= 0)[:, None]
        w, v, b = self.reduced(found[0][own] * on, found[1][own] * on, found[2][own] * on[:, 0])
        if len(own) == 1:
            self._w[place], self._v[place], self._b[place] = w[0], v[0], b[0]
            return True
        self._is_open[place] = True
        self.open[place] = Affines(w, b)
        return not v.any()

    def reduced(self, w: Array, v: Array, b: Array) -> tuple[Array, Array, Array]:
        """Rows over the input and all units as rows over the input and the open ones."""
        fixed = np.where(self._is_open, 0.0, v)
        return w + fixed @ self._w, np.where(self._is_open, v, 0.0) + fixed @ self._v, b + fixed @ self._b
