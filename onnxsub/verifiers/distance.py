"""The distance of an anchor to the decision boundary: of the model itself, or by way of a local substitute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxsub.errors import InputError
from onnxsub.layouts import LAYOUTS
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.certify import certified_radius, keeps_its_pieces
from onnxsub.passes.prune import PruneOptions, Substitute, build_substitute
from onnxsub.passes.substitute import substitute
from onnxsub.passes.walk_back import walk_back
from onnxsub.query import Query, two_classes
from onnxsub.runtime import Runtime
from onnxsub.verifiers.milp.distance import minimum_distance
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.result import DistanceResult, Original, Progress, Witness

__all__ = ["DistanceOptions", "DistanceResult", "distance"]

VERIFIERS = ("milp",)


@dataclass(frozen=True)
class DistanceOptions:
    """How the distance is found.

    Attributes:
        milp: options of the verifier, the time limit for everything among them.
        via: the substitute to answer on instead of the model; None: the model itself.
        attack: how the first upper bound is searched.
        verifier: `milp`.
    """

    milp: MilpOptions = field(default_factory=MilpOptions)
    via: PruneOptions | None = None
    attack: AttackOptions = field(default_factory=AttackOptions)
    verifier: str = "milp"

    def __post_init__(self) -> None:
        if self.verifier not in VERIFIERS:
            raise InputError(f"--verifier {self.verifier!r} is unknown; choose one of {', '.join(VERIFIERS)}")


def distance(query: Query, options: DistanceOptions | None = None, *, progress: Progress | None = None) -> DistanceResult:
    """`d_bnd` of the query's model at its anchor as a bracket; with `via`, `d_hat` of the substitute and what it proves.

    The bracket holds at every moment: a time limit or Ctrl-C ends the search with what is proved so far.
    """
    options = options or DistanceOptions()
    start = time.perf_counter()
    if query.misclassified:
        return _misclassified(query, options)
    if options.via is not None:
        return _via(query, options, options.via, progress, start)
    found = attack(query, _limited(options.attack, options.milp, start))
    attacked = time.perf_counter() - start
    milp = _remaining(options.milp, start)
    result = minimum_distance(
        query.network, query.x0, query.label, query.space, milp, start=found.x_adv, replay=query.logits, progress=progress
    )
    times = {**result.time_s, "attack": attacked, "total": time.perf_counter() - start}
    return replace(result, head=query.json_head(), time_s=times)


def _via(query: Query, options: DistanceOptions, via: PruneOptions, progress: Progress | None, start: float) -> DistanceResult:
    pruning = replace(via, attack=_limited(options.attack, options.milp, start))
    g = build_substitute(query, pruning)
    pruned = time.perf_counter()
    raw = substitute(lower(query.model), g.lines, g.selection.kept)
    runtime = Runtime(load_model(LAYOUTS["compact"](query.model, raw)), threads=1)

    def replay(x: Array) -> Array:
        return two_classes(runtime.logits(query.space.normalise(x)))

    milp = _remaining(options.milp, start)
    # bounds of the folded form are cheap and as tight; what it computes is what the compact file computes
    result = minimum_distance(
        g.network, query.x0, query.label, query.space, milp, start=g.x_adv, replay=replay, progress=progress
    )
    solved = time.perf_counter()
    original = _original(query, g, result, lambda: _late(options.milp, start))
    end = time.perf_counter()
    times = {
        "attack": g.time_s["attack"],
        "prune": pruned - start,
        "verify": solved - pruned,
        "original": end - solved,
        "total": end - start,
    }
    kept = g.selection.kept_per_layer
    facts: dict[str, Any] = {
        "method": via.method,
        "gamma": via.select.gamma,
        "keep": via.select.keep,
        "rank": via.select.rank,
        "units_total": query.network.units,
        "units_pruned": query.network.units - sum(kept),
        "kept_per_layer": kept,
        "d_adv": g.d_adv,
    }
    return replace(result, head=query.json_head(), original=original, substitute=facts, time_s=times)


def _original(query: Query, g: Substitute, result: DistanceResult, late: Callable[[], bool]) -> Original:
    """What the substitute's answer proves about the original.

    Upper end: the nearest of the attack's point and of points near the substitute's witness, each replayed on the original. Lower
    end: the largest radius that plain bounds of the original certify; the substitute's own lower end where both are provably
    one function on that ball.
    """
    referee = Referee(query.network, query.x0, query.label, query.space, query.logits)
    candidates: list[Witness] = [] if g.x_adv is None else referee.judge(g.x_adv[None])
    hint = result.witness
    if hint is not None:
        candidates.append(referee.settle(hint.x, tol=1e-6))
        near = walk_back(query.network, query.x0, query.label, query.space, hint.x[None], query.margins)
        candidates += [] if near is None else referee.judge(near.x[None])
    confirmed = [w for w in candidates if w.confirmed]
    best = min(confirmed, key=lambda w: w.radius, default=None)
    upper = np.inf if best is None else best.radius
    ball = lambda radius: query.space.ball(query.x0, radius)  # noqa: E731
    reach = min(upper, query.space.reach(query.x0))
    certified = certified_radius(query.network, ball, query.label, reach, stop=late)
    exact = False
    if np.isfinite(result.upper) and not late():
        exact = keeps_its_pieces(query.network, g.network, ball(result.upper))
    lower_end = max(certified, result.lower) if exact else certified
    return Original(min(lower_end, upper), upper, exact, best)


def _misclassified(query: Query, options: DistanceOptions) -> DistanceResult:
    margin, label = query.margins(query.x0[None])
    witness = Witness(query.x0, 0.0, int(label[0]), float(margin[0]), "strict" if margin[0] > 0 else "tie")
    return DistanceResult(
        "misclassified", 0.0, 0.0, witness, options.verifier, options.milp.solver, {}, 0, 0, False, {"total": 0.0},
        options.milp.to_json(), query.json_head(),
    )  # fmt: skip


def _limited(options: AttackOptions, milp: MilpOptions, start: float) -> AttackOptions:
    """The attack may take a third of the time limit."""
    if milp.timeout is None:
        return options
    share = max(0.01, (milp.timeout - (time.perf_counter() - start)) / 3)
    return replace(options, timeout=share if options.timeout is None else min(share, options.timeout))


def _remaining(milp: MilpOptions, start: float) -> MilpOptions:
    if milp.timeout is None:
        return milp
    return replace(milp, timeout=max(0.01, milp.timeout - (time.perf_counter() - start)))


def _late(milp: MilpOptions, start: float) -> bool:
    return milp.timeout is not None and time.perf_counter() - start > milp.timeout
