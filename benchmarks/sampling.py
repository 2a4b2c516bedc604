"""What points say about a network: onnxruntime's word, an anchor and its domain, the nearest counterexample along many lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

__all__ = ["Anchor", "logits_by_onnxruntime", "nearest_sampled", "worst"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Anchor:
    """Where a question is asked: `x0` (flat, float64), the class, the domain, and what the network is fed, `(x - mean) / std`."""

    x0: Array
    label: int
    lower: float = 0.0
    upper: float = 1.0
    mean: float = 0.0
    std: float = 1.0

    @property
    def width(self) -> float:
        return self.upper - self.lower

    def fed(self, x: Array) -> Array:
        return (np.asarray(x, dtype=np.float64) - self.mean) / self.std


def worst(logits: Array, label: int) -> Array:
    """`max_t f_t - f_label` per row."""
    rest = np.array(logits, dtype=np.float64)
    own = rest[:, label].copy()
    rest[:, label] = -np.inf
    return np.asarray(rest.max(axis=1) - own)


def logits_by_onnxruntime(proto: ModelProto) -> Callable[[Array], Array]:
    """Flat float32 outputs, as float64, of fed rows `(N, ...)`; a fixed batch axis of 1 is fed row by row."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    batch, *shape = source.shape
    size = 1 if batch == 1 else None

    def run(x: Array) -> Array:
        rows = np.asarray(x, dtype=np.float32).reshape(-1, *shape)
        parts = [rows[i : i + size] for i in range(len(rows))] if size else [rows]
        found = [np.asarray(session.run(None, {source.name: part})[0], dtype=np.float64).reshape(len(part), -1) for part in parts]
        return np.concatenate(found)

    return run


def nearest_sampled(
    logits: Callable[[Array], Array], at: Anchor, rng: np.random.Generator, *, beyond: float, lines: int = 48, steps: int = 32
) -> float:
    """The smallest radius at which a line met `margin > beyond * (1 + |logits|)`: corners, random directions, signs of differences.

    Args:
        logits: of fed rows.
        beyond: what rounding cannot explain: 1e-9 for float64, 1e-4 for float32.
    """
    n = len(at.x0)
    ways = [np.sign(rng.normal(size=(lines, n))), rng.uniform(-1, 1, (lines, n)) * rng.choice([0.0, 1.0], (lines, n), p=[0.2, 0.8])]
    base = logits(at.fed(at.x0[None]))[0]
    step = 0.01 * at.width
    for origin in (at.x0, *np.clip(at.x0 + rng.uniform(-0.3, 0.3, (3, n)) * at.width, at.lower, at.upper)):
        there = logits(at.fed(np.vstack([origin, origin + step * np.eye(n)])))
        for t in range(len(base)):
            if t != at.label:
                change = (there[1:, t] - there[1:, at.label]) - (there[0, t] - there[0, at.label])
                ways.append(np.sign(change)[None])
    way = np.concatenate(ways)
    found = math.inf
    radii = at.width * np.linspace(0, 1, steps + 1)[1:]
    for _ in range(3):
        points = np.clip(at.x0 + way[:, None] * radii[None, :, None], at.lower, at.upper)
        flat = points.reshape(-1, n)
        out = logits(at.fed(flat))
        good = worst(out, at.label) > beyond * (1 + np.abs(out).max(axis=1))
        if not good.any():
            break
        reach = np.abs(flat - at.x0).max(axis=1)
        found = min(found, float(reach[good].min()))
        first = good.reshape(len(way), -1)
        some = first.any(axis=1)
        best = np.where(some, first.argmax(axis=1), steps)
        way = way[np.argsort(best)[: max(8, len(way) // 4)]]
        radii = found * np.linspace(0.7, 1.0, steps)
    return found
