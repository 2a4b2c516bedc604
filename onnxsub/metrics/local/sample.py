"""Uniform points of the ball: constraint accuracy."""

from __future__ import annotations

import numpy as np

from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.metrics.local.base import LocalProperty
from onnxsub.metrics.local.search import BallJudge
from onnxsub.query import Query

__all__ = ["sample_local"]

_BLOCK = 2**22  # input elements of one block
_WORK = 5e9  # multiplications of one block: a fraction of a second of one core


def sample_local(
    query: Query, prop: LocalProperty, count: int, seed: int, *, budget: Budget | None = None
) -> tuple[int, int]:
    """How many of `count` independent points, uniform on `B(eps)` intersected with the domain, satisfy the property.

    Points are rounded to float32 inside the ball and judged by onnxruntime. NaN satisfies nothing.

    Args:
        budget: where it ends, the points drawn so far count; at least one block of them is. The points do not depend on it.

    Returns:
        `(satisfied, drawn)`.

    Raises:
        InputError: `count` is not positive.
    """
    if count < 1:
        raise InputError(f"{count} samples: give at least 1")
    judge = BallJudge(query, prop)
    low, high = judge.lower.astype(np.float64), judge.upper.astype(np.float64)
    rng = np.random.default_rng(seed)
    step = max(1, min(_BLOCK // max(1, len(low)), int(_WORK // max(query.network.multiplications, 1))))
    budget = budget or Budget()
    satisfied = 0
    for start in range(0, count, step):
        if start and budget.over:
            return satisfied, start
        size = min(step, count - start)
        x = np.clip((low + (high - low) * rng.random((size, len(low)))).astype(np.float32), judge.lower, judge.upper)
        found = prop.measure(query, x.reshape(size, *query.x0.shape))
        satisfied += size - int((found.violated | ~np.isfinite(found.quantity)).sum())
    return satisfied, count
