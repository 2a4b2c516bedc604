"""One unit of work, start to end, in the process of a worker."""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from typing import Any, Generic, TypeVar

import torch

from onnxsub.errors import InputError, OnnxsubError
from onnxsub.evaluate.paper import paper_distance
from onnxsub.evaluate.task import Attacked, Outcome, Task, pack
from onnxsub.files import one_line
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.passes.prune import Adversarial, PruneOptions, build_substitute
from onnxsub.passes.select import SelectOptions
from onnxsub.query import Query, make_query
from onnxsub.results import jsonable
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.result import DistanceResult

__all__ = ["work"]

_Value = TypeVar("_Value")


class _Latest(Generic[_Value]):
    """The values of the latest few keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Any, _Value] = OrderedDict()

    def get(self, key: Any) -> _Value | None:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        return None

    def put(self, key: Any, value: _Value) -> _Value:
        self._values[key] = value
        if len(self._values) > self._size:
            self._values.popitem(last=False)
        return value


# what a worker keeps between units: the units of one sample mostly follow each other
_MODELS: _Latest[Model] = _Latest(2)
_QUERIES: _Latest[Query] = _Latest(1)


def work(task: Task) -> Outcome:
    """Does a unit. Never raises for what is wrong with the unit; running out of memory counts as a lost worker."""
    start = time.perf_counter()
    try:
        if torch.get_num_threads() != task.threads:
            torch.set_num_threads(task.threads)
        query = _query(task)
        result, x = _DO[task.kind](task, query)
        anchor = None
        if task.kind == "attack":
            result |= {"label": query.label, "predicted": query.predicted, "units_total": query.network.units}
            result["shape"] = query.x0.shape
            anchor = pack(query.x0)
        point = None if x is None else pack(x)
        return Outcome(task.id, "done", None, jsonable(result), point, anchor, time.perf_counter() - start)
    except MemoryError:
        return Outcome(task.id, "died", "not enough memory", seconds=time.perf_counter() - start)
    except OnnxsubError as error:
        return Outcome(task.id, "failed", one_line(error), seconds=time.perf_counter() - start)
    except Exception as error:  # one broken unit must not end the run; the ledger keeps the reason
        reason = "not enough memory" if "not enough memory" in str(error) else None
        if reason is not None:  # torch's own word for it
            return Outcome(task.id, "died", reason, seconds=time.perf_counter() - start)
        reason = f"internal error: {type(error).__name__}: {one_line(error)}"
        return Outcome(task.id, "failed", reason, seconds=time.perf_counter() - start)


def _query(task: Task) -> Query:
    key = (task.sha256, task.label, task.threads, task.settings.space, hashlib.sha256(task.x.tobytes()).digest())
    query = _QUERIES.get(key)
    if query is None:
        model = _MODELS.get(task.sha256) or _MODELS.put(task.sha256, _load(task))
        query = _QUERIES.put(key, make_query(model, task.x, task.label, space=task.settings.space, threads=task.threads))
    return query


def _load(task: Task) -> Model:
    model = load_model(task.model)
    if model.sha256 != task.sha256 and not isinstance(task.model, bytes):
        raise InputError(f"{os.fspath(task.model)!r} has changed since the run began; restore it and use --retry-failed")
    return model


def _attack(task: Task, query: Query) -> tuple[dict[str, Any], Array | None]:
    if query.misclassified:
        return {"status": "misclassified", "d_adv": 0.0, "time_s": {"attack": 0.0}}, None
    s = task.settings
    method = "pgd" if s.protocol == "paper" else "auto"
    # a third of the time limit of a distance, which is what a single distance would spend on it
    limit = None if s.timeout is None or s.protocol == "paper" else s.timeout / 3
    options = AttackOptions(method=method, seed=s.seed, device=s.device, threads=task.threads, timeout=limit)
    found = attack(query, options)
    result = {
        "status": "found" if found.found else "none-found",
        "d_adv": found.d_adv,
        "adversarial_label": found.adversarial_label,
        "margin": found.margin,
        "time_s": {"attack": found.time_s["total"]},
    }
    return result, found.x_adv


def _original(task: Task, query: Query) -> tuple[dict[str, Any], Array | None]:
    if task.settings.protocol == "paper":
        found = _found(task.attacked)
        return paper_distance(query, query.network, found, task.settings, task.threads, replay=query.logits)
    result = distance(query, _options(task, None), found=_found(task.attacked))
    # bounds, programs and all: everything but the attack, which was not repeated
    return _distance_json(result, {"bnd": result.time_s["total"] - result.time_s.get("attack", 0.0)}), _witness(result)


def _substitute(task: Task, query: Query) -> tuple[dict[str, Any], Array | None]:
    s = task.settings
    assert task.method is not None
    via = PruneOptions(
        method=task.method,
        select=SelectOptions(gamma=task.gamma, rank=s.rank or ""),
        attack=AttackOptions(seed=s.seed, device=s.device, threads=task.threads),
    )
    if s.protocol == "paper":
        found = _found(task.attacked)
        start = time.perf_counter()
        g = build_substitute(query, via, Adversarial.of(found))
        pruned = time.perf_counter() - start
        answer, x = paper_distance(query, g.network, found, s, task.threads)
        kept = g.selection.kept_per_layer
        answer["time_s"] = {"prune": pruned, "hat": answer["time_s"]["bnd"]}
        return answer | {"kept_per_layer": kept, "units_pruned": query.network.units - sum(kept)}, x
    result = distance(query, _options(task, via), found=_found(task.attacked))
    t = result.time_s
    times = {"prune": t.get("prune", 0.0), "hat": t.get("verify", 0.0), "refine": t.get("attack", 0.0)}
    # certificates, and the walk from the substitute's witness to a point of the original
    times["original"] = t["total"] - sum(times.values())
    answer = _distance_json(result, times)
    facts, original = result.substitute, result.original
    assert facts is not None
    assert original is not None
    answer |= {k: facts[k] for k in ("kept_per_layer", "units_pruned", "refinements")}
    answer["original"] = {"lower": original.lower, "upper": original.upper, "exact": original.exact}
    return answer, _witness(result)


_DO = {"attack": _attack, "original": _original, "substitute": _substitute}


def _options(task: Task, via: PruneOptions | None) -> DistanceOptions:
    s = task.settings
    assert task.verifier is not None
    return DistanceOptions(
        milp=MilpOptions(solver=s.solver, timeout=s.timeout, threads=task.threads, seed=s.seed, tol=s.tolerance),
        via=via,
        attack=AttackOptions(seed=s.seed, device=s.device, threads=task.threads),
        verifier=task.verifier,
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
