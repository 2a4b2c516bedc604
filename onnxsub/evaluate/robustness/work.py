"""The units of `onnxsub robustness`: one sample each, by verifier, attack, uniform points or distance."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxsub.budget import Budget, check_whole
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.robustness.settings import DISTANCES, RobustnessSettings
from onnxsub.evaluate.task import Done, Task
from onnxsub.metrics.intervals import clopper_pearson
from onnxsub.metrics.local import (
    LocalVerdict,
    approximate_local,
    attack_local,
    decide_local,
    extreme_local,
    gradient_attack,
    sample_local,
)
from onnxsub.metrics.region import RegionOptions, region_distance
from onnxsub.passes.attack import attack
from onnxsub.passes.attack.lbfgs import lbfgs_attack
from onnxsub.query import Query
from onnxsub.verifiers.distance import distance
from onnxsub.verifiers.result import DistanceResult
from onnxsub.verifiers.witness import Witness

__all__ = ["decide", "draw", "locate", "maximise", "resist"]

_WIDTH = 1e-3  # of the range of the value: what a bracket is brought to


def decide(task: Task, query: Query) -> Done:
    """`proved`, `violated`, `undecided` or `misclassified`, by a verifier."""
    s = _settings(task)
    budget = Budget(s.timeout, nodes=s.nodes)
    return _verdict(query, decide_local(query, s.local, s.local_options(task.threads), budget=budget))


def resist(task: Task, query: Query) -> Done:
    """`violated` where the attack succeeds, `undecided` where it fails."""
    s = _settings(task)
    if s.attack is not None:
        return _verdict(query, gradient_attack(query, s.local, s.attack, seed=s.seed, budget=Budget(s.timeout)))
    return _verdict(query, attack_local(query, s.local, s.local_options(task.threads), budget=Budget(s.timeout)))


def maximise(task: Task, query: Query) -> Done:
    """The extreme of the property's quantity over the ball, as a bracket, or the one end of it that an attack gives."""
    s = _settings(task)
    budget = Budget(s.timeout, nodes=s.nodes)
    if s.approximate is not None:
        found = approximate_local(query, s.local, s.approximate, seed=s.seed, budget=budget)
    else:
        tol = 0.99 * _WIDTH * (s.values[1] - s.values[0])
        found = extreme_local(query, s.local, tol, s.local_options(task.threads), budget=budget)
    check_whole(found.interrupted)
    ends = {"lower": found.lower, "upper": found.upper, "value": found.value}
    if found.status == "misclassified":  # of the score of its class only the value at the anchor is known
        anchor = float(s.local.reached(query, query.x0[None])[0])
        ends = {"lower": 0.0, "upper": anchor, "value": anchor}  # the range cuts what is averaged, not what is known
    result = {"status": found.status, "reason": found.reason, **ends, "distance": None, "verifier": s.approximate or s.verifier}
    return Done({**_facts(query), **result, **_times(found.time_s)}, found.witness, query.x0)


def draw(task: Task, query: Query) -> Done:
    """How many uniform points of the ball satisfy the property."""
    s = _settings(task)
    assert s.draws is not None
    facts = _facts(query)
    if s.local.needs_label and query.misclassified:
        return Done({**facts, "status": "misclassified", "satisfied": 0, "drawn": 0, "time_s": {"total": 0.0}})
    start = time.perf_counter()
    # one stream per unit: the same points in every ball would make the samples depend on each other
    seed = int(np.random.SeedSequence([s.seed, task.id]).generate_state(1)[0])
    satisfied, drawn = sample_local(query, s.local, s.draws, seed, budget=Budget(s.timeout))
    share = clopper_pearson(satisfied, drawn, s.confidence)
    counts = {"satisfied": satisfied, "drawn": drawn, "lower": share.lower, "upper": share.upper}
    return Done({**facts, "status": "drawn", **counts, **_times({"total": time.perf_counter() - start})})


def locate(task: Task, query: Query) -> Done:
    """`lower <= rho <= upper` of the sample, by the way that the settings name."""
    s = _settings(task)
    facts = _facts(query)
    if query.misclassified:
        return Done({**facts, "status": "misclassified", "lower": 0.0, "upper": 0.0, "time_s": {"total": 0.0}})
    budget = Budget(s.timeout)
    options = s.distance_options(task.threads)
    match s.distances:
        case "attack":
            found = attack(query, options.attack, budget=budget)
            status = "attacked" if found.found else "none-found"
            result = {"status": status, "lower": 0.0, "upper": found.d_adv if found.found else math.inf}
            return Done({**facts, **result, **_times(found.time_s)}, found.x_adv)
        case "lbfgs":
            start = time.perf_counter()
            point = lbfgs_attack(query, budget=budget)
            status = "none-found" if point is None else "attacked"
            result = {"status": status, "lower": 0.0, "upper": math.inf if point is None else point.radius}
            seconds = {"total": time.perf_counter() - start}
            return Done({**facts, **result, **_times(seconds)}, None if point is None else point.x)
        case "region":
            region = region_distance(query, RegionOptions(nearest_only=True, timeout=s.timeout), budget=budget)
            result = {"status": f"region-{region.status}", "lower": 0.0, "upper": region.distance}
            return Done({**facts, **result, **_times(region.time_s)}, _confirmed(region.witness))
        case "exact" | "substitute":  # the options say which
            answer = distance(query, options)
            check_whole(answer.interrupted)
            witness = answer.witness if answer.original is None else answer.original.witness
            # of a substitute its own distance, which is taken for that of the network where nothing is to be proved
            own = {} if answer.original is None else {"value": answer.upper}
            return Done({**facts, **_bracket(answer, options.limits.tol), **own, **_times(answer.time_s)}, _confirmed(witness))
        case other:
            raise ValueError(f"no unit finds distances by {other!r}; choose one of {', '.join(DISTANCES)}")


def _bracket(answer: DistanceResult, tol: float) -> dict[str, Any]:
    """What is proved of the network itself, also where a substitute was asked."""
    ends = answer if answer.original is None else answer.original
    lower, upper = ends.lower, ends.upper
    # a substitute without a boundary says nothing of the network, unless it is the network
    if answer.status == "none" and (answer.original is None or answer.original.exact):
        return {"status": "none", "lower": math.inf, "upper": math.inf, "reason": answer.reason}
    return {"status": "exact" if upper - lower <= tol else "bracket", "lower": lower, "upper": upper, "reason": answer.reason}


def _verdict(query: Query, verdict: LocalVerdict) -> Done:
    check_whole(verdict.interrupted)
    names = ("status", "reason", "lower", "upper", "value", "distance", "verifier")
    result = {name: getattr(verdict, name) for name in names}
    return Done({**_facts(query), **result, **_times(verdict.time_s)}, verdict.witness, query.x0)


def _facts(query: Query) -> dict[str, Any]:
    return {"label": query.label, "predicted": query.predicted, "shape": query.x0.shape}


def _times(time_s: Mapping[str, float]) -> dict[str, Any]:
    """The whole time, which the run counts, and the stages, which may overlap."""
    return {"time_s": {"total": time_s["total"]}, "stages": dict(time_s)}


def _confirmed(witness: Witness | None) -> Any:
    return witness.x if witness is not None and witness.confirmed else None


def _settings(task: Task) -> RobustnessSettings:
    grid = task.settings
    assert isinstance(grid, RobustnessSettings | ManySettings)
    return grid.of(task.kind, task.method or "", task.gamma)
