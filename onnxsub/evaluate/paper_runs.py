"""What the reference experiment asks at a radius: is any other class reached within it?

Bounds have the first word, by either way. Every run is written down as `[target, radius, seconds, outcome]`; a radius whose targets
are all excluded by bounds, or proved at a larger radius, has none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from onnxsub.budget import Budget, OutOfTime
from onnxsub.evaluate.settings import Settings
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions
from onnxsub.verifiers.verify import VerifyOptions, decide_ball

__all__ = ["RUNS"]

Ask = Callable[[Bracket, float, Settings, list[list[Any]]], str]
"""`none` of the targets is reached within the radius (proved), one is `reached`, or one is `undecided`."""


def _shares(search: Bracket, settings: Settings) -> tuple[Budget, float]:
    """What a radius may take, and the seconds of one run of it; its bounds may take as long as a run."""
    run, whole = (math.inf if s is None else s for s in (settings.timeout, settings.radius_timeout))
    return search.budget.part(whole), run


def _by_programs(search: Bracket, radius: float, settings: Settings, log: list[list[Any]]) -> str:
    """One mixed-integer program per target, up to the first that fails; as published."""
    budget, run = _shares(search, settings)
    try:
        # what a large network is folded to may take far longer to bound than any program may take
        local = search.local(radius, budget=budget.part(run))
    except OutOfTime:
        return "undecided"
    for t in local.open:
        if search.claims.lowers[t] >= radius:  # proved at a larger radius
            continue
        try:
            budget.check()
            model = search.target(local, t)
            if model is None:
                continue
            with search.budget.stage("build"):
                problem = model.decision()
            budget.check()
        except OutOfTime:
            return "undecided"
        limit = min(run, budget.remaining)
        solution = search.session.solve(problem, model.decision_options, limit)
        if solution.status.proves_empty:
            outcome = "none"
            search.claims.prove(t, radius)
        elif solution.x is not None:
            outcome = "reached"
            search.accept(model.point(solution.x))
        else:
            outcome = "undecided"
        log.append([t, radius, solution.time_s, outcome])
        if outcome != "none":
            return outcome
    return "none"


def _by_trees(search: Bracket, radius: float, settings: Settings, log: list[list[Any]]) -> str:
    """One decision by branch and bound about all targets, with bounds and an attack of its own."""
    budget, run = _shares(search, settings)
    start = time.perf_counter()
    try:
        local = search.local(radius, branching=True, budget=budget.part(run))
    except OutOfTime:
        log.append([None, radius, time.perf_counter() - start, "undecided"])
        return "undecided"
    if all(search.claims.lowers[t] >= radius for t in local.open):
        return "none"
    limits = Limits(timeout=settings.timeout, threads=search.session.limits.threads, seed=settings.seed)
    options = VerifyOptions(
        limits.within(budget.part(run)),
        MilpOptions(solver=settings.solver),
        BabOptions(device=settings.device),
    )
    start = time.perf_counter()
    result = decide_ball(search.instance, radius, options)
    seconds = time.perf_counter() - start
    search.budget.count(result.nodes)
    for t, word in (result.targets or {}).items():
        if word == "proved":
            search.claims.prove(t, radius)
    if result.status == "violated":
        assert result.witness is not None
        search.accept(result.witness.x)
    outcome = {"proved": "none", "violated": "reached", "unknown": "undecided"}[result.status]
    log.append([None, radius, seconds, outcome])
    return outcome


RUNS: Mapping[str, Ask] = {"milp": _by_programs, "bab": _by_trees}
"""By the name of a verifier."""
