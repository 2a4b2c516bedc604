"""The distance by way of a local substitute: `d_hat`, and what it proves about the original."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxsub.layouts import LAYOUTS, LayoutContext
from onnxsub.layouts.compact import compact
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.passes.attack.walk import walk_back
from onnxsub.passes.certify import certified_radius, keeps_its_pieces
from onnxsub.passes.substitute import check_method, substitute
from onnxsub.pruning.prune import Adversarial, PruneOptions, Substitute, build_substitute
from onnxsub.query import Query, two_classes
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.verifiers.bab.distance import bab_distance
from onnxsub.verifiers.external.search import distance_external
from onnxsub.verifiers.external.tool import Tool
from onnxsub.verifiers.milp.distance import minimum_distance
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.referee import Referee, Replay
from onnxsub.verifiers.result import DistanceResult, Original, Progress, Witness

if TYPE_CHECKING:
    from onnxsub.verifiers.distance import DistanceOptions

__all__ = ["distance_via", "own_distance"]

Measure = Callable[[MilpOptions, Array | None, Progress | None], DistanceResult]
"""Options, a point to begin with and who is told, to the bracket of a substitute."""

_SEEDS = 2  # attacks with other seeds per round of refinement
_BETTER = 1e-4  # share by which a re-anchored substitute must improve the upper end to be worth another round


def distance_via(
    query: Query,
    options: DistanceOptions,
    via: PruneOptions,
    clock: Callable[[], float],
    progress: Progress | None,
    tool: Tool | None = None,
    found: AttackResult | None = None,
) -> DistanceResult | None:
    """The distance of the substitute that `via` describes; None where the attack finds nothing, so that there is no radius.

    With `refine`, the point that the substitute leads to becomes its new adversarial point and it is built again, until the
    original's upper end stops improving.

    Args:
        clock: seconds left of the time limit, infinite for none.
        tool: another verifier, which gets the substitute in layout `chain`; None: our own. What it proves is its claim, so its
            lower end never counts for the original.
        found: what an attack on this query found; None: attack now.
    """
    start = time.perf_counter()
    check_method(query.network, via.method)
    via.select.pruned_of(query.network.units)
    limit = clock() / 3
    attacking = via.attack if math.isinf(limit) else replace(via.attack, timeout=max(limit, 0.01))
    found = attack(query, attacking) if found is None else found
    attacked = time.perf_counter()
    adversarial = Adversarial.of(found)
    if adversarial.x is None and via.eps is None:
        return None  # no radius to prune for
    referee = Referee(query.network, query.x0, query.label, query.space, query.logits)
    best = None if adversarial.x is None else referee.judge(adversarial.x[None])[0]
    # plain bounds first: whatever ends the search later, this much is proved of the original
    reach = min(math.inf if best is None else best.radius, query.space.reach(query.x0))
    proved = certified_radius(query.network, _balls(query), query.label, reach, stop=lambda: clock() <= 0)
    bounded = time.perf_counter()
    pruning = verifying = searching = 0.0
    rounds = 0
    while True:
        rounds += 1
        if options.refine and best is not None:
            t0 = time.perf_counter()
            best = _wider(query, referee, attacking, best, _SEEDS * rounds, clock)
            adversarial = Adversarial(best.x, best.radius, best.label)
            searching += time.perf_counter() - t0
        t0 = time.perf_counter()
        g = build_substitute(query, via, adversarial)
        measure = _by_ourselves(query, g, options) if tool is None else _by_tool(query, g, tool)
        t1 = time.perf_counter()
        left = clock()
        milp = options.milp if math.isinf(left) else replace(options.milp, timeout=max(left, 0.01))
        result = measure(milp, adversarial.x, progress)
        t2 = time.perf_counter()
        pruning, verifying = pruning + t1 - t0, verifying + t2 - t1
        better = _nearest(query, referee, best, result.witness)
        improved = better is not None and (best is None or better.radius < best.radius * (1 - _BETTER))
        best = better
        if not (options.refine and improved and best is not None and rounds < options.rounds) or result.interrupted or clock() <= 0:
            break
        adversarial = Adversarial(best.x, best.radius, best.label)
    t3 = time.perf_counter()
    original = _original(query, g, result, best, proved, lambda: clock() <= 0, claimed=tool is not None)
    end = time.perf_counter()
    times = {
        "attack": attacked - start + searching,
        "prune": pruning,
        "verify": verifying,
        "original": end - t3 + bounded - attacked,
        "total": end - start,
    }
    facts = _facts(query, via, g, found.d_adv, rounds)
    return replace(result, head=query.json_head(), original=original, substitute=facts, time_s=times)


def _wider(
    query: Query, referee: Referee, options: AttackOptions, best: Witness, seed: int, clock: Callable[[], float]
) -> Witness:
    """The attack again from the best point with other seeds: what one seed misses, another finds."""
    for i in range(_SEEDS):
        left = clock()
        if left <= 0:
            break
        limit = None if math.isinf(left) else max(left / 4, 0.01)
        found = attack(query, replace(options, seed=options.seed + seed + i, start=best.x[None], timeout=limit))
        if found.x_adv is not None and found.d_adv < best.radius:
            best = referee.judge(found.x_adv[None])[0]
    return best


def _replay(query: Query, g: Substitute) -> Replay:
    """Logits of the substitute by onnxruntime on its folded file, un-normalised inputs."""
    raw = substitute(lower(query.model), g.lines, g.selection.kept)
    runtime = Runtime(load_model(compact(query.model, raw)), threads=1)

    def replay(x: Array) -> Array:
        return two_classes(runtime.logits(query.space.normalise(x)))

    return replay


def own_distance(
    options: DistanceOptions,
    network: Network,
    x0: Array,
    label: int,
    space: InputSpace,
    milp: MilpOptions,
    *,
    start: Array | None,
    replay: Replay,
    progress: Progress | None,
) -> DistanceResult:
    """The distance of a network by the one of our own verifiers that `options` names."""
    if options.verifier == "milp":
        return minimum_distance(network, x0, label, space, milp, start=start, replay=replay, progress=progress)
    return bab_distance(network, x0, label, space, milp, options.bab, start=start, replay=replay, progress=progress)


def _by_ourselves(query: Query, g: Substitute, options: DistanceOptions) -> Measure:
    """The distance of the substitute by our own verifier."""
    replay = _replay(query, g)

    def measure(milp: MilpOptions, start: Array | None, progress: Progress | None) -> DistanceResult:
        x0, label, space = query.x0, query.label, query.space
        return own_distance(options, g.network, x0, label, space, milp, start=start, replay=replay, progress=progress)

    return measure


def _by_tool(query: Query, g: Substitute, tool: Tool) -> Measure:
    """The same by another verifier, on the file that all of them read."""
    raw = substitute(lower(query.model), g.lines, g.selection.kept)
    file = load_model(LAYOUTS["chain"](query.model, raw, LayoutContext.of(query.space, query.x0, g.eps, g.x_adv)))

    def measure(options: MilpOptions, start: Array | None, progress: Progress | None) -> DistanceResult:
        limit, tol, seed = options.timeout, options.tol, options.seed
        return distance_external(file, query, tool, limit, tol=tol, start=start, seed=seed, progress=progress)

    return measure


def _nearest(query: Query, referee: Referee, best: Witness | None, hint: Witness | None) -> Witness | None:
    """The nearest confirmed point of the original: the best so far, the substitute's witness, or where a walk from that leads."""
    candidates = [] if best is None else [best]
    if hint is not None:
        candidates.append(referee.settle(hint.x, tol=1e-6))
        near = walk_back(query.network, query.x0, query.label, query.space, hint.x[None], query.margins)
        candidates += [] if near is None else referee.judge(near.x[None])
    return min((w for w in candidates if w.confirmed), key=lambda w: w.radius, default=None)


