r"""A row over maxima of affine functions, which may read one another:

    row(d) <= a . d + weights . u + k,    u_q = max_i (w_qi . d + v_qi . u + b_qi)

for all offsets d from the anchor at which the row is not negative; v_q reads units before q only. Elements of a unit over inputs
that another one reaches wherever in the box are left out, by their difference: around an anchor whose elements are all equal,
intervals tell nothing apart.

A bound replaces every unit by lines. Going from the last unit to the first, a unit has some weight by then; the row *rises* with
a unit that may have a positive one and *falls* with a unit that may have a negative one. One that it only falls with is no choice:
with its mixtures of elements the row is concave in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.pieces.units import Affines, Unit, Units
from onnxsub.verifiers.bab.wide.blocks import Walk
from onnxsub.verifiers.box.clause import ClauseModel

__all__ = ["Maxima"]


@dataclass(frozen=True, eq=False)
class Maxima:
    """The row of the module.

    Attributes:
        a: `(n,)`. weights: `(Q,)`. k: relaxed as all proofs are (`BoxModel.slack`).
        units: each has at least two elements.
        low, high: the box of d, `(n,)`.
    """

    a: Array
    weights: Array
    k: float
    units: tuple[Unit, ...]
    low: Array
    high: Array

    @staticmethod
    def of(model: ClauseModel) -> Maxima | None:
        """The row of a clause with one row; None where a unit is neither window nor Relu, or a number is not finite."""
        with np.errstate(all="ignore"):  # looked at when all is there
            found = Maxima._of(model)
            return found if found is not None and found._finite else None

    @staticmethod
    def _of(model: ClauseModel) -> Maxima | None:
        if len(model.members) != 1:
            return None
        walk = Walk(model.local)
        last = walk.rows(model.local.network.output)
        x0 = np.asarray(model.local.box.x0, dtype=np.float64).reshape(-1)
        low, high = model.lower.reshape(-1) - x0, model.upper.reshape(-1) - x0
        units = Units(model, walk, low, high)
        if last is None or not units.read():
            return None
        w, v, b = units.reduced(*(part[[model.row]] for part in last))
        k = float(b[0]) + float(last[0][model.row] @ x0) + model.slack
        places = list(units.open)
        own = tuple(Unit(u.w, u.v[:, places], u.b, u.low, u.high) for u in units.open.values())
        return Maxima(w[0], v[0, places], k, own, low, high)

    @property
    def _finite(self) -> bool:
        parts = [self.a, self.weights, np.array(self.k), self.low, self.high]
        parts += [t for u in self.units for t in ((u.w, u.v, u.b, u.low, u.high) if u.reads else (u.w, u.b))]
        return all(bool(np.isfinite(t).all()) for t in parts)

    def within(self, radius: float) -> tuple[Array, Array]:
        """The box within a radius of the anchor."""
        return np.maximum(self.low, -radius), np.minimum(self.high, radius)

    @cached_property
    def depths(self) -> Array:
        """Of each unit: 0 where it reads none, else one more than the deepest that it reads, `(Q,)`."""
        found = np.zeros(len(self.units), dtype=np.int64)
        for q, unit in enumerate(self.units):
            read = unit.v.any(axis=0)
            found[q] = 1 + found[read].max() if read.any() else 0
        return found

    @cached_property
    def ends(self) -> tuple[Array, Array]:
        """The smallest and the largest weight that a unit may have by whatever lines are chosen for the others, `(Q,)`."""
        least, most = self.weights.copy(), self.weights.copy()
        for q in reversed(range(len(self.units))):
            v = self.units[q].v
            lowest, highest = np.minimum(v.min(axis=0), 0.0), np.maximum(v.max(axis=0), 0.0)
            up, down = max(most[q], 0.0), max(-least[q], 0.0)
            most += up * highest - down * lowest
            least += up * lowest - down * highest
        return least, most

    @cached_property
    def rising(self) -> tuple[int, ...]:
        """Units that the row may rise with."""
        return tuple(np.flatnonzero(self.ends[1] > 0).tolist())

    @cached_property
    def falling(self) -> tuple[int, ...]:
        """Units that the row may fall with; some may be rising as well."""
        return tuple(np.flatnonzero(self.ends[0] < 0).tolist())

    @cached_property
    def size(self) -> float:
        """No sum of terms of the row, with whatever lines, has larger terms in all."""
        far = np.maximum(np.abs(self.low), np.abs(self.high))
        found = abs(self.k) + float(np.abs(self.a) @ far)
        for weight, unit in zip(np.maximum(*map(np.abs, self.ends)), self.units, strict=True):
            own = float((np.abs(unit.w) @ far + np.abs(unit.b)).sum())
            if unit.reads:
                own += float(np.maximum(np.abs(unit.low), np.abs(unit.high)).sum())
            found += float(weight) * own
        return found

    def unit_values(self, d: Array) -> tuple[Array, list[Array]]:
        """At points `(N, n)`: of all units, `(N, Q)`, and of their elements, `(N, K)` each."""
        u, elements = np.zeros((len(d), len(self.units))), list[Array]()
        if not self.units:
            return u, elements
        over_d = d @ self._all.w.T + self._all.b
        for q, unit in enumerate(self.units):
            own = over_d[:, self._first[q] : self._first[q] + len(unit.b)]
            elements.append(own + u @ unit.v.T if self.depths[q] else own)
            u[:, q] = elements[-1].max(axis=1)
        return u, elements

    @cached_property
    def _all(self) -> Affines:
        return Affines.joined([u.own for u in self.units], len(self.a))

    @cached_property
    def _first(self) -> Array:
        return np.cumsum([0, *(len(u.b) for u in self.units)])

    def values(self, d: Array) -> Array:
        """The right-hand side of the module at points `(N, n)`."""
        found: Array = d @ self.a + self.unit_values(d)[0] @ self.weights + self.k
        return found

    def winners(self, d: Array) -> tuple[int, ...]:
        """Which element of each of the rising units is the largest at a point."""
        elements = self.unit_values(d[None])[1]
        return tuple(int(elements[q][0].argmax()) for q in self.rising)
