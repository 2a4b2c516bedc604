"""The only place that says what is proved: lower ends rise here, clauses are refuted here, and witnesses are held against both.

Two rules. What is not finite proves nothing: a bound counts where it is a number below zero, a radius where it is a number, and the
radius `inf` only from a proof that there is no point at all. And proof and witness are compared: a lower end above a replayed point
by more than rounding is a contradiction. Either the point is no counterexample over the real numbers, then float32 execution
differs from the network that the proof is about, and that is the answer; or it is one, then something here is wrong, and
`ContradictionError` says so.

Whoever closes a target hands over what closed it; a certificate would be written down here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import numpy as np

from onnxsub.errors import ContradictionError
from onnxsub.ops.base import Array
from onnxsub.verifiers.witness import Witness

__all__ = ["REAL_TIE", "Claims", "excluded", "excludes"]

REAL_TIE = 1e-9
"""Of the margin's scale: what float64 evaluation cannot tell from zero."""

K = TypeVar("K", bound=Hashable)


def excludes(upper: float) -> bool:
    """Whether an upper bound of a margin proves that the margin is negative."""
    return math.isfinite(upper) and upper < 0


def excluded(uppers: Array) -> Array:
    """The same for many, bool."""
    return np.isfinite(uppers) & (uppers < 0)


class Claims(Generic[K]):
    """What is proved and what was replayed of the keys of one question: other classes, or clauses.

    `lowers[k] <= d_k <= uppers[k]` holds at every moment, d_k being the distance at which key k is reached. A decision about a box
    has no distances: there a point lies at 0 and a refuted key at infinity.

    Attributes:
        lowers, uppers: per key.
        excluded: keys whose lower end came from bounds alone.
        best: the nearest confirmed point; rejected: the nearest that the judge did not confirm.
        diverged: a confirmed point inside what is proved to hold none, which is no counterexample over the real numbers.

    Args:
        keys: of the question.
        over_reals: a witness to the margin that the network has there over the real numbers, in units of the margin's scale.
        rounding: by how much a lower end may lie above a point, in the units of radii, by the point.
        tol: a point of float32 execution alone is told apart only where a lower end lies above it by more than this too: what the
            caller asked for. A point over the real numbers is a contradiction whatever was asked for.
    """

    def __init__(
        self,
        keys: Iterable[K],
        over_reals: Callable[[Witness], float],
        rounding: Callable[[Witness], float],
        tol: float = 0.0,
    ) -> None:
        self.lowers: dict[K, float] = dict.fromkeys(keys, 0.0)
        self.uppers: dict[K, float] = dict.fromkeys(self.lowers, math.inf)
        self.excluded: set[K] = set()
        self.best: Witness | None = None
        self.rejected: Witness | None = None
        self.diverged: Witness | None = None
        self._open = dict.fromkeys(self.lowers)
        self._over_reals = over_reals
        self._rounding = rounding
        self._tol = tol
        self._points: dict[K, Witness] = {}

    @property
    def upper(self) -> float:
        """Distance of the best point; infinite where there is none."""
        return min(self.uppers.values(), default=math.inf)

    @property
    def lower(self) -> float:
        """The smallest lower end."""
        return min(self.lowers.values(), default=math.inf)

    @property
    def open(self) -> list[K]:
        """The keys that are not refuted altogether."""
        return list(self._open)

    def prove(self, key: K, radius: float, *, by_bounds: bool = False) -> None:
        """Notes `d_key >= radius`; `inf`: no point reaches it."""
        if math.isnan(radius) or radius <= self.lowers[key]:
            return
        if by_bounds:
            self.excluded.add(key)
        else:
            self.excluded.discard(key)
        self.lowers[key] = radius
        if math.isinf(radius):
            self._open.pop(key, None)
        self._compare(key)

    def reach(self, key: K, witness: Witness, radius: float) -> None:
        """Takes a point that was judged: at `radius` it reaches `key`, if it is confirmed."""
        if not witness.confirmed:
            if self.rejected is None or not radius >= self.rejected.radius:
                self.rejected = witness
            return
        if radius < self.upper:
            self.best = witness
        if radius < self.uppers[key]:
            self.uppers[key] = radius
            self._points[key] = witness
            self._compare(key)

    def _compare(self, key: K) -> None:
        witness = self._points.get(key)
        if witness is None or self.lowers[key] <= self.uppers[key] + self._rounding(witness):
            return
        real = self._over_reals(witness)
        if not real > REAL_TIE:
            told = self.lowers[key] > self.uppers[key] + self._tol
            if told and (self.diverged is None or self.uppers[key] <= self.upper):
                self.diverged = witness
            return
        lower = "no point" if math.isinf(self.lowers[key]) else f"distance >= {self.lowers[key]!r}"
        raise ContradictionError(
            f"proved: {lower} of {key!r}; replayed: a point at {self.uppers[key]!r} with margin {witness.margin!r}, and over "
            f"the real numbers likewise (margin {real:.3g} of its scale); one is wrong: please report model, anchor and command"
        )