def _balls(query: Query) -> Callable[[float], tuple[Array, Array]]:
    return lambda radius: query.space.ball(query.x0, radius)


def _original(
    query: Query,
    g: Substitute,
    result: DistanceResult,
    best: Witness | None,
    proved: float,
    late: Callable[[], bool],
    *,
    claimed: bool,
) -> Original:
    """What the substitute's answer proves about the original.

    Lower end: the largest radius that bounds of the original certify (`proved` by plain ones), the substitute's lines and error
    intervals being a second chance; the substitute's own lower end where both are provably one function on that ball.
    """
    upper = math.inf if best is None else best.radius
    ball = _balls(query)
    # another tool's word is no certificate
    certain = not claimed and math.isfinite(result.upper)
    exact = certain and not late() and keeps_its_pieces(query.network, g.network, ball(result.upper))
    reach = min(upper, query.space.reach(query.x0))
    again = certified_radius(query.network, ball, query.label, reach, stop=late, substitute=g.network, start=proved)
    lower_end = max(proved, again)
    if exact:
        lower_end = max(lower_end, result.lower)
        upper = max(upper, lower_end)  # the float32 replay of a tie may round to the other side
    return Original(min(lower_end, upper), upper, exact, best)


def _facts(query: Query, via: PruneOptions, g: Substitute, d_adv: float, rounds: int) -> dict[str, Any]:
    kept = g.selection.kept_per_layer
    return {
        "method": via.method,
        "gamma": via.select.gamma,
        "keep": via.select.keep,
        "rank": via.select.rank,
        "units_total": query.network.units,
        "units_pruned": query.network.units - sum(kept),
        "kept_per_layer": kept,
        "d_adv": d_adv,
        "refinements": rounds - 1,
    }
