"""The pass `compare`: how far two networks differ on a ball.

| figure | what it is | what it proves |
|---|---|---|
| sampled | largest difference at random points and at the anchor | a lower bound of the true maximum |
| attacked | largest difference that gradient ascent finds | a better lower bound |
| certified | bound of the difference network | an upper bound |
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import OptionError
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
from onnxsub.shown import Shown, number

__all__ = ["CompareOptions", "CompareResult", "compare"]

_WORK = 3e9  # multiplications of one block of replays of one file: a fraction of a second of one core


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
            raise OptionError(f"--bounds {self.method!r} is unknown; choose one of {', '.join(METHODS)}")
        if self.samples < 1 or self.steps < 0 or self.restarts < 1:
            raise OptionError("--samples and restarts must be at least 1, steps at least 0")


@dataclass(frozen=True, eq=False, repr=False)
class CompareResult(Shown):
    """How far two networks differ on `B(eps)`: `max over x and k of |f_k(x) - g_k(x)|`.

    Attributes:
        sampled, attacked: lower bounds, by onnxruntime on both files.
        certified: upper bound over the ball (on the networks over the real numbers); infinite where the time did not suffice.
        at_x0: the difference at the anchor.
        disagreements: at how many of the points tried the two predict different classes.
        classes_differ: `yes` (at a point that was tried), `no` (bounds prove that both keep one class on the ball) or `unknown`.
        points: how many were tried.
        witness: the point of the largest difference, float32.
        stage: what a time limit cut short: `sampled`, `attacked`, `certified` or `classes`; None: nothing. The figures hold all the
            same.
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
    stage: str | None = None

    @property
    def line(self) -> str:
        ball = f"at eps {number(self.options.eps)}"
        return f"{number(self.attacked)} <= max |f - g| <= {number(self.certified)} {ball}, classes differ: {self.classes_differ}"

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
            "timed_out": self.stage is not None,
            "stage": self.stage,
            "time_s": dict(self.time_s),
        }


def compare(query: Query, other: Model | str, options: CompareOptions, *, budget: Budget | None = None) -> CompareResult:
    """Compares the query's model with another of the same input on the ball round the anchor.

    Args:
        budget: where it ends, `sampled` and `attacked` are those of the points tried until then.

    Raises:
        InputError: the two do not have the same input shape and number of classes.
    """
    budget = budget or Budget()
    start = time.perf_counter()
    model = other if isinstance(other, Model) else load_model(other)
    network = analysis_network(model, query.space)
    difference = difference_network(query.network, network)
    low, high = query.space.ball(query.x0, options.eps)
    tried = _Tried(query, Runtime(model, threads=1))
    times, certified, differ, stage = {}, math.inf, "unknown", "sampled"
    sampled = 0.0
    try:
        rng = np.random.default_rng(options.seed)
        samples = _inside(rng.uniform(low, high, (options.samples, *query.x0.shape)), low, high)
        corners = _inside(np.where(rng.random((options.samples // 4 + 1, *query.x0.shape)) < 0.5, low, high), low, high)
        points = np.concatenate([query.x0[None], samples, corners])
        values = tried.all_of(points, budget)
        sampled, t1 = tried.largest, time.perf_counter()
        times["sampled"], stage = t1 - start, "attacked"
        starts = points[np.argsort(-values)[: options.restarts]]
        tried.all_of(_inside(_ascend(difference, starts, low, high, options, budget), low, high), budget, least=1)
        t2 = time.perf_counter()
        times["attacked"], stage = t2 - t1, "certified"
        budget.check()
        bounds = compute_bounds(difference, low, high, options.method, budget=budget)
        certified = float(torch.maximum(-bounds.output[0], bounds.output[1]).max())
        stage = "classes"
        if not tried.disagreements and _same_class(query, network, (low, high), options.method, budget):
            differ = "no"
        times["certified"], stage = time.perf_counter() - t2, ""
    except OutOfTime:
        sampled = sampled or tried.largest
    if model.same_as(query.model):
        certified = 0.0
    times["total"] = time.perf_counter() - start
    return CompareResult(
        options, sampled, tried.largest, certified, tried.at_x0, tried.disagreements, "yes" if tried.disagreements else differ,
        tried.count, tried.witness, query.json_head(),
        {"path": None if model.path is None else str(model.path), "sha256": model.sha256}, times, stage or None,
    )  # fmt: skip


class _Tried:
    """The points at which both files were run.

    Attributes:
        largest: difference of the logits so far, at `witness`. at_x0: at the first point of all, the anchor.
        disagreements: points with two classes. count: points.
    """

    def __init__(self, query: Query, runtime: Runtime) -> None:
        self._query = query
        self._runtime = runtime
        self.largest = self.at_x0 = 0.0
        self.witness = query.x0
        self.disagreements = self.count = 0

    def all_of(self, x: Array, budget: Budget, *, least: int = 0) -> Array:
        """`max_k |f_k - g_k|` at points `(N, *shape)`, `(N,)`. Raises OutOfTime; blocks before that count.

        Args:
            least: blocks that are run in any case. Of the first points of all, the anchor is.
        """
        found = []
        step = max(1, int(_WORK // max(self._query.network.multiplications, 1)))
        # the anchor is a block of its own
        starts = [0, *range(1, len(x), step)] if self.count == 0 else list(range(0, len(x), step))
        for i, (begin, end) in enumerate(zip(starts, [*starts[1:], len(x)], strict=True)):
            if i >= least and self.count:
                budget.check()
            found.append(self._block(x[begin:end]))
        return np.concatenate(found)

    def _block(self, x: Array) -> Array:
        query = self._query
        f = query.logits(x).astype(np.float64)
        g = two_classes(self._runtime.logits(query.space.normalise(x))).astype(np.float64)
        apart = np.nan_to_num(np.abs(f - g).max(axis=1), nan=np.inf)  # where a logit is undefined, nothing bounds the difference
        if self.count == 0:
            self.at_x0 = float(apart[0])
        if apart.max() > self.largest:
            self.largest, self.witness = float(apart.max()), x[apart.argmax()]
        self.count += len(x)
        self.disagreements += int((f.argmax(1) != g.argmax(1)).sum())
        return np.asarray(apart)


def _same_class(query: Query, other: Network, box: tuple[Array, Array], method: str, budget: Budget) -> bool:
    """Whether bounds prove that both networks give the class of the anchor everywhere on the box."""
    networks = (query.network, other)
    return all(worst_margin_bound(network, box, query.predicted, method, budget=budget) > 0 for network in networks)


def _inside(x: Array, low: Array, high: Array) -> Array:
    """`x` as float32 that does not leave the box by rounding."""
    y = x.astype(np.float32)
    y = np.where(y > high, np.nextafter(y, np.float32(-np.inf)), y)
    return np.where(y < low, np.nextafter(y, np.float32(np.inf)), y)


def _ascend(
    difference: Network, starts: Array, low: Array, high: Array, options: CompareOptions, budget: Budget
) -> Array:
    """Sign-gradient ascent on `max_k |f_k - g_k|` from each start, with a step that shrinks linearly, as long as there is time."""
    lo, hi = torch.as_tensor(low, dtype=torch.float32), torch.as_tensor(high, dtype=torch.float32)
    x = torch.as_tensor(np.array(starts), dtype=torch.float32)
    best, best_value = x.clone(), torch.full((len(x),), -torch.inf)
    for step in range(options.steps + 1):
        if step and budget.over:
            break
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
