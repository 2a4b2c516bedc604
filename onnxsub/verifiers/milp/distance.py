r"""The minimum distance `d = min { |x - x0|_inf : x in domain, f_t(x) >= f_y(x), t != y }` by mixed-integer programming.

`direct`, for each target that bounds leave: first it is decided whether anything lies within `B(upper - tol/2)` at all. That
program has no distance in it, hence no two rows per pixel, and where the attack was good its infeasibility is all that has to be
proved. A point found there is moved to the nearest one of its linear region (a linear program), which lowers `upper`, and
the question is asked again. Where that does not help, the distance itself is minimised (Tjeng et al. 2019, eq. 3).

`bisect` decides one radius at a time, as the reference experiment does.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.region import InputSpace
from onnxsub.verifiers.milp.local import LocalModel, TargetModel
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.milp.search import OUTWARD, Search
from onnxsub.verifiers.milp.solvers import SolverOptions, SolverStatus
from onnxsub.verifiers.referee import Replay
from onnxsub.verifiers.result import DistanceResult, Progress

__all__ = ["decision_options", "minimum_distance"]

_DECIDE_FIRST = True  # False: minimise the distance at once
_PATIENCE = 3  # improvements in a row after which a decision is asked for a smaller ball
_STRIDE = 0.005  # by this share of the upper end, doubled each time
_SHARE = 0.35  # of the remaining time, for one decision
_CLOSE = 0.02  # a gap of this share of the upper end is not halved any more under a time limit
_FIRST = 0.05  # share of the domain that is searched first where no upper end is known


def minimum_distance(
    network: Network,
    x0: Array,
    label: int,
    space: InputSpace,
    options: MilpOptions | None = None,
    *,
    start: Array | None = None,
    replay: Replay | None = None,
    progress: Progress | None = None,
) -> DistanceResult:
    """The bracket of the distance; it holds at every moment, and a time limit or Ctrl-C ends the search with it.

    Args:
        network: from un-normalised inputs to logits.
        x0: the anchor, `(*input_shape)`, inside the domain.
        label: the class y to defend.
        start: a point to begin with, usually that of an attack; it counts only if it is confirmed.
        replay: logits that decide what a witness is, `(N, *input_shape)` float32 to `(N, classes)`, usually onnxruntime on the
            file; default: the network itself in float32.
        progress: told whenever something was learnt.

    Raises:
        UnsupportedOperatorError: an operator has no bounds or no MILP rows.
        MissingDependencyError, LicenceError, SolverError: of the solver.
    """
    search = Search(network, x0, label, space, options or MilpOptions(), replay, progress)
    at_anchor = search.referee.judge(search.x0[None])[0]
    if at_anchor.margin >= 0:
        search.best = replace(at_anchor, radius=0.0)
        return replace(search.result(), status="misclassified" if at_anchor.margin > 0 else "exact")
    try:
        search.find_start(start)
        search.certify()
        {"direct": _direct, "bisect": _bisect}[search.options.search](search)
    except KeyboardInterrupt:
        search.stop.set()
    return search.result()


def _direct(search: Search) -> None:
    plan = _Plan(search)
    while search.running and not search.settled:
        question = plan.next()
        if question is None:
            return
        radius, share = question
        plan.note(radius, _ask(search, plan, radius, share))


class _Plan:
    """Which radius is asked about next. Infeasible programs are cheap well below the distance and dear just below it."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._probe = min(search.reach, max(_FIRST * search.reach, 2 * search.lower))
        self._streak = 0  # improvements in a row
        self._late = math.inf  # smallest radius at which a program ran out of its time
        self._last = False
        self.given_up: set[int] = set()  # targets whose distance was minimised: there is nothing left to ask

    def next(self) -> tuple[float, float] | None:
        """A radius and the share of the remaining time that each of its programs may take; None: nothing is left to ask."""
        search = self._search
        if self._last or len(self.given_up) == len(search.lowers):
            return None
        if math.isinf(search.upper):
            return self._probe, _SHARE
        top = search.upper - search.options.tol / 2
        if self._late <= top:
            if self._late - search.lower > _CLOSE * search.upper:
                return (search.lower + self._late) / 2, _SHARE
            self._last = True
            return top, 1.0
        if self._streak >= _PATIENCE:
            wide = 2.0 ** (self._streak - _PATIENCE) * _STRIDE * search.upper
            return min(top, search.upper - min(wide, (search.upper - search.lower) / 2)), _SHARE
        return top, _SHARE

    def note(self, radius: float, outcome: str) -> None:
        search = self._search
        if outcome == "better":
            self._streak += 1
        elif outcome == "late":
            self._late = radius
        elif math.isinf(search.upper):
            self._last = self._probe >= search.reach
            self._probe = min(search.reach, 2 * self._probe)
        else:
            self._last = self._streak < _PATIENCE and radius < self._late and radius >= search.upper - search.options.tol
            self._streak = 0


