"""The reference experiment's way to a distance: bisection, one mixed-integer program per radius and target.

The interval `[0, d_adv]` is halved; at each radius every target that bounds leave is asked "is it reached within this radius?"
until one is. Where the attack's point is not adversarial for a substitute, the radius is first doubled until one is reached. Each
program has a time limit of its own. A radius at which no target was reached but one was not decided ends the search. Every run of
the solver is written down, so that its times can be compared over the same range of radii.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from onnxsub.evaluate.settings import Settings
from onnxsub.instance import Instance
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackResult
from onnxsub.query import Query
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.options import ExactOptions, Limits, MilpOptions
from onnxsub.verifiers.session import Session

__all__ = ["paper_distance"]

BOUNDS = "fastlin-ibp"


def paper_distance(
    query: Query,
    network: Network,
    found: AttackResult,
    settings: Settings,
    threads: int,
    *,
    replay: Callable[[Array], Array] | None = None,
) -> tuple[dict[str, Any], Array | None]:
    """The bracket of a network's distance, as plain values, and the nearest point.

    Args:
        network: of un-normalised inputs: that of the query, or a substitute of it.
        found: the attack on the query: the search begins at its radius.
        replay: logits that decide what a witness is; default: the network itself in float32.

    Returns:
        `runs`: how many; `solver_runs`: one `[target, radius, seconds, outcome]` for each, the outcome being `none`, `reached` or
        `undecided`.
    """
    limits = Limits(threads=threads, seed=settings.seed, tol=settings.tolerance)
    milp = MilpOptions(solver=settings.solver, search="bisect", bounds_method=BOUNDS, tighten="none")
    start = time.perf_counter()
    instance = Instance(network, query.x0, query.label, query.space, replay)
    search = Bracket(instance, Session(ExactOptions(limits, milp)))
    if found.x_adv is not None:
        search.accept(found.x_adv)
    log: list[list[Any]] = []
    low, high = 0.0, min(search.upper, search.reach)
    decided = True
    if search.best is None:
        # the attack's point need not be beyond the boundary of a substitute: look farther until something is reached
        high, reached = min(found.d_adv, search.reach), False
        while not reached:
            reached, decided = _reached(search, high, settings.timeout, log)
            if reached or not decided or high >= search.reach:
                break
            low, high = high, min(2 * high, search.reach)
        if not reached:
            low, high = (high, high) if decided else (low, math.inf)
    while decided and high - low > search.tol / 2:
        middle = (low + high) / 2
        reached, decided = _reached(search, middle, settings.timeout, log)
        if reached:
            high = min(middle, search.upper)
        elif decided:
            low = middle
    best = search.best
    upper = math.inf if best is None else best.radius
    if best is None and decided and low >= search.reach:
        status, low = "none", math.inf
    else:
        status = "exact" if upper - low <= search.tol else "bracket"
        low = min(low, upper)
    result = {
        "status": status,
        "lower": low,
        "upper": upper,
        "adversarial_label": None if best is None else best.label,
        "witness": None if best is None else best.kind,
        "runs": len(log),
        "nodes": search.budget.nodes,
        "solver_runs": log,
        "reason": None,
        "time_s": {"bnd": time.perf_counter() - start},
    }
    return result, None if best is None else best.x


def _reached(search: Bracket, radius: float, limit: float | None, log: list[list[Any]]) -> tuple[bool, bool]:
    """Whether a target is reached within the radius, and whether that is certain."""
    local = search.local(radius)
    decided = True
    for t in local.open:
        if search.claims.lowers[t] >= radius:
            continue
        model = search.target(local, t)
        if model is None:
            continue
        with search.budget.stage("build"):
            problem = model.decision()
        solution = search.session.solve(problem, model.decision_options, math.inf if limit is None else limit)
        if solution.status.proves_empty:
            outcome = "none"
            search.claims.prove(t, radius)
        elif solution.x is not None:
            outcome = "reached"
            search.accept(model.point(solution.x))
        else:
            outcome, decided = "undecided", False
        log.append([t, radius, solution.time_s, outcome])
        if outcome == "reached":
            return True, True
    return False, decided
