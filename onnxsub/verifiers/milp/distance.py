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

from onnxsub.ops.base import Array
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.box.unpool import with_relus
from onnxsub.verifiers.bracket import OUTWARD, Bracket
from onnxsub.verifiers.programs.solvers import SolverOptions, SolverStatus
from onnxsub.verifiers.proof import excludes

__all__ = ["search_distance"]

_PATIENCE = 3  # improvements in a row after which a decision is asked for a smaller ball
_STRIDE = 0.005  # by this share of the upper end, doubled each time
_SHARE = 0.35  # of the remaining time, for one decision
_CLOSE = 0.02  # a gap of this share of the upper end is not halved any more under a time limit
_FIRST = 0.05  # share of the domain that is searched first where no upper end is known


def search_distance(bracket: Bracket, start: Array | None) -> None:
    """Closes the bracket as far as its budget allows; arguments as of branch and bound.

    Raises:
        UnsupportedOperatorError: an operator has no bounds or no MILP rows.
        MissingDependencyError, LicenceError: of the solver.
        OutOfTime: the budget ended; the bracket holds what is known.
    """
    bracket.find_start(start)
    bracket.certify()
    search = bracket.session.milp.search
    if search == "direct":
        _direct(bracket)
    elif search == "bisect":
        _bisect(bracket)
    else:
        raise ValueError(f"unknown search {search!r}")


def _direct(bracket: Bracket) -> None:
    plan = _Plan(bracket)
    while bracket.running and not bracket.settled:
        question = plan.next()
        if question is None:
            return
        radius, share = question
        plan.note(radius, _ask(bracket, plan, radius, share))


class _Plan:
    """Which radius is asked about next. Infeasible programs are cheap well below the distance and dear just below it."""

    def __init__(self, bracket: Bracket) -> None:
        self._search = bracket
        self._probe = min(bracket.reach, max(_FIRST * bracket.reach, 2 * bracket.lower))
        self._streak = 0  # improvements in a row
        self._late = math.inf  # smallest radius at which a program ran out of its time
        self._last = False
        self.given_up: set[int] = set()  # targets whose distance was minimised: there is nothing left to ask

    def next(self) -> tuple[float, float] | None:
        """A radius and the share of the remaining time that each of its programs may take; None: nothing is left to ask."""
        bracket = self._search
        if self._last or len(self.given_up) == len(bracket.claims.lowers):
            return None
        if math.isinf(bracket.upper):
            return self._probe, _SHARE
        top = bracket.upper - bracket.gap / 2
        if self._late <= top:
            if self._late - bracket.lower > _CLOSE * bracket.upper:
                return (bracket.lower + self._late) / 2, _SHARE
            self._last = True
            return top, 1.0
        if self._streak >= _PATIENCE:
            wide = 2.0 ** (self._streak - _PATIENCE) * _STRIDE * bracket.upper
            return min(top, bracket.upper - min(wide, (bracket.upper - bracket.lower) / 2)), _SHARE
        return top, _SHARE

    def note(self, radius: float, outcome: str) -> None:
        bracket = self._search
        if outcome == "better":
            self._streak += 1
        elif outcome == "late":
            self._late = radius
        elif math.isinf(bracket.upper):
            self._last = self._probe >= bracket.reach
            self._probe = min(bracket.reach, 2 * self._probe)
        else:
            self._last = self._streak < _PATIENCE and radius < self._late and radius >= bracket.upper - bracket.gap
            self._streak = 0


def _ask(bracket: Bracket, plan: _Plan, radius: float, share: float) -> str:
    """Whether a target is reached within `radius`: `proved` that none is, `better` (a nearer point was found) or `late`."""
    local = _local(bracket, radius)
    for t in _by_promise(bracket, local):
        if bracket.claims.lowers[t] >= radius or t in plan.given_up:
            continue
        before = bracket.upper
        outcome = _decide(bracket, local, t, radius, share)
        if outcome == "stuck" and bracket.upper >= before:
            plan.given_up.add(t)
            _minimise(bracket, local, t)
        if bracket.upper < before:
            return "better"
        if outcome == "late" or not bracket.running:
            return "late"
    return "proved"


