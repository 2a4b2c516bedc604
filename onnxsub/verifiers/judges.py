"""Who says what a point of a box is worth: the file under onnxruntime, asked about classes or about the clauses of a case."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxsub.instance import Instance
from onnxsub.lattice import whole_ends
from onnxsub.ops.base import Array
from onnxsub.properties.property import Case, tabled
from onnxsub.query import worst_margin
from onnxsub.runtime import Runtime
from onnxsub.verifiers.witness import Witness, ball_float32, inside_float32

__all__ = ["BallJudge", "CaseJudge"]


class BallJudge:
    """Replays points of `B(eps)`: another class, or a tie, is reached where `f_t >= f_y`. Clauses count the other classes.

    Args:
        instance: with a `replay`.
    """

    def __init__(self, instance: Instance, eps: float) -> None:
        self._instance = instance
        self._whole = instance.space.whole
        ends = ball_float32(instance.ball(eps), instance.x0, eps, whole=self._whole)
        self.lower, self.upper = (end.reshape(-1) for end in ends)
        self._anchor = instance.x0.astype(np.float32).reshape(-1)
        self._clause = {t: k for k, t in enumerate(instance.targets)}

    def _fed(self, x: Array) -> Array:
        """Points `(N, ...)` as float32 points of the ball; a side that holds none keeps the anchor's value."""
        flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1).astype(np.float32)
        flat = np.rint(flat) if self._whole else flat
        inside = np.where(self.lower > self.upper, self._anchor, np.clip(flat, self.lower, np.maximum(self.lower, self.upper)))
        return np.asarray(inside.reshape(len(x), *self._instance.x0.shape))

    def margins(self, points: Array) -> tuple[Array, Array]:
        """`max_t f_t - f_y` and that t for points anywhere, `(N, *input_shape)` float32."""
        assert self._instance.replay is not None
        return worst_margin(np.asarray(self._instance.replay(points)), self._instance.label, self._instance.target)

    def judge(self, x: Array) -> Witness:
        point = self._fed(np.asarray(x)[None])
        margins, labels = self.margins(point)
        margin, label = float(margins[0]), int(labels[0])
        radius = float(np.abs(point[0].astype(np.float64) - self._instance.x0).max(initial=0.0))
        # NaN is neither: it compares false everywhere
        kind = "strict" if margin > 0 else "tie" if margin == 0 else "rejected"
        return Witness(point[0], radius, label, margin, kind, None, 0, self._clause[label])

    def best(self, x: Array) -> Witness:
        points = self._fed(x)
        return self.judge(points[int(np.nan_to_num(self.margins(points)[0], nan=-math.inf).argmax())])


_ENTRIES = 2**22  # margins that are worked out at once


class CaseJudge:
    """Replays points of one case of a property on the file.

    Args:
        number: of the case, for its witnesses.
    """

    def __init__(self, runtime: Runtime, case: Case, number: int = 0) -> None:
        self._runtime = runtime
        self._number = number
        self._dtype, self._whole = runtime.model.input_dtype, runtime.model.whole
        if self._whole:
            lower, upper = whole_ends(case.lower, case.upper, runtime.model.feed.dtype)
            case = replace(case, lower=lower, upper=upper)
        self._case = case
        self.lower, self.upper = inside_float32(case.lower, case.upper, self._dtype, whole=self._whole)
        table, members = tabled(case.clauses)
        used, flat = np.unique(np.concatenate(members), return_inverse=True)
        self._rows, self._ends, self._strict = table.A[used], table.b[used], table.strict[used]
        first = np.cumsum([0, *map(len, members)])[:-1]
        # rows of all clauses are looked at once, not per clause
        once = np.unique(np.repeat(np.arange(len(members)), [len(m) for m in members]) * len(used) + flat)
        everywhere = (np.bincount(once % len(used)) == len(members)) & (len(members) > 1)
        everywhere[flat[first]] = False  # no clause is left without a row
        own = ~everywhere[flat]
        self._everywhere, self._own = np.flatnonzero(everywhere), flat[own]
        self._first = np.cumsum(own)[first] - 1

    def _fed(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1).astype(self._dtype)
        flat = np.rint(flat) if self._whole else flat
        return np.asarray(np.clip(flat, self.lower, self.upper))

    def _least(self, y: Array) -> tuple[Array, Array]:
        """The smallest row of every clause and whether the clause holds, `(N, clauses)`; NaN holds nothing."""
        block = max(1, _ENTRIES // (len(self._own) + len(self._ends)))
        parts = [self._least_of(y[i : i + block]) for i in range(0, len(y), block)]
        least, holds = zip(*parts, strict=True)
        return np.concatenate(least), np.concatenate(holds)

    def _least_of(self, y: Array) -> tuple[Array, Array]:
        with np.errstate(invalid="ignore", over="ignore"):
            margins = self._ends - np.asarray(y, dtype=np.float64) @ self._rows.T
            holds = np.where(self._strict, margins > 0, margins >= 0)
        least = np.minimum.reduceat(margins[:, self._own], self._first, axis=1)
        held = np.logical_and.reduceat(holds[:, self._own], self._first, axis=1)
        if len(self._everywhere):
            least = np.minimum(least, margins[:, self._everywhere].min(1, keepdims=True))
            held &= holds[:, self._everywhere].all(1, keepdims=True)
        return least, held

    def margins(self, points: Array) -> tuple[Array, Array]:
        """The largest over the clauses of the smallest row, and that clause, for points anywhere, `(N, *input_shape)`."""
        points = np.rint(points) if self._whole else np.asarray(points)
        y = self._runtime.raw(points.reshape(-1, *self._runtime.model.input_shape))
        least = np.nan_to_num(self._least(y.reshape(len(y), -1))[0], nan=-math.inf)
        best = least.argmax(1)
        return least[np.arange(len(least)), best], best

    def judge(self, x: Array) -> Witness:
        fed = self._fed(np.asarray(x)[None])
        model = self._runtime.model
        y = self._runtime.raw(fed.reshape(1, *model.input_shape), one_by_one=True).reshape(1, -1).astype(np.float64)
        # where a side is narrower than the grid, the point named is the end of the box that is cast to `fed`; whole numbers stay
        point = fed[0].astype(np.float64)
        point = point if self._whole else np.clip(point, self._case.lower, self._case.upper)
        (least,), (holds,) = self._least(y)
        values = np.where(holds | ~holds.any(), np.nan_to_num(least, nan=-math.inf), -math.inf)
        best = int(values.argmax())
        margin = float(least[best])
        confirmed = bool(holds.any()) and self._case.contains(point)
        kind = "rejected" if not confirmed else "strict" if margin > 0 else "tie"
        return Witness(point, math.nan, -1, margin, kind, None, self._number, best, y[0])

    def best(self, x: Array) -> Witness:
        fed = self._fed(x)
        model = self._runtime.model
        least, _ = self._least(self._runtime.raw(fed.reshape(-1, *model.input_shape)).reshape(len(fed), -1))
        return self.judge(fed[int(np.nan_to_num(least, nan=-math.inf).max(1).argmax())])
