"""Many clauses, and many boxes, at once: what is easy to refute is refuted together, at a cost that grows with their number and no
faster."""

from __future__ import annotations

import math

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.passes.rescale import rescaled
from onnxsub.propagate import compute_bounds
from onnxsub.properties.rows import RowSet
from onnxsub.verifiers.decision import Decision
from onnxsub.verifiers.proof import excluded

__all__ = ["screen"]

_TOGETHER = 256  # boxes that are bounded in one batch, at most
_VALUES = 2**16  # values of all tensors of the network over the boxes of one batch
_MANY = 64  # rows from which on outputs are bounded first; fewer are bounded themselves at once
_OUTWARD = 1e-9  # of the size of a row's terms: far more than their sum can round


def screen(decision: Decision, number: int) -> None:
    """Refutes the clauses of a box of which a row is below zero for all outputs within their intervals; of the first one of many
    boxes, those that bounds of these boxes together refute.

    Raises:
        UnsupportedOperatorError: an operator has no bounds.
        OutOfTime: the budget ended.
    """
    box = decision.spec.boxes[number]
    if number % _TOGETHER == 0:
        _together(decision, range(number, min(number + _TOGETHER, len(decision.spec.boxes))))
    if len(box.rows.b) < _MANY:
        return
    with decision.budget.stage("bounds"):
        network = rescaled(decision.spec.network, box.box.x0)
        method = decision.session.milp.bounds_method
        low, high = compute_bounds(network, box.lower, box.upper, method, budget=decision.budget).output
        gone = excluded(highest(box.rows, low[0].double().numpy(), high[0].double().numpy()))
        for k in decision.open(number):
            if gone[list(box.rows.clauses[k])].any():
                decision.prove(number, k)


def _together(decision: Decision, numbers: range) -> None:
    """Bounds boxes that have the same clauses in batches; what the first of a batch has settled is asked of none here."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for number in numbers:
        rows = decision.spec.boxes[number].rows
        if len(rows.b) < _MANY:
            alike.setdefault((rows.A.tobytes(), rows.b.tobytes(), rows.clauses), []).append(number)
    most = _VALUES // sum(math.prod(shape) for shape in decision.spec.network.shapes.values())
    for group in alike.values():
        for i in range(0, len(group), max(most, 1)):
            part = group[i : i + most]
            if len(part) > 1 and decision.running and decision.open(part[0]):
                _bounded(decision, part)


def _bounded(decision: Decision, numbers: list[int]) -> None:
    boxes = [decision.spec.boxes[n] for n in numbers]
    clauses = decision.open(numbers[0])
    method = decision.session.milp.bounds_method
    with decision.budget.stage("bounds"):
        model = decision.least_model(numbers[0], clauses)
        ends = np.stack([b.lower for b in boxes]), np.stack([b.upper for b in boxes])
        # optimised slopes cost seconds: they are for what is left
        first = "crown" if method == "alpha-crown" else method
        bounds = compute_bounds(model.network, *ends, first, budget=decision.budget)
        gone = excluded(bounds.output[1].double().numpy())
    for number, refuted in zip(numbers, gone, strict=True):
        for k, (row,) in model.members.items():
            if refuted[row]:
                decision.prove(number, k)


def highest(rows: RowSet, low: Array, high: Array) -> Array:
    """Upper ends of `b - A y` for `low <= y <= high`: `(rows,)`; NaN or infinite where an end that counts is."""
    up, down = np.clip(rows.A, 0, None), np.clip(rows.A, None, 0)
    with np.errstate(invalid="ignore", over="ignore"):
        least = np.where(up == 0, 0.0, up * low).sum(1) + np.where(down == 0, 0.0, down * high).sum(1)
        terms = np.abs(rows.b) + np.where(rows.A == 0, 0.0, np.abs(rows.A) * np.maximum(np.abs(low), np.abs(high))).sum(1)
        return np.asarray(rows.b - least + _OUTWARD * terms)