def _ask(search: Search, plan: _Plan, radius: float, share: float) -> str:
    """Whether a target is reached within `radius`: `proved` that none is, `better` (a nearer point was found) or `late`."""
    local = search.local(radius)
    for t in _by_promise(search, local):
        if search.lowers[t] >= radius or t in plan.given_up:
            continue
        before = search.upper
        outcome = _decide(search, local, t, radius, share) if _DECIDE_FIRST else "stuck"
        if outcome == "stuck" and search.upper >= before:
            plan.given_up.add(t)
            _minimise(search, local, t)
        if search.upper < before:
            return "better"
        if outcome == "late" or not search.running:
            return "late"
    return "proved"


def _by_promise(search: Search, local: LocalModel) -> list[int]:
    """Open targets: that of the best point first, then by the margin's bound."""
    first = search.best.label if search.best is not None else None
    return sorted(local.open, key=lambda t: t != first)


def decision_options(local: LocalModel) -> SolverOptions:
    """A point is enough once its margin is beyond what float32 rounds away."""
    scale = 1.0 + float(np.abs(local.bounds.output[1].numpy()).max())
    return SolverOptions(stop_at=-1e-4 * scale, abs_gap=1e-6 * scale)


def _decide(search: Search, local: LocalModel, target: int, radius: float, share: float) -> str:
    """`proved` that the target is farther than `radius`, `late`, or `stuck`: a point was found, which is improved and kept."""
    model = search.target(local, target)
    if model is None:
        return "proved"
    search.tell(f"class {target}: is there anything within {radius:.6g}? ({model.binaries} binaries)")
    with search.stage("build"):
        problem = model.decision()
    solution = search.solve(problem, decision_options(local), share=share)
    if solution.status.proves_empty:
        search.prove(target, radius)
        return "proved"
    if solution.x is not None:
        search.accept(model.point(solution.x))
        _nearest_of_region(search, model, solution.x)
        return "stuck"
    return "late" if solution.status is SolverStatus.TIME_LIMIT else "stuck"


def _nearest_of_region(search: Search, model: TargetModel, found: Array) -> None:
    """The nearest point that keeps the binaries of a found one: a linear program."""
    if not search.running:
        return
    with search.stage("build"):
        problem = model.minimum()
    fixed = np.flatnonzero(problem.integer)
    lower, upper = problem.col_lower.copy(), problem.col_upper.copy()
    lower[fixed] = upper[fixed] = np.round(found[fixed])
    problem = replace(problem, col_lower=lower, col_upper=upper, integer=np.zeros_like(problem.integer))
    solution = search.solve(problem, SolverOptions(), share=0.5)
    if solution.x is not None:
        search.accept(model.point(solution.x))


def _minimise(search: Search, local: LocalModel, target: int) -> None:
    model = search.target(local, target)
    if model is None:
        return
    search.tell(f"class {target}: minimising the distance ({model.binaries} binaries)")
    with search.stage("build"):
        problem = model.minimum()
    solution = search.solve(problem, SolverOptions(abs_gap=search.options.tol / 8))
    radius = local.radius
    if solution.status.proves_empty:
        search.prove(target, radius)
        return
    if solution.status is not SolverStatus.UNBOUNDED and solution.bound > 0:
        search.prove(target, min(solution.bound, radius) - OUTWARD * radius)
    if solution.x is not None:
        search.accept(model.point(solution.x))


def _bisect(search: Search) -> None:
    high = min(search.upper, search.reach)
    undecided: set[int] = set()
    if math.isinf(search.upper):
        # the whole domain first: there may be no boundary at all
        found = _anything(search, high, undecided)
        if not found:
            return
    low = search.lower
    while search.running and high - low > search.options.tol / 2 and not undecided:
        middle = (low + high) / 2
        if _anything(search, middle, undecided):
            high = min(middle, search.upper)
        else:
            low = middle


def _anything(search: Search, radius: float, undecided: set[int]) -> bool:
    """Whether some target has a point within `radius`; targets that have none are noted."""
    local = search.local(radius)
    for t in _by_promise(search, local):
        if search.lowers[t] >= radius:
            continue
        model = search.target(local, t)
        if model is None:
            continue
        search.tell(f"class {t}: is it reached within {radius:.6g}? ({model.binaries} binaries)")
        with search.stage("build"):
            problem = model.decision()
        solution = search.solve(problem, decision_options(local))
        if solution.status.proves_empty:
            search.prove(t, radius)
        elif solution.x is not None:
            search.accept(model.point(solution.x))
            return True
        else:
            undecided.add(t)
            return False
    return False
