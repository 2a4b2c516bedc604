"""The distance by way of a local substitute: `d_hat`, and what it proves about the original."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxsub.budget import Budget, OutOfTime
from onnxsub.instance import Instance
from onnxsub.layouts import LAYOUTS, LayoutContext
from onnxsub.layouts.compact import compact
from onnxsub.lower import lower
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.passes.certify import certified_radius
from onnxsub.passes.substitute import check_method, substitute
from onnxsub.pruning.prune import Adversarial, PruneOptions, Substitute, build_substitute
from onnxsub.query import Query, two_classes
from onnxsub.runtime import Runtime
from onnxsub.verifiers.external.search import distance_external
from onnxsub.verifiers.external.tool import Tool
from onnxsub.verifiers.measure import measure
from onnxsub.verifiers.original import Known, balls, nearest, proved_of_original, searched
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.result import DistanceResult, Original, Progress
from onnxsub.verifiers.witness import Witness

if TYPE_CHECKING:
    from onnxsub.verifiers.distance import DistanceOptions

__all__ = ["distance_via"]

_SEEDS = 2  # attacks with other seeds per round of refinement
_BETTER = 1e-4  # share by which a re-anchored substitute must improve the upper end to be worth another round


def distance_via(
    query: Query,
    options: DistanceOptions,
    budget: Budget,
    progress: Progress | None,
    tool: Tool | None = None,
    found: AttackResult | None = None,
) -> DistanceResult | None:
    """The distance of the substitute that `options.via` describes; None where the attack finds nothing, so that there is no radius.

    With `refine`, the point that the substitute leads to becomes its new adversarial point and it is built again, until the
    original's upper end stops improving. With `certify`, an engine of ours then searches the model itself for so many seconds.

    Args:
        tool: another verifier, which gets the substitute in layout `chain`; None: our own. What it proves is its claim, so its
            lower end never counts for the original.
        found: what an attack on this query found; None: attack now.
    """
    via = options.via
    assert via is not None
    spent = dict.fromkeys(("attack", "prune", "verify", "original"), 0.0)
    check_method(query.network, via.method)
    via.select.pruned_of(query.network.units_and_windows)
    if found is None:
        with _booked(budget, spent, "attack"):
            part = budget.part(budget.remaining / 3)
            found = attack(query, via.attack, budget=part, progress=lambda share, text: budget.tell(text))
    adversarial = Adversarial.of(found)
    if adversarial.x is None and via.eps is None:
        return None  # no radius to prune for
    referee = Referee(Instance.of(query))
    best = None if adversarial.x is None else referee.judge(adversarial.x[None])[0]
    # plain bounds first: whatever ends the search later, this much is proved of the original
    reach = min(math.inf if best is None else best.radius, query.space.reach(query.x0))
    with _booked(budget, spent, "original"):
        proved = certified_radius(query.network, balls(query), query.label, reach, target=query.target, budget=budget)
    rounds, g, result = 0, None, None
    while True:
        rounds += 1
        if options.refine and best is not None:
            with _booked(budget, spent, "attack"):
                best = _wider(query, referee, via.attack, best, _SEEDS * rounds, budget)
            adversarial = Adversarial(best.x, best.radius, best.label)
        try:
            with _booked(budget, spent, "prune"):
                built = build_substitute(query, via, adversarial, budget=budget, progress=lambda share, text: budget.tell(text))
                asked = _instance(query, built, budget) if tool is None else _file(query, built, budget)
            with _booked(budget, spent, "verify"):
                result = _measured(query, asked, options, budget, tool, adversarial.x, progress)
        except OutOfTime:
            break  # the substitute of the last round, if there was one, is the answer
        g = built
        better = nearest(query, referee, best, result.witness, budget)
        improved = better is not None and (best is None or better.radius < best.radius * (1 - _BETTER))
        best = better
        if not (options.refine and improved and best is not None and rounds < options.rounds) or budget.over:
            break
        adversarial = Adversarial(best.x, best.radius, best.label)
    if g is None or result is None:
        return _cut_short(query, options, tool, Original(proved, reach if best is not None else math.inf, False, best), budget)
    with _booked(budget, spent, "original"):
        direct = None
        if options.certify is not None and not budget.over:
            engine = options.verifier if tool is None else "bab"
            direct = searched(query, options.exact, engine, best, budget.part(options.certify), progress)
        known, tol = Known(best, proved, direct), options.limits.tol
        original = proved_of_original(query, g, result, known, budget, claimed=tool is not None, tol=tol)
    facts = _facts(query, via, g, found.d_adv, rounds)
    times = {**spent, "total": budget.times["total"]}
    return replace(
        result, head=query.json_head(), original=original, substitute=facts, time_s=times, interrupted=budget.stop.is_set()
    )


@contextmanager
def _booked(budget: Budget, spent: dict[str, float], name: str) -> Iterator[None]:
    """A stage whose seconds include those of the stages inside it."""
    began = time.perf_counter()
    try:
        with budget.stage(name):
            yield
    finally:
        spent[name] += time.perf_counter() - began


def _cut_short(
    query: Query, options: DistanceOptions, tool: Tool | None, original: Original, budget: Budget
) -> DistanceResult:
    """The answer where the time was over before there was a substitute: nothing of that, and what is known of the model."""
    verifier, solver = (options.verifier, options.milp.solver) if tool is None else (tool.name, None)
    return DistanceResult(
        "bracket", 0.0, math.inf, None, verifier, solver, {}, budget.nodes, 0, budget.stop.is_set(), budget.times,
        options.exact.to_json(options.verifier), query.json_head(), original, reason=f"there is no substitute: {budget.why}",
    )  # fmt: skip


def _wider(query: Query, referee: Referee, options: AttackOptions, best: Witness, seed: int, budget: Budget) -> Witness:
    """The attack again from the best point with other seeds: what one seed misses, another finds."""
    for i in range(_SEEDS):
        if budget.over:
            break
        again = replace(options, seed=options.seed + seed + i, start=best.x[None])
        found = attack(query, again, budget=budget.part(budget.remaining / 4))
        if found.x_adv is not None and found.d_adv < best.radius:
            best = referee.judge(found.x_adv[None])[0]
    return best


def _instance(query: Query, g: Substitute, budget: Budget) -> Instance:
    """The question about the substitute for an engine of ours, its file made and opened: onnxruntime replays on the folded one."""
    raw = substitute(lower(query.model), g.lines, g.selection.kept)
    runtime = Runtime(load_model(compact(query.model, raw, budget=budget)), threads=1)

    def replay(x: Array) -> Array:
        return two_classes(runtime.logits(query.space.normalise(x)))

    return Instance(g.network, query.x0, query.label, query.space, replay, query.target)


def _file(query: Query, g: Substitute, budget: Budget) -> Model:
    """The substitute in the layout that all tools read."""
    raw = substitute(lower(query.model), g.lines, g.selection.kept)
    context = LayoutContext.of(query.space, query.x0, g.eps, g.x_adv, exact_on="domain")
    return load_model(LAYOUTS["chain"](query.model, raw, context, budget=budget))


def _measured(
    query: Query,
    asked: Instance | Model,
    options: DistanceOptions,
    budget: Budget,
    tool: Tool | None,
    start: Array | None,
    progress: Progress | None,
) -> DistanceResult:
    """The distance of the substitute: by an engine of ours, or by a tool on its file."""
    if isinstance(asked, Instance):
        return measure(asked, options.exact, options.verifier, budget, start=start, progress=progress)
    assert tool is not None
    return distance_external(asked, query, tool, options.limits.within(budget), start=start, progress=progress)


def _facts(query: Query, via: PruneOptions, g: Substitute, d_adv: float, rounds: int) -> dict[str, Any]:
    kept = g.selection.kept_per_layer
    return {
        "method": via.method,
        "gamma": via.select.gamma,
        "keep": via.select.keep,
        "rank": via.select.rank,
        "units_total": query.network.units_and_windows,
        "units_pruned": query.network.units_and_windows - sum(kept),
        "windows_total": g.windows,
        "windows_pruned": g.windows_pruned,
        "kept_per_layer": kept,
        "d_adv": d_adv,
        "refinements": rounds - 1,
    }
