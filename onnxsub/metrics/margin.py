r"""The smallest margin on a ball, `min { f_y(x) - f_t(x) : x in B(eps), x in the domain }`, as an anytime bracket.

First a climb (`margin_climb.py`) and linear programs over the regions of its best points; then a proof that nothing is better by
more than the tolerance: branch and bound on the value (`verifiers/bab/minimum.py`), which hands over to a mixed-integer program
where few units are open, or that program alone (Tjeng et al. 2019, with the margin as objective). Intervals are cut by
`f_t - f_y >= level` with the level at the best point known, which leaves a fraction of the unstable units.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import torch

from onnxsub.errors import InputError
from onnxsub.metrics.margin_climb import Climb, climb
from onnxsub.metrics.margin_result import Example, MarginOptions, MarginResult
from onnxsub.metrics.margin_state import MarginState
from onnxsub.metrics.margin_tree import Grower
from onnxsub.network import Network
from onnxsub.passes.bounds import check_eps
from onnxsub.query import Query
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.leaf import region_model
from onnxsub.verifiers.bab.minimum import lowered
from onnxsub.verifiers.milp.local import LocalModel, TargetModel
from onnxsub.verifiers.result import Progress

__all__ = ["Example", "MarginOptions", "MarginResult", "smallest_margin"]

_REGIONS = 6  # regions in a row that are solved from one start
_ROUNDS = 4  # times that a search begins again because the level has risen
_PATIENT, _DEARER = 4.0, 20.0  # seconds, and as many times what first bounds took, that must be left before slopes are optimised
_NEAR = Climb(restarts=8, steps=30)


def smallest_margin(
    query: Query, target: int, eps: float, options: MarginOptions | None = None, *, progress: Progress | None = None
) -> MarginResult:
    """The bracket for one target class; a time limit or Ctrl-C ends the search with what is known.

    Args:
        target: t, another class than the label.
        eps: radius in un-normalised input units, not negative.
        progress: told `lower`, `upper` and a line of text.

    Raises:
        InputError: no radius, no such class, or the label itself.
        UnsupportedOperatorError: an operator has no bounds, or none of the rows that `--verifier milp` needs.
        MissingDependencyError, LicenceError, SolverError: of the solver.
    """
    check_eps(eps)
    if not 0 <= target < query.classes:
        raise InputError(f"--targets {target} is out of range: the model has {query.classes} classes (0 to {query.classes - 1})")
    if target == query.label:
        raise InputError(f"--targets {target} is the class of the anchor itself; name another one")
    options = options or MarginOptions()
    radius = query.space.within_reach(query.x0, eps)
    state = MarginState(query, target, radius, options, progress)
    try:
        _search(state, radius)
    except KeyboardInterrupt:
        state.stop.set()
    interrupted = state.stop.is_set()
    status = "exact" if state.settled else "timeout" if state.remaining <= 0 and not interrupted else "bracket"
    return MarginResult(
        query.label, target, eps, state.lower, state.upper, state.best, status, state.tol, options.verifier, state.solver.name,
        state.nodes, state.runs, interrupted, {**state.times, "total": time.perf_counter() - state.began},
    )  # fmt: skip


def _search(state: MarginState, eps: float) -> None:
    if not (state.high > state.low).any():
        state.top = _at_a_point(state)
        return
    options = state.options
    with state.stage("climb"):
        plain = state.network()
        state.accept(climb(plain, state.low, state.high, options.climb, options.milp.seed, late=state.late))
    state.tell("bounds")
    network = state.network()
    with state.stage("bounds"):
        local = _bounded(state, network, eps)
    state.prove(max(float(local.margins[0]), 0.0))
    if not local.open:
        return
    able = all("milp" not in op.unsupported for op in local.network.ops)
    if able and state.running:
        _through_regions(state, local)
    for _ in range(_ROUNDS):
        if state.settled or not state.running:
            return
        model = _at_level(state, local)
        if model is None:
            return
        if options.verifier == "milp":
            _program(state, model)
            return
        if Grower(state, model, able=able).run():
            return


def _at_a_point(state: MarginState) -> float:
    """`f_t - f_y` where the ball is one point: the larger of what the network and onnxruntime say."""
    query = state.query
    with torch.no_grad():
        f = query.network.forward(torch.as_tensor(np.array(state.low, dtype=np.float64)).unsqueeze(0))[0]
    return max(float(f[state.target] - f[query.label]), -state.best.value)


def _bounded(state: MarginState, network: Network, eps: float) -> LocalModel:
    """Bounds on the ball, better ones where there is time for them."""
    options = state.options
    began = time.perf_counter()
    x0, bab = state.query.x0.astype(np.float64), options.bab
    local = LocalModel.over(network, x0, 1, state.query.space, eps, options.milp, bab.dense, bab.device)
    spent = time.perf_counter() - began
    if local.open and local.unstable > options.bab.narrow and state.remaining > max(_PATIENT, _DEARER * spent):
        local = local.bounded("alpha-crown", options.bab.slopes)
    return local


def _through_regions(state: MarginState, local: LocalModel) -> None:
    """From the best point to the best one of its linear region, and on from there: each is a linear program."""
    plain = replace(local, tight=False).target(0)
    assert plain is not None
    frame = Frame.of([plain], whole=True)
    for k in range(_REGIONS):
        with state.stage("build"):
            model = region_model(frame, plain, state.best.x)
        if model is None or not state.running:
            return
        solution = state.solve(model.decision())
        # a region without a point above the level has nothing to give
        if solution.x is None or not state.accept(model.point(solution.x)[None]):
            return
        with state.stage("climb"):
            seed = state.options.milp.seed + k
            state.accept(climb(local.network, state.low, state.high, _NEAR, seed, start=state.best.x, late=state.late))


def _at_level(state: MarginState, local: LocalModel) -> TargetModel | None:
    """The programs of the points above the present level; None: bounds prove that there is none."""
    level = state.level
    shift = np.array([level, 0.0])
    at = replace(
        local, network=lowered(local.network, level), margins=local.margins - shift, lowest=local.lowest - shift,
    )  # fmt: skip
    with state.stage("tighten"):
        model = at.target(0, state.options.bab.tighten, state.late) if at.open else None
    if model is None:
        state.prove(level)
    return model


def _program(state: MarginState, model: TargetModel) -> None:
    """One mixed-integer program for the whole ball."""
    level = state.level
    with state.stage("build"):
        problem = model.decision()
    state.tell(f"a program with {model.binaries} binaries")
    solution = state.solve(problem)
    if solution.status.proves_empty:
        state.prove(level)
    elif math.isfinite(solution.bound):
        state.prove(level + max(-solution.bound, 0.0) + model.slack)
    if solution.x is not None:
        state.accept(model.point(solution.x)[None])
