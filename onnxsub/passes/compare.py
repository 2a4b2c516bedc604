"""The pass `compare`: how far two networks differ on a ball.

| figure | what it is | what it proves |
|---|---|---|
| sampled | largest difference at random points and at the anchor | a lower bound of the true maximum |
| attacked | largest difference that gradient ascent finds | a better lower bound |
| certified | bound of the difference network | an upper bound |
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onnxsub.errors import InputError
from onnxsub.model import Model, load_model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.bounds import check_eps
from onnxsub.passes.certify import worst_margin_bound
from onnxsub.passes.difference import difference_network
from onnxsub.propagate import METHODS, compute_bounds
from onnxsub.query import Query, analysis_network, two_classes
from onnxsub.results import VERSION
from onnxsub.runtime import Runtime

__all__ = ["CompareOptions", "CompareResult", "compare"]


@dataclass(frozen=True)
class CompareOptions:
    """What to compare on.

    Attributes:
        eps: radius of the ball.
        samples: random points.
        steps, restarts: of the gradient ascent.
        method: bounds method of the certified figure.
    """

    eps: float
    samples: int = 1000
    steps: int = 50
    restarts: int = 20
    method: str = "crown"
    seed: int = 0

    def __post_init__(self) -> None:
        check_eps(self.eps)
        if self.method not in METHODS:
            raise InputError(f"--bounds {self.method!r} is unknown; choose one of {', '.join(METHODS)}")
        if self.samples < 1 or self.steps < 0 or self.restarts < 1:
            raise InputError("samples and restarts must be at least 1, steps at least 0")


@dataclass(frozen=True, eq=False)
class CompareResult:
    """How far two networks differ on `B(eps)`: `max over x and k of |f_k(x) - g_k(x)|`.

    Attributes:
        sampled, attacked: lower bounds, by onnxruntime on both files.
        certified: upper bound over the ball (on the networks over the real numbers).
        at_x0: the difference at the anchor.
        disagreements: at how many of the points tried the two predict different classes.
        classes_differ: `yes` (at a point that was tried), `no` (bounds prove that both keep one class on the ball) or `unknown`.
        points: how many were tried.
        witness: the point of the largest difference, float32.
    """

    options: CompareOptions
    sampled: float
    attacked: float
    certified: float
    at_x0: float
    disagreements: int
    classes_differ: str
    points: int
    witness: Array
    head: Mapping[str, Any]
    other: Mapping[str, Any]
    time_s: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The contract `onnxsub.compare/1`."""
        o = self.options
        return {
            "schema": "onnxsub.compare/1",
            "version": VERSION,
            **self.head,
            "other": dict(self.other),
            "settings": {
                "eps": o.eps,
                "samples": o.samples,
                "steps": o.steps,
                "restarts": o.restarts,
                "bounds": o.method,
                "seed": o.seed,
            },
            "eps": o.eps,
            "sampled": self.sampled,
            "attacked": self.attacked,
            "certified": self.certified,
            "at_x0": self.at_x0,
            "disagreements": self.disagreements,
            "classes_differ": self.classes_differ,
            "points": self.points,
            "time_s": dict(self.time_s),
        }


def compare(query: Query, other: Model | str, options: CompareOptions) -> CompareResult:
    """Compares the query's model with another of the same input on the ball round the anchor.

    Raises:
        InputError: the two do not have the same input shape and number of classes.
    """
    start = time.perf_counter()
    model = other if isinstance(other, Model) else load_model(other)
    network = analysis_network(model, query.space)
    difference = difference_network(query.network, network)
    runtime = Runtime(model, threads=1)
    low, high = query.space.ball(query.x0, options.eps)

    def apart(x: Array) -> tuple[Array, int]:
        f, g = query.logits(x).astype(np.float64), two_classes(runtime.logits(query.space.normalise(x))).astype(np.float64)
        return np.abs(f - g).max(axis=1), int((f.argmax(1) != g.argmax(1)).sum())

    rng = np.random.default_rng(options.seed)
    samples = _inside(rng.uniform(low, high, (options.samples, *query.x0.shape)), low, high)
    corners = _inside(np.where(rng.random((options.samples // 4 + 1, *query.x0.shape)) < 0.5, low, high), low, high)
    points = np.concatenate([query.x0[None], samples, corners])
    values, disagreements = apart(points)
    t1 = time.perf_counter()
    found = _inside(_ascend(difference, points[np.argsort(-values)[: options.restarts]], low, high, options), low, high)
    more, changed = apart(found)
    t2 = time.perf_counter()
    disagreements += changed
    bounds = compute_bounds(difference, low, high, options.method)
    certified = float(torch.maximum(-bounds.output[0], bounds.output[1]).max())
    if model.sha256 == query.model.sha256:
        certified = 0.0  # one file
    differ = "yes" if disagreements else "no" if _same_class(query, network, (low, high), options.method) else "unknown"
    t3 = time.perf_counter()
    best = found[more.argmax()] if more.max() > values.max() else points[values.argmax()]
    return CompareResult(
        options, float(values.max()), float(max(more.max(), values.max())), certified, float(values[0]), disagreements,
        differ, len(points) + len(found), best, query.json_head(),
        {"path": None if model.path is None else str(model.path), "sha256": model.sha256},
        {"sampled": t1 - start, "attacked": t2 - t1, "certified": t3 - t2, "total": t3 - start},
    )  # fmt: skip


def _same_class(query: Query, other: Network, box: tuple[Array, Array], method: str) -> bool:
    """Whether bounds prove that both networks give the class of the anchor everywhere on the box."""
    return all(worst_margin_bound(network, box, query.predicted, method) > 0 for network in (query.network, other))


def _inside(x: Array, low: Array, high: Array) -> Array:
    """`x` as float32 that does not leave the box by rounding."""
    y = x.astype(np.float32)
    y = np.where(y > high, np.nextafter(y, np.float32(-np.inf)), y)
    return np.where(y < low, np.nextafter(y, np.float32(np.inf)), y)


def _ascend(difference: Network, starts: Array, low: Array, high: Array, options: CompareOptions) -> Array:
    """Sign-gradient ascent on `max_k |f_k - g_k|` from each start, with a step that shrinks linearly."""
    lo, hi = torch.as_tensor(low, dtype=torch.float32), torch.as_tensor(high, dtype=torch.float32)
    x = torch.as_tensor(np.array(starts), dtype=torch.float32)
    best, best_value = x.clone(), torch.full((len(x),), -torch.inf)
    for step in range(options.steps + 1):
        x = x.detach().requires_grad_()
        value = difference.forward(x).abs().amax(1)
        better = value.detach() > best_value
        best[better], best_value[better] = x.detach()[better], value.detach()[better]
        if step == options.steps:
            break
        (gradient,) = torch.autograd.grad(value.sum(), x)
        size = 0.5 * (hi - lo) * (1 - step / options.steps)
        x = torch.minimum(torch.maximum(x + size * gradient.sign(), lo), hi)
    return best.numpy()