def _local(bracket: Bracket, radius: float) -> BoxModel:
    """The margins over a ball. The windows of a substitute are Relus, which solvers take less time for."""
    local = bracket.local(radius)
    return with_relus(local) if bracket.folded and local.open else local


def _by_promise(bracket: Bracket, local: BoxModel) -> list[int]:
    """Open targets: that of the best point first, then by the margin's bound."""
    first = bracket.best.label if bracket.best is not None else None
    return sorted(local.open, key=lambda t: t != first)


def _decide(bracket: Bracket, local: BoxModel, target: int, radius: float, share: float) -> str:
    """`proved` that the target is farther than `radius`, `late`, or `stuck`: a point was found, which is improved and kept."""
    model = bracket.target(local, target)
    if model is None:
        return "proved"
    bracket.tell(f"class {target}: is there anything within {radius:.6g}? ({model.binaries} binaries)")
    with bracket.budget.stage("build"):
        problem = model.decision()
    solution = bracket.session.solve(problem, model.decision_options, share=share)
    if solution.status.proves_empty:
        bracket.claims.prove(target, radius)
        return "proved"
    if solution.x is not None:
        bracket.accept(model.point(solution.x))
        _nearest_of_region(bracket, model, solution.x)
        return "stuck"
    return "late" if solution.status is SolverStatus.TIME_LIMIT else "stuck"


def _nearest_of_region(bracket: Bracket, model: ClauseModel, found: Array) -> None:
    """The nearest point that keeps the binaries of a found one: a linear program."""
    if not bracket.running:
        return
    with bracket.budget.stage("build"):
        problem = model.minimum()
    fixed = np.flatnonzero(problem.integer)
    lower, upper = problem.col_lower.copy(), problem.col_upper.copy()
    lower[fixed] = upper[fixed] = np.round(found[fixed])
    problem = replace(problem, col_lower=lower, col_upper=upper, integer=np.zeros_like(problem.integer))
    solution = bracket.session.solve(problem, SolverOptions(), share=0.5)
    if solution.x is not None:
        bracket.accept(model.point(solution.x))


def _minimise(bracket: Bracket, local: BoxModel, target: int) -> None:
    model = bracket.target(local, target)
    if model is None:
        return
    bracket.tell(f"class {target}: minimising the distance ({model.binaries} binaries)")
    with bracket.budget.stage("build"):
        problem = model.minimum()
    solution = bracket.session.solve(problem, SolverOptions(abs_gap=bracket.tol / 8))
    radius = local.box.radius
    if solution.status.proves_empty:
        bracket.claims.prove(target, radius)
        return
    if solution.status is not SolverStatus.UNBOUNDED and excludes(-solution.bound):
        bracket.claims.prove(target, min(solution.bound, radius) - OUTWARD * radius)
    if solution.x is not None:
        bracket.accept(model.point(solution.x))


def _bisect(bracket: Bracket) -> None:
    high = min(bracket.upper, bracket.reach)
    undecided: set[int] = set()
    if math.isinf(bracket.upper):
        # the whole domain first: there may be no boundary at all
        found = _anything(bracket, high, undecided)
        if not found:
            return
    low = bracket.lower
    while bracket.running and high - low > bracket.gap / 2 and not undecided:
        middle = (low + high) / 2
        if _anything(bracket, middle, undecided):
            high = min(middle, bracket.upper)
        else:
            low = middle


def _anything(bracket: Bracket, radius: float, undecided: set[int]) -> bool:
    """Whether some target has a point within `radius`; targets that have none are noted."""
    local = _local(bracket, radius)
    for t in _by_promise(bracket, local):
        if bracket.claims.lowers[t] >= radius:
            continue
        model = bracket.target(local, t)
        if model is None:
            continue
        bracket.tell(f"class {t}: is it reached within {radius:.6g}? ({model.binaries} binaries)")
        with bracket.budget.stage("build"):
            problem = model.decision()
        solution = bracket.session.solve(problem, model.decision_options)
        if solution.status.proves_empty:
            bracket.claims.prove(t, radius)
        elif solution.x is not None:
            bracket.accept(model.point(solution.x))
            return True
        else:
            undecided.add(t)
            return False
    return False
