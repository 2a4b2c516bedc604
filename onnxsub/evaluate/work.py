"""One unit of work, start to end, in the process of a worker."""

from __future__ import annotations

import hashlib
import importlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch

from onnxsub.errors import InputError, OnnxsubError
from onnxsub.evaluate.task import Done, Outcome, Task, pack
from onnxsub.files import one_line
from onnxsub.model import Model, load_model
from onnxsub.query import Query, make_query
from onnxsub.results import jsonable

__all__ = ["WORK", "work"]

WORK = MappingProxyType(
    {
        "attack": "onnxsub.evaluate.distances:find_attack",
        "original": "onnxsub.evaluate.distances:find_original",
        "substitute": "onnxsub.evaluate.distances:find_substitute",
        "decide": "onnxsub.evaluate.robustness.work:decide",
        "resist": "onnxsub.evaluate.robustness.work:resist",
        "maximise": "onnxsub.evaluate.robustness.work:maximise",
        "resist_batch": "onnxsub.evaluate.many.work:resist_batch",
        "draw": "onnxsub.evaluate.robustness.work:draw",
        "locate": "onnxsub.evaluate.robustness.work:locate",
        "pair": "onnxsub.evaluate.pairs.work:pair",
    }
)
"""Kind of unit -> the function `(Task, Query) -> Done` that does it, imported by the first unit of its kind."""

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
        done = _function(task.kind)(task, query)
        point, anchor = (None if x is None else pack(x) for x in (done.point, done.anchor))
        return Outcome(task.id, "done", None, jsonable(done.result), point, anchor, time.perf_counter() - start)
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


def _function(kind: str) -> Callable[[Task, Query], Done]:
    module, _, name = WORK[kind].partition(":")
    function: Callable[[Task, Query], Done] = getattr(importlib.import_module(module), name)
    return function


def _query(task: Task) -> Query:
    key = (task.sha256, task.label, task.threads, task.settings.space, hashlib.sha256(task.x.tobytes()).digest())
    query = _QUERIES.get(key)
    if query is None:
        model = _MODELS.get(task.sha256) or _MODELS.put(task.sha256, _load(task))
        query = _QUERIES.put(key, make_query(model, task.x, task.label, space=task.settings.space, threads=task.threads))
    return query


def _load(task: Task) -> Model:
    model = load_model(task.model, task.settings.reading)
    if model.sha256 != task.sha256 and not isinstance(task.model, bytes):
        raise InputError(f"{os.fspath(task.model)!r} has changed since the run began; restore it and use --retry-failed")
    return model
