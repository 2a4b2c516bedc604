"""What each unit of a folded network is the largest of, over the offset from the anchor and the units before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.ops.relu import Relu
from onnxsub.ops.windows import Windows, contenders
from onnxsub.verifiers.bab.wide.blocks import Walk
from onnxsub.verifiers.box.clause import ClauseModel

__all__ = ["Affines", "Unit", "Units"]

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
class Unit:
    """`max_i (w_i . d + v_i . u + b_i)` with the values u of the units before it.

    Attributes:
        w: `(K, n)`. v: `(K, Q)`, Q units in all. b: `(K,)`.
        low, high: `(K,)`, where each element lies at points of interest; of no use where v is zero.
    """

    w: Array
    v: Array
    b: Array
    low: Array
    high: Array

    @property
    def reads(self) -> bool:
        """Whether it reads another one."""
        return bool(self.v.any())

    @property
    def own(self) -> Affines:
        """What its elements are of the offset."""
        return Affines(self.w, self.b)


class Units:
    """Of a clause's network; those that are one element at all points of interest are functions of the input and of the others.

    Attributes:
        open: those that are not, by place; their v is over all places.
    """

    def __init__(self, model: ClauseModel, walk: Walk, low: Array, high: Array) -> None:
        self._model, self._walk, self._low, self._high = model, walk, low, high
        self._x0 = np.asarray(model.local.box.x0, dtype=np.float64).reshape(-1)
        self._w, self._v, self._b = np.zeros((walk.units, walk.inputs)), np.zeros((walk.units, walk.units)), np.zeros(walk.units)
        self._is_open = np.zeros(walk.units, dtype=np.bool_)
        self.open: dict[int, Unit] = {}

    def read(self) -> bool:
        """Whether all of it could be read."""
        for op in self._model.local.network.nonlinear:
            found = self._walk.rows(op.inputs[0])
            if found is None:
                return False
            lower, upper = (np.asarray(e, dtype=np.float64).reshape(-1) for e in self._model.intervals[op.output])
            if isinstance(op, Windows):
                alive = contenders(op.table, lower, upper)
                pieces = [op.table[i][alive[i]] for i in range(len(op.table))]
            elif isinstance(op, Relu):
                # -1: the constant 0
                pieces = [np.array([-1] if u <= 0 else [i] if l >= 0 else [i, -1]) for i, (l, u) in enumerate(zip(lower, upper))]  # noqa: B905
            else:
                return False
            first = self._walk.places[op.output].start
            for i, own in enumerate(pieces):
                self._take(first + i, own, found, (lower, upper))
        return True

    def _take(self, place: int, own: Array, found: tuple[Array, Array, Array], ends: tuple[Array, Array]) -> None:
        on = (own >= 0)[:, None]
        w, v, b = self.reduced(found[0][own] * on, found[1][own] * on, (found[2][own] + found[0][own] @ self._x0) * on[:, 0])
        unit = Unit(w, v, b, *(np.where(on[:, 0], end[own], 0.0) for end in ends))
        if len(own) > 1 and not unit.reads:
            left = unit.own.undominated(self._low, self._high)
            unit = Unit(*(part[left] for part in (w, v, b, unit.low, unit.high)))
        if len(unit.b) == 1:
            self._w[place], self._v[place], self._b[place] = unit.w[0], unit.v[0], unit.b[0]
        else:
            self._is_open[place] = True
            self.open[place] = unit

    def reduced(self, w: Array, v: Array, b: Array) -> tuple[Array, Array, Array]:
        """Rows over the offset and all units as rows over the offset and the open ones."""
        fixed = np.where(self._is_open, 0.0, v)
        return w + fixed @ self._w, np.where(self._is_open, v, 0.0) + fixed @ self._v, b + fixed @ self._b
