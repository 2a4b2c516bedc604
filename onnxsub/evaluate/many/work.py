"""The unit of `security` in a grid: a batch of samples of one model, attacked together at all radii."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from onnxsub.budget import Budget
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.task import Done, Task
from onnxsub.metrics.local.batch import BatchAttack, attack_batch, queries_of
from onnxsub.metrics.local.verdict import LocalVerdict
from onnxsub.query import Query

__all__ = ["resist_batch"]


def resist_batch(task: Task, query: Query) -> Done:
    """`violated` where the attack succeeds, `undecided` where it fails, sample by sample and radius by radius.

    The point of the unit holds the witnesses, one after the other; `witness` says which one is a sample's, that of the smallest
    radius at which it has one.
    """
    assert isinstance(task.settings, ManySettings)
    assert task.block is not None
    s, prop, start = task.settings, task.method or "", time.perf_counter()
    places = [s.places["security", prop, eps] for eps in s.eps]
    queries = queries_of(query, task.block.x, task.block.labels)
    timeout = places[0].timeout
    budget = Budget(None if timeout is None else timeout * len(queries) * len(places))
    # one stream per unit: batches must not depend on each other
    seed = int(np.random.SeedSequence([s.seed, task.id]).generate_state(1)[0])
    rows = attack_batch(queries, [p.local for p in places], BatchAttack(seed=seed), budget=budget)
    points, witness = _witnesses(rows)
    result = {
        "label": [q.label for q in queries],
        "predicted": [q.predicted for q in queries],
        "radii": [_columns(row) for row in rows],
        "witness": witness,
        "shape": query.x0.shape,
        "time_s": {"total": time.perf_counter() - start},
    }
    return Done(result, points)


def _columns(row: list[LocalVerdict]) -> dict[str, list[Any]]:
    names = ("status", "reason", "value", "distance", "lower", "upper")
    return {name: [getattr(verdict, name) for verdict in row] for name in names}


def _witnesses(rows: list[list[LocalVerdict]]) -> tuple[Any, list[int | None]]:
    """All witnesses under each other, and the place of every sample's."""
    points: list[Any] = []
    place: list[int | None] = []
    for of_sample in zip(*rows, strict=True):
        first = next((v.witness for v in of_sample if v.witness is not None), None)
        place.append(None if first is None else len(points))
        points += [] if first is None else [first]
    return (np.stack(points) if points else None), place
