"""One decision by branch and bound: is another class reached within a radius?"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial

from onnxsub.errors import InputError
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.region import InputSpace
from onnxsub.verifiers.bab.options import BabOptions
from onnxsub.verifiers.bab.question import Question
from onnxsub.verifiers.milp.decide import Attack, short_attack, violates
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.milp.search import Search
from onnxsub.verifiers.referee import Replay
from onnxsub.verifiers.result import Progress, VerifyResult, Witness

__all__ = ["bab_decide"]


def bab_decide(
    network: Network,
    x0: Array,
    label: int,
    space: InputSpace,
    eps: float,
    options: MilpOptions | None = None,
    bab: BabOptions | None = None,
    *,
    attack: Attack | None = None,
    replay: Replay | None = None,
    progress: Progress | None = None,
) -> VerifyResult:
    """Whether `f_y > f_t` for every t != y on all of `B(eps)`: roots first, then an attack, then the tree.

    Arguments, meaning of the answers and errors as of `onnxsub.verifiers.milp.decide.decide`.
    """
    if not (math.isfinite(eps) and eps >= 0):
        raise InputError(f"--eps {eps} is not a radius; give a finite number that is not negative")
    bab = bab or BabOptions()
    search = Search(network, x0, label, space, options or MilpOptions(), replay, progress)
    try:
        witness, reason = _search(search, bab, eps, attack or partial(short_attack, search, eps))
    except KeyboardInterrupt:
        search.stop.set()
        witness, reason = None, ""
    if search.stop.is_set() and witness is None:
        reason = "interrupted before every class was decided"
    states = {t: "proved" if lower >= eps and eps > 0 else "unknown" for t, lower in search.lowers.items()}
    if witness is not None:
        states[witness.label] = "violated"
        status = "violated"
    elif all(s == "proved" for s in states.values()) or (eps == 0 and not search.stop.is_set()):
        states = dict.fromkeys(states, "proved")
        status = "proved"
    else:
        status = "unknown"
    times = {**search.times, "total": time.perf_counter() - search.began}
    settings = {**search.options.to_json(), "bab": bab.to_json()}
    return VerifyResult(
        status, reason, eps, witness or search.rejected, "bab", search.solver.name, states, search.nodes, search.runs,
        search.stop.is_set(), times, settings,
    )  # fmt: skip


def _search(search: Search, bab: BabOptions, eps: float, attack: Attack) -> tuple[Witness | None, str]:
    anchor = search.referee.judge(search.x0[None])[0]
    if anchor.margin >= 0:
        return replace(anchor, radius=0.0), "the anchor itself is not of that class"
    if eps == 0:
        return None, "the anchor itself keeps its class"
    search.limit = search.enough = eps
    question = Question(search, bab, eps, search.remaining)
    if question.roots():
        return None, "bounds exclude every other class"
    if search.options.attack and search.running:
        with search.stage("attack"):
            point = attack(None if math.isinf(search.remaining) else max(search.remaining / 3, 1e-3))
        if point is not None:
            found = search.referee.judge(point[None])[0]
            if violates(found, eps):
                return found, "a point found by the attack, replayed"
    if search.running:
        question.run(search.remaining)
    if violates(search.best, eps):
        return search.best, "a point found by branch and bound, replayed"
    if min(search.lowers.values()) >= eps:
        return None, f"no other class is reached: branch and bound, {search.nodes} nodes"
    if not search.running:
        return None, "the time limit ended the search; give more time (--timeout)"
    near = search.best or search.rejected
    what = f"a point whose margin is {near.margin:.2g} by replay" if near is not None else "nodes that no bound closes"
    return None, f"{what}: no counterexample, and nothing is proved; the boundary may be just beyond the radius"
