"""One decision by mixed-integer programming: is another class reached within a radius?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from onnxsub.errors import InputError
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack_network
from onnxsub.region import InputSpace
from onnxsub.verifiers.milp.distance import decision_options
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.milp.search import Search
from onnxsub.verifiers.referee import Replay
from onnxsub.verifiers.result import Progress, VerifyResult, Witness

__all__ = ["Attack", "decide", "short_attack", "violates"]

Attack = Callable[[float | None], Array | None]


def decide(
    network: Network,
    x0: Array,
    label: int,
    space: InputSpace,
    eps: float,
    options: MilpOptions | None = None,
    *,
    attack: Attack | None = None,
    replay: Replay | None = None,
    progress: Progress | None = None,
) -> VerifyResult:
    """Whether `f_y > f_t` for every t != y on all of `B(eps)`: by bounds, then by an attack, then by one program per target.

    `proved` needs a proof for every target; `violated` a point of `B(eps)` at which the replay gives `f_t >= f_y`.

    Args:
        eps: radius in un-normalised input units, not negative.
        attack: given the seconds that it may take (None: no limit), a point of `B(eps)` that may be adversarial; default: a
            short attack on the network.
        replay, progress: as for `minimum_distance`.

    Raises:
        InputError: a radius that is no radius.
        UnsupportedOperatorError: an operator has no bounds or no MILP rows.
        MissingDependencyError, LicenceError, SolverError: of the solver.
    """
    if not (math.isfinite(eps) and eps >= 0):
        raise InputError(f"--eps {eps} is not a radius; give a finite number that is not negative")
    search = Search(network, x0, label, space, options or MilpOptions(), replay, progress)
    states = dict.fromkeys(search.lowers, "unknown")
    try:
        witness, reason = _search(search, eps, states, attack or partial(short_attack, search, eps))
    except KeyboardInterrupt:
        search.stop.set()
        witness, reason = None, ""
    if search.stop.is_set() and witness is None:
        reason = "interrupted before every class was decided"
    if witness is not None:
        states[witness.label] = "violated"
        status = "violated"
    elif all(s == "proved" for s in states.values()):
        status = "proved"
    else:
        status = "unknown"
    times = {**search.times, "total": time.perf_counter() - search.began}
    return VerifyResult(
        status, reason, eps, witness or search.rejected, "milp", search.solver.name, states, search.nodes, search.runs,
        search.stop.is_set(), times, search.options.to_json(),
    )  # fmt: skip


def violates(witness: Witness | None, eps: float) -> bool:
    """A tie that is only within rounding of zero is no counterexample."""
    return witness is not None and witness.margin >= 0 and witness.radius <= eps


def _search(search: Search, eps: float, states: dict[int, str], attack: Attack) -> tuple[Witness | None, str]:
    anchor = search.referee.judge(search.x0[None])[0]
    if anchor.margin >= 0:
        return replace(anchor, radius=0.0), "the anchor itself is not of that class"
    local = search.local(eps)
    for t in states:
        if t not in local.open:
            states[t] = "proved"
    if not local.open:
        return None, "bounds exclude every other class"
    if search.options.attack and search.running:
        with search.stage("attack"):
            point = attack(None if math.isinf(search.remaining) else max(search.remaining / 3, 1e-3))
        if point is not None:
            found = search.referee.judge(point[None])[0]
            if violates(found, eps):
                return found, "a point found by the attack, replayed"
    unproved = ""
    for t in local.open:
        if not search.running:
            return None, "the time limit ended the search; give more time (--timeout)"
        model = search.target(local, t)
        if model is None:
            states[t] = "proved"
            continue
        search.tell(f"class {t}: is it reached within {eps:.6g}? ({model.binaries} binaries)")
        with search.stage("build"):
            problem = model.decision()
        solution = search.solve(problem, decision_options(local))
        if solution.status.proves_empty:
            states[t] = "proved"
            continue
        if solution.x is not None:
            witness = search.accept(model.point(solution.x), limit=eps)
            if violates(witness, eps):
                return witness, f"a point found by {search.solver.name}, replayed"
            unproved = (
                f"class {t}: {search.solver.name} gave a point whose margin is {witness.margin:.2g} by replay, which is no "
                "counterexample, and proved nothing; the boundary may be just beyond the radius"
            )
        else:
            unproved = f"class {t}: {solution.status.value}"
    if unproved:
        return None, unproved
    return None, f"no other class is reached: bounds, and {search.runs} infeasible programs ({search.solver.name})"


def short_attack(search: Search, eps: float, seconds: float | None) -> Array | None:
    """A point of `B(eps)` that may be adversarial, by an attack on the network."""
    if eps == 0:
        return None
    options = AttackOptions(seed=search.options.seed, timeout=seconds, threads=search.options.threads, upper=eps)
    x0 = search.x0.astype("float32")
    return attack_network(search.network, x0, search.label, search.space, options, search.referee.margins).x_adv
