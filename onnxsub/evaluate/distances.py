"""The units of `onnxsub evaluate`: an attack, the network's own distance, a substitute's."""

from __future__ import annotations

import math
import time
from decimal import Decimal
from functools import partial
from typing import Any

from onnxsub.evaluate.paper import BOUNDS, paper_distance, precision_of
from onnxsub.evaluate.paper_attack import paper_attack
from onnxsub.evaluate.settings import Settings, is_paper
from onnxsub.evaluate.task import Attacked, Done, Task
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.passes.equal_radius import equal_radius
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import Adversarial, PruneOptions, build_substitute
from onnxsub.query import Query
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions
from onnxsub.verifiers.result import DistanceResult

__all__ = ["find_attack", "find_original", "find_substitute"]


def find_attack(task: Task, query: Query) -> Done:
    """`d_adv` of a sample."""
    result, x = _attack(_settings(task), task.threads, query)
    total = query.network.units_and_windows
    facts = {"label": query.label, "predicted": query.predicted, "units_total": total, "shape": query.x0.shape}
    return Done({**result, **facts}, x, query.x0)


def _attack(s: Settings, threads: int, query: Query) -> tuple[dict[str, Any], Array | None]:
    if query.misclassified:
        return {"status": "misclassified", "d_adv": 0.0, "time_s": {"attack": 0.0}}, None
    if is_paper(s.protocol):
        assert s.interval is not None
        found = paper_attack(query, s.interval, precision_of(s, query.x0.shape))
    else:
        # a third of the time limit of a distance, which is what a single distance would spend on it
        limit = None if s.timeout is None else s.timeout / 3
        found = attack(query, AttackOptions(seed=s.seed, device=s.device, threads=threads, timeout=limit))
    result = {
        "status": "found" if found.found else "none-found",
        "d_adv": found.d_adv,
        "adversarial_label": found.adversarial_label,
        "margin": found.margin,
        "time_s": {"attack": found.time_s["total"]},
    }
    return result, found.x_adv


def find_original(task: Task, query: Query) -> Done:
    """`d_bnd` of a sample."""
    s = _settings(task)
    if is_paper(s.protocol):
        found = _found(task.attacked)
        assert task.verifier is not None
        return Done(*paper_distance(query, query.network, found, s, task.threads, verifier=task.verifier, replay=query.judged))
    result = distance(query, _options(task, None), found=_found(task.attacked))
    # bounds, programs and all: everything but the attack, which was not repeated
    times = {"bnd": result.time_s["total"] - result.time_s.get("attack", 0.0)}
    return Done(_distance_json(result, times), _witness(result))


def find_substitute(task: Task, query: Query) -> Done:
    """`d_hat` of a sample by one method, gamma and verifier, and what it proves of the network."""
    s = _settings(task)
    assert task.method is not None
    via = PruneOptions(
        method=task.method,
        select=_selected(s, task.gamma or 0.0, query.network.units_and_windows),
        attack=AttackOptions(seed=s.seed, device=s.device, threads=task.threads),
    )
    if is_paper(s.protocol):
        found = _found(task.attacked)
        start = time.perf_counter()
        g = build_substitute(query, via, Adversarial.of(found))
        pruned = time.perf_counter() - start
        assert task.verifier is not None
        answer, x = paper_distance(query, g.network, found, s, task.threads, verifier=task.verifier)
        kept = g.selection.kept_per_layer
        answer["time_s"] = {"prune": pruned, "hat": answer["time_s"]["bnd"]}
        if task.method == "act":
            assert s.interval is not None
            begin = time.perf_counter()
            answer["equal_radius"] = equal_radius(
                query.network, g.network, partial(query.space.ball, query.x0), s.interval, anchor=query.x0
            )
            answer["time_s"]["original"] = time.perf_counter() - begin
        return Done(answer | {"kept_per_layer": kept, "units_pruned": query.network.units_and_windows - sum(kept)}, x)
    result = distance(query, _options(task, via), found=_found(task.attacked))
    t = result.time_s
    times = {"prune": t.get("prune", 0.0), "hat": t.get("verify", 0.0), "refine": t.get("attack", 0.0)}
    # certificates, and the walk from the substitute's witness to a point of the original
    times["original"] = t["total"] - sum(times.values())
    answer = _distance_json(result, times)
    original = result.original
    assert original is not None
    if result.substitute is not None:  # else the time was over before there was one
        answer |= {k: result.substitute[k] for k in ("kept_per_layer", "units_pruned", "refinements")}
    answer["original"] = {"lower": original.lower, "upper": original.upper, "exact": original.exact}
    return Done(answer, _witness(result))


def _selected(s: Settings, gamma: float, units: int) -> SelectOptions:
    """Which units are pruned; the reference experiment keeps `ceil((1 - gamma) units)` of them."""
    if not is_paper(s.protocol):
        return SelectOptions(gamma=gamma, rank=s.rank or "")
    keep = math.ceil(units - Decimal(str(gamma)) * units)  # in decimals: 1 - 0.9 is more than a tenth in binary ones
    return SelectOptions(gamma=None, keep=keep, rank=s.rank or "", bounds=BOUNDS)


def _settings(task: Task) -> Settings:
    assert isinstance(task.settings, Settings)
    return task.settings


def _options(task: Task, via: PruneOptions | None) -> DistanceOptions:
    s = _settings(task)
    assert task.verifier is not None
    return DistanceOptions(
        limits=Limits(timeout=s.timeout, nodes=s.nodes, threads=task.threads, seed=s.seed, tol=s.tolerance),
        milp=MilpOptions(solver=s.solver),
        via=via,
        attack=AttackOptions(seed=s.seed, device=s.device, threads=task.threads),
        verifier=task.verifier,
        bab=BabOptions(device=s.device),
        refine=s.refine and via is not None,
    )


def _found(attacked: Attacked | None) -> AttackResult:
    """The sample's attack as the passes take it; nothing found where there is none."""
    if attacked is None:
        return AttackResult(False, float("inf"), None, None, float("-inf"), {"total": 0.0}, 0, False, {})
    a = attacked
    return AttackResult(True, a.d_adv, a.x_adv, a.adversarial_label, a.margin, {"total": 0.0}, 0, False, {})


def _distance_json(result: DistanceResult, times: dict[str, float]) -> dict[str, Any]:
    return {
        "status": result.status,
        "lower": result.lower,
        "upper": result.upper,
        "adversarial_label": result.adversarial_label,
        "witness": None if result.witness is None else result.witness.kind,
        "runs": result.runs,
        "nodes": result.nodes,
        "reason": result.reason,
        "time_s": times,
    }


def _witness(result: DistanceResult) -> Array | None:
    return result.witness.x if result.witness is not None and result.witness.confirmed else None
