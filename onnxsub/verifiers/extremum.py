"""The largest value of a row on a box in the making: the best replayed point, what is proved, and in which units engines work."""

from __future__ import annotations

import math

import numpy as np

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.rescale import rescaled
from onnxsub.properties.property import Clause
from onnxsub.properties.rows import as_margin_network
from onnxsub.query import Query, two_classes
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.options import ExactOptions
from onnxsub.verifiers.programs.solvers import Problem, Solution, SolverOptions
from onnxsub.verifiers.proof import Claims
from onnxsub.verifiers.real_rows import output_scales
from onnxsub.verifiers.result import Progress
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.witness import Witness, ball_float32

__all__ = ["Extremum"]

_GAP = 0.25  # share of the tolerance at which a program ends
_ABOVE = 0.5  # share of the tolerance by which the level lies above the best point
_LEAST = 1e-300  # what nothing is divided by less than
_ROUNDING = 1e-5  # of the largest logit: what float32 inference itself is good to, with room


class Extremum:
    r"""One pair (anchor, target): `lower <= min_{B(eps)} f_y - f_t <= best.margin`, the claim's key being that margin.

    Engines work on the *value* `(f_t - f_y - base) / scale`, so that their absolute tolerances mean the same for all logits. The
    *level* is the value of the best point and half of the tolerance more: what is proved not to exceed it settles the pair.

    Attributes:
        scale: the largest logit at the anchor; where all are 0, the largest sum of the sizes of their terms.
        tol: the gap at which the bracket is exact, in units of the logits.
        top: proved: `f_t - f_y <= top` on the ball.
        low, high: the float32 points that lie in the ball and in the domain, `(*input_shape)`.
        best: the best replayed point; its `margin` is `f_y - f_t`, its `y` the logits.
    """

    def __init__(self, query: Query, target: int, eps: float, tol: float, session: Session, progress: Progress | None) -> None:
        self.query = query
        self.target = target
        self.session = session
        self.budget: Budget = session.budget
        self.top = math.inf
        self._progress = progress
        self._base: float | None = None
        self.low, self.high = ball_float32(query.space.ball(query.x0, eps), query.x0, eps)
        self.low, self.high = (np.where(self.low > self.high, query.x0, end) for end in (self.low, self.high))
        self.best = self._replayed(query.x0[None])
        assert self.best.y is not None
        largest = float(np.abs(self.best.y).max()) or float(output_scales(query.network, query.x0).max())
        self.scale = max(largest, _LEAST)
        self.tol = tol * self.scale
        self._claims: Claims[int] = Claims((target,), self._over_reals, lambda _: max(self.tol, _ROUNDING * self.scale))
        self._claims.lowers[target] = -math.inf

    def _replayed(self, x: Array) -> Witness:
        """The best of some points by onnxruntime on the file, run alone."""
        query = self.query
        x = np.clip(np.asarray(x, dtype=np.float32), self.low, self.high)
        logits = two_classes(query.runtime.logits(query.space.normalise(x), one_by_one=True))
        values = logits.astype(np.float64)[:, query.label] - logits.astype(np.float64)[:, self.target]
        at = int(np.nan_to_num(values, nan=math.inf).argmin())
        value = float(values[at])
        kind = "strict" if value < 0 else "tie" if value == 0 else "rejected"
        return Witness(x[at], float(query.radius(x[at : at + 1])[0]), self.target, value, kind, y=logits[at])

    def _over_reals(self, witness: Witness) -> float:
        """By how much a point is better over the real numbers than what is proved, in units of the scale."""
        x = witness.x[None].astype(np.float64)
        return (self._real(x) - self.top) / self.scale - _ROUNDING

    def _real(self, x: Array) -> float:
        """`f_t - f_y` of the network at one point, in float64."""
        import torch

        with torch.no_grad():
            f = self.query.network.forward(torch.as_tensor(x))[0]
        return float(f[self.target] - f[self.query.label])

    def at_a_point(self) -> None:
        """Settles a ball that is one point: the larger of what the network and onnxruntime say."""
        self.top = max(self._real(self.low[None].astype(np.float64)), -self.best.margin)

    def accept(self, points: Array) -> bool:
        """Replays points; the best is kept where it is better than what is known. Whether it is."""
        found = self._replayed(points)
        better = found.margin < self.best.margin
        if better:
            self.best = found
            self._compare()
        return better

    def _compare(self) -> None:
        """Holds the best point against what is proved (`Claims`)."""
        confirmed = Witness(self.best.x, self.best.radius, self.target, self.best.margin, "strict")
        self._claims.lowers[self.target] = -self.top
        self._claims.uppers[self.target] = math.inf
        self._claims.reach(self.target, confirmed, self.best.margin)

    @property
    def upper(self) -> float:
        """The value of the best point."""
        return self.best.margin

    @property
    def lower(self) -> float:
        """What is proved; nothing where float32 execution was seen to differ from the network over the real numbers."""
        return -math.inf if self._claims.diverged is not None else min(-self.top, self.best.margin)

    @property
    def settled(self) -> bool:
        return self.upper - self.lower <= self.tol

    @property
    def running(self) -> bool:
        return self._claims.diverged is None and self.budget.running

    @property
    def base(self) -> float:
        """What is taken off `f_t - f_y` to make the value."""
        assert self._base is not None
        return self._base

    @property
    def level(self) -> float:
        """Values up to this one are of no interest."""
        return (_ABOVE * self.tol - self.best.margin - self.base) / self.scale

    def network(self) -> Network:
        """From un-normalised inputs to (value, 0); the base is fixed now, so that the level is 0."""
        self._base = _ABOVE * self.tol - self.best.margin
        row = np.zeros((1, self.query.classes))
        row[0, self.query.label], row[0, self.target] = 1.0, -1.0
        clause = Clause(row / self.scale, np.array([-self._base / self.scale]), np.array([False]))
        return rescaled(as_margin_network(self.query.network, clause), self.query.x0)

    def prove(self, value: float) -> None:
        """Notes that no point has a larger value."""
        if math.isfinite(value) and self.base + self.scale * value < self.top:
            self.top = self.base + self.scale * value
            self._compare()

    def tell(self, text: str) -> None:
        """Progress."""
        if self._progress is not None:
            self._progress(self.lower, self.upper, text)

    def solve(self, problem: Problem, seconds: float = math.inf) -> Solution:
        """One program about the largest value, for at most `seconds`."""
        return self.session.solve(problem, SolverOptions(abs_gap=_GAP * self.tol / self.scale), max(seconds, 1e-2))

    def program(self, model: ClauseModel, seconds: float = math.inf) -> float:
        """A proved upper bound of the values of a model, above its level; the point that the solver finds is tried."""
        with self.budget.stage("build"):
            problem = model.decision()
        solution = self.solve(problem, seconds)
        if solution.x is not None:
            self.accept(model.point(solution.x)[None])
        if solution.status.proves_empty:
            return 0.0
        return max(-solution.bound, 0.0) + model.slack if math.isfinite(solution.bound) else math.inf

    @property
    def options(self) -> ExactOptions:
        return self.session.options
