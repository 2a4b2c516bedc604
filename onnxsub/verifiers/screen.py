"""Many clauses at once: intervals of the outputs refute most of them, at a cost that grows with their number and no faster."""

from __future__ import annotations

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.passes.rescale import rescaled
from onnxsub.propagate import compute_bounds
from onnxsub.properties.rows import RowSet
from onnxsub.verifiers.decision import Decision
from onnxsub.verifiers.proof import excluded

__all__ = ["screen"]

_MANY = 64  # rows from which on outputs are bounded first; fewer are bounded themselves at once
_OUTWARD = 1e-9  # of the size of a row's terms: far more than their sum can round


def screen(decision: Decision, number: int) -> None:
    """Refutes the clauses of a box of which a row is below zero for all outputs within their intervals.

    Raises:
        UnsupportedOperatorError: an operator has no bounds.
        OutOfTime: the budget ended.
    """
    box = decision.spec.boxes[number]
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


def highest(rows: RowSet, low: Array, high: Array) -> Array:
    """Upper ends of `b - A y` for `low <= y <= high`: `(rows,)`; NaN or infinite where an end that counts is."""
    up, down = np.clip(rows.A, 0, None), np.clip(rows.A, None, 0)
    with np.errstate(invalid="ignore", over="ignore"):
        least = np.where(up == 0, 0.0, up * low).sum(1) + np.where(down == 0, 0.0, down * high).sum(1)
        terms = np.abs(rows.b) + np.where(rows.A == 0, 0.0, np.abs(rows.A) * np.maximum(np.abs(low), np.abs(high))).sum(1)
        return np.asarray(rows.b - least + _OUTWARD * terms)
