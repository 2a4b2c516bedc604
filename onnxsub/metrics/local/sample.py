"""Uniform points of the ball: constraint accuracy."""

from __future__ import annotations

import numpy as np

from onnxsub.errors import InputError
from onnxsub.metrics.local.base import LocalProperty
from onnxsub.metrics.local.search import BallJudge
from onnxsub.query import Query

__all__ = ["sample_local"]

_BLOCK = 2**22  # input elements of one block


def sample_local(query: Query, prop: LocalProperty, count: int, seed: int) -> tuple[int, int]:
    """How many of `count` independent points, uniform on `B(eps)` intersected with the domain, satisfy the property.

    Points are rounded to float32 inside the ball and judged by onnxruntime. NaN satisfies nothing.

    Returns:
        `(satisfied, count)`.

    Raises:
        InputError: `count` is not positive.
    """
    if count < 1:
        raise InputError(f"{count} samples: give at least 1")
    judge = BallJudge(query, prop)
    low, high = judge.lower.astype(np.float64), judge.upper.astype(np.float64)
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // max(1, len(low)))
    satisfied = 0
    for start in range(0, count, step):
        size = min(step, count - start)
        x = np.clip((low + (high - low) * rng.random((size, len(low)))).astype(np.float32), judge.lower, judge.upper)
        found = prop.measure(query, x.reshape(size, *query.x0.shape))
        satisfied += size - int((found.violated | ~np.isfinite(found.quantity)).sum())
    return satisfied, count
