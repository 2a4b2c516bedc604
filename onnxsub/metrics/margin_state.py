"""The state of one search for the smallest margin: the best replayed point, what is proved, the clock and the solver."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from onnxsub.metrics.margin_result import Example, MarginOptions
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.properties.property import Clause
from onnxsub.properties.rows import as_margin_network
from onnxsub.query import Query, two_classes
from onnxsub.verifiers.milp.solvers import Problem, Solution, SolverOptions, get_solver
from onnxsub.verifiers.result import Progress

__all__ = ["MarginState"]

_GAP = 0.25  # share of the tolerance at which a program ends
_ABOVE = 0.5  # share of the tolerance by which the level lies above the best point


class MarginState:
    r"""One pair (anchor, target) in the making: `-top <= min_{B(eps)} f_y - f_t <= best.value`.

    Engines work on the *value* `(f_t - f_y - base) / scale`, so that their absolute tolerances mean the same for all logits. The
    *level* is the value of the best point and half of the tolerance more: what is proved not to exceed it settles the pair.

    Attributes:
        scale: the largest logit at the anchor, and at least 1e-12.
        tol: the gap at which the bracket is exact, in units of the logits.
        top: proved: `f_t - f_y <= top` on the ball.
        low, high: the float32 points that lie in the ball and in the domain, `(*input_shape)`.
        nodes, runs: of the exact verifier, and how many programs were solved.
    """

    def __init__(self, query: Query, target: int, eps: float, options: MarginOptions, progress: Progress | None) -> None:
        self.began = time.perf_counter()
        self.query = query
        self.target = target
        self.options = options
        self.solver = get_solver(options.milp.solver)
        self.stop = threading.Event()
        self.nodes = self.runs = 0
        self.times: dict[str, float] = {}
        self.top = math.inf
        self._progress = progress
        self._base: float | None = None
        lower, upper = query.space.ball(query.x0, eps)
        self.low, self.high = _inside(lower, upper, query.x0)
        self.best = self._replayed(query.x0[None])
        self.scale = max(float(np.abs(self.best.logits).max()), 1e-12)
        self.tol = options.tol * self.scale

    def _replayed(self, x: Array) -> Example:
        """The best of some points by onnxruntime on the file, run alone."""
        x = np.clip(np.asarray(x, dtype=np.float32), self.low, self.high)
        logits = two_classes(self.query.runtime.logits(self.query.space.normalise(x), one_by_one=True))
        values = logits.astype(np.float64)[:, self.query.label] - logits.astype(np.float64)[:, self.target]
        at = int(np.nan_to_num(values, nan=math.inf).argmin())
        return Example(x[at], float(values[at]), logits[at], float(self.query.radius(x[at : at + 1])[0]))

    def accept(self, points: Array) -> bool:
        """Replays points; the best is kept where it is better than what is known. Whether it is."""
        found = self._replayed(points)
        better = found.value < self.best.value
        if better:
            self.best = found
        return better

    @property
    def upper(self) -> float:
        """The value of the best point."""
        return self.best.value

    @property
    def lower(self) -> float:
        """What is proved."""
        return min(-self.top, self.best.value)

    @property
    def settled(self) -> bool:
        return self.upper - self.lower <= self.tol

    @property
    def remaining(self) -> float:
        """Seconds left."""
        limit = self.options.milp.timeout
        return math.inf if limit is None else limit - (time.perf_counter() - self.began)

    @property
    def running(self) -> bool:
        return not self.stop.is_set() and self.remaining > 0

    def late(self) -> bool:
        """Whether the search has to end."""
        return not self.running

    @property
    def base(self) -> float:
        """What is taken off `f_t - f_y` to make the value."""
        assert self._base is not None
        return self._base

    @property
    def level(self) -> float:
        """Values up to this one are of no interest."""
        return (_ABOVE * self.tol - self.best.value - self.base) / self.scale

    def network(self) -> Network:
        """From un-normalised inputs to (value, 0); the base is fixed now, so that the level is 0."""
        self._base = _ABOVE * self.tol - self.best.value
        row = np.zeros((1, self.query.classes))
        row[0, self.query.label], row[0, self.target] = 1.0, -1.0
        clause = Clause(row / self.scale, np.array([-self._base / self.scale]), np.array([False]))
        return as_margin_network(self.query.network, clause)

    def prove(self, value: float) -> None:
        """Notes that no point has a larger value."""
        self.top = min(self.top, self.base + self.scale * value)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Books the seconds of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - start

    def tell(self, text: str) -> None:
        """Progress."""
        if self._progress is not None:
            self._progress(self.lower, self.upper, text)

    def solve(self, problem: Problem, seconds: float = math.inf) -> Solution:
        """One program about the largest value, for at most `seconds`."""
        milp = self.options.milp
        limit = min(seconds, self.remaining)
        options = SolverOptions(
            time_limit=None if math.isinf(limit) else max(limit, 1e-2),
            threads=milp.threads,
            seed=milp.seed,
            abs_gap=_GAP * self.tol / self.scale,
            feasibility=milp.feasibility,
            integrality=milp.integrality,
        )
        with self.stage("solve"):
            solution = self.solver.solve(problem, options, self.stop)
        self.nodes += solution.nodes
        self.runs += 1
        return solution


def _inside(lower: Array, upper: Array, x0: Array) -> tuple[Array, Array]:
    """The smallest and the largest float32 number inside each side of a box; that of `x0` where there is none."""
    low, high = lower.astype(np.float32), upper.astype(np.float32)
    low = np.where(low.astype(np.float64) < lower, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high.astype(np.float64) > upper, np.nextafter(high, np.float32(-np.inf)), high)
    return np.where(low > high, x0, low), np.where(low > high, x0, high)
