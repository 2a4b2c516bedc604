r"""The smallest margin on a ball, `min { f_y(x) - f_t(x) : x in B(eps), x in the domain }`, as an anytime bracket.

First a climb (`verifiers/ascend.py`) and linear programs over the regions of its best points; then a proof that nothing is better
by more than the tolerance: branch and bound on the value (`verifiers/bab/largest.py`), which hands over to a mixed-integer program
where few units are open, or that program alone (Tjeng et al. 2019, with the margin as objective). Intervals are cut by
`f_t - f_y >= level` with the level at the best point known, which leaves a fraction of the unstable units.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxsub.errors import InputError
from onnxsub.metrics.margin_result import Example, MarginOptions, MarginResult
from onnxsub.network import Network
from onnxsub.passes.bounds import check_eps
from onnxsub.propagate.rounding import Scales
from onnxsub.query import Query
from onnxsub.verifiers.ascend import Climb, climb
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.largest import LargestGoal
from onnxsub.verifiers.bab.leaf import region_model
from onnxsub.verifiers.bab.order import lowered
from onnxsub.verifiers.box.clause import ROOM, ClauseModel
from onnxsub.verifiers.box.model import Box, BoxModel, Building, Rows
from onnxsub.verifiers.extremum import Extremum
from onnxsub.verifiers.result import Progress
from onnxsub.verifiers.session import Session

__all__ = ["Example", "MarginOptions", "MarginResult", "smallest_margin"]

_REGIONS = 6  # regions in a row that are solved from one start
_ROUNDS = 4  # times that a search begins again because the level has risen
_PATIENT, _DEARER = 4.0, 20.0  # seconds, and as many times what first bounds took, that must be left before slopes are optimised
_NEAR = Climb(restarts=8, steps=30)


def smallest_margin(
    query: Query, target: int, eps: float, options: MarginOptions | None = None, *, progress: Progress | None = None
) -> MarginResult:
    """The bracket for one target class; a limit or Ctrl-C ends the search with what is known.

    Args:
        target: t, another class than the label.
        eps: radius in un-normalised input units, not negative.
        progress: told `lower`, `upper` and a line of text.

    Raises:
        InputError: no radius, no such class, or the label itself.
        UnsupportedOperatorError: an operator has no bounds, or none of the rows that `--verifier milp` needs.
        MissingDependencyError, LicenceError: of the solver.
        ContradictionError: a point was replayed below what is proved.
    """
    check_eps(eps)
    query.refuse_whole("the smallest margin")
    if not 0 <= target < query.classes:
        raise InputError(f"--targets {target} is out of range: the model has {query.classes} classes (0 to {query.classes - 1})")
    if target == query.label:
        raise InputError(f"--targets {target} is the class of the anchor itself; name another one")
    options = options or MarginOptions()
    session = Session(options.exact)
    budget = session.budget
    radius = query.space.within_reach(query.x0, eps)
    search = Extremum(query, target, radius, options.tol, session, progress)
    budget.attempt(lambda: _search(search, options, radius))
    interrupted = budget.stop.is_set()
    status = "exact" if search.settled else "timeout" if budget.over and not interrupted else "bracket"
    best = search.best
    assert best.y is not None
    return MarginResult(
        query.label, target, eps, search.lower, search.upper, Example(best.x, best.margin, best.y, best.radius), status, search.tol,
        options.verifier, session.solver.name, budget.nodes, session.runs, interrupted, budget.times,
    )  # fmt: skip


def _search(search: Extremum, options: MarginOptions, eps: float) -> None:
    if not (search.high > search.low).any():
        search.at_a_point()
        return
    budget, seed = search.budget, search.session.limits.seed
    with budget.stage("climb"):
        plain = search.network()
        search.accept(climb(plain, (search.low, search.high), options.climb, seed, budget=budget))
    search.tell("bounds")
    network = search.network()
    with budget.stage("bounds"):
        local = _bounded(search, network, eps)
    search.prove(max(float(local.highest[0]), 0.0) if not math.isnan(float(local.highest[0])) else math.inf)
    if not local.open:
        return
    if local.able and search.running:
        _through_regions(search, local)
    for _ in range(_ROUNDS):
        if search.settled or not search.running:
            return
        model = _at_level(search, local)
        if model is None:
            return
        match options.verifier:
            case "milp":
                _program(search, model)
                return
            case "bab":
                if LargestGoal(search, model).run():
                    return
            case other:
                raise ValueError(f"no verifier {other!r} minimises a margin; choose bab or milp")


def _bounded(search: Extremum, network: Network, eps: float) -> BoxModel:
    """Bounds on the ball, better ones where there is time for them."""
    began, bab = search.budget.now, search.session.bab
    x0 = search.query.x0.astype(np.float64)
    box = Box(x0, *search.query.space.ball(x0, eps * (1 + ROOM)), eps)
    local = BoxModel.over(Rows(network, 1), box, Building.of(search.options, search.budget, branching=True))
    spent = search.budget.now - began
    if local.open and local.unstable > bab.narrow and search.budget.remaining > max(_PATIENT, _DEARER * spent):
        local = local.bounded("alpha-crown", bab.slopes)
    return local


def _through_regions(search: Extremum, local: BoxModel) -> None:
    """From the best point to the best one of its linear region, and on from there: each is a linear program."""
    plain = local.clause(0, tight=False)
    assert plain is not None
    frame = Frame.of([plain], whole=True)
    for k in range(_REGIONS):
        with search.budget.stage("build"):
            model = region_model(frame, plain, search.best.x)
        if model is None or not search.running:
            return
        solution = search.solve(model.decision())
        # a region without a point above the level has nothing to give
        if solution.x is None or not search.accept(model.point(solution.x)[None]):
            return
        with search.budget.stage("climb"):
            seed = search.session.limits.seed + k
            search.accept(
                climb(local.network, (search.low, search.high), _NEAR, seed, start=search.best.x, budget=search.budget)
            )


def _at_level(search: Extremum, local: BoxModel) -> ClauseModel | None:
    """The programs of the points above the present level; None: bounds prove that there is none."""
    level = search.level
    shift = np.array([level, 0.0])
    rows = Rows(lowered(local.network, level), 1)
    scales = local.bounds.scales
    above = scales[local.network.output] + abs(level)
    bounds = replace(local.bounds, scales=Scales({**scales, rows.network.output: above}))
    at = replace(local, rows=rows, bounds=bounds, highest=local.highest - shift, lowest=local.lowest - shift)
    with search.budget.stage("tighten"):
        model = at.clause(0, search.session.bab.tighten) if at.open else None
    if model is None:
        search.prove(level)
    return model


def _program(search: Extremum, model: ClauseModel) -> None:
    """One mixed-integer program for the whole ball."""
    level = search.level
    search.tell(f"a program with {model.binaries} binaries")
    bound = search.program(model)
    search.prove(level + bound)
