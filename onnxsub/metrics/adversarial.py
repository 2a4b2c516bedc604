"""Adversarial examples with the margin objective: one unit of work is a pair (anchor, target class)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.metrics.margin import MarginOptions, smallest_margin
from onnxsub.ops.base import Array
from onnxsub.passes.bounds import check_eps
from onnxsub.query import Query
from onnxsub.region import InputSpace
from onnxsub.verifiers.result import Progress

__all__ = ["AdversarialOptions", "Anchor", "Pair", "Targets", "work_pair"]


@dataclass(frozen=True)
class Targets:
    """Which classes an anchor is attacked towards: all others, the given ones, or the one with the second largest logit.

    Attributes:
        rule: `all`, `runner-up` or `given`.
        classes: of `given`; the anchor's own class is left out where it is among them.
    """

    rule: str = "all"
    classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rule not in ("all", "runner-up", "given"):
            raise InputError(f"the rule {self.rule!r} of targets is unknown; choose all, runner-up or given")

    @staticmethod
    def parse(text: str) -> Targets:
        """`all`, `runner-up`, or classes by commas. Raises InputError."""
        if text in ("all", "runner-up"):
            return Targets(text)
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() for part in parts):
            raise OptionError(f"--targets {text!r} is unknown; give all, runner-up, or classes such as 3,5")
        classes = tuple(int(part) for part in parts)
        if len(set(classes)) < len(classes):
            raise OptionError(f"--targets {text!r} names a class twice; give each once")
        return Targets("given", classes)

    def of(self, query: Query) -> tuple[int, ...]:
        """The targets of one anchor. Raises InputError where a class is none of the model's."""
        if self.rule == "all":
            return query.targets
        if self.rule == "runner-up":
            others = query.logits(query.x0[None])[0].astype(np.float64)
            others[query.label] = -math.inf
            return (int(others.argmax()),)
        beyond = [t for t in self.classes if t >= query.classes]
        if beyond:
            last = query.classes - 1
            raise InputError(f"--targets {beyond[0]} is out of range: the model has {last + 1} classes (0 to {last})")
        return tuple(t for t in self.classes if t != query.label)

    def __str__(self) -> str:
        return ",".join(map(str, self.classes)) if self.rule == "given" else self.rule


@dataclass(frozen=True, eq=False)
class Anchor:
    """One row of a data set.

    Attributes:
        sample: its position there. x: float32, per-sample shape. label: the class to leave; None: the predicted one.
    """

    sample: int
    x: Array = field(repr=False)
    label: int | None


@dataclass(frozen=True)
class AdversarialOptions:
    """What is asked of every anchor.

    Attributes:
        eps: radius of the ball, in un-normalised input units.
        targets: classes that are tried.
        margin: how a pair is solved; its time limit counts per pair.
        space: domain and normalisation.
    """

    eps: float
    targets: Targets = field(default_factory=Targets)
    margin: MarginOptions = field(default_factory=MarginOptions)
    space: InputSpace = field(default_factory=InputSpace)

    def __post_init__(self) -> None:
        check_eps(self.eps)

    def to_json(self) -> dict[str, Any]:
        s = self.space
        space = {"domain": list(s.interval), "mean": s.mean, "std": s.std}
        return {"eps": self.eps, "targets": str(self.targets), **space, **self.margin.to_json()}


@dataclass(frozen=True)
class Pair:
    """One pair and what came of it: `lower <= min_{B(eps)} f_y - f_t <= upper`.

    Attributes:
        model: name of the file. sample: position of the anchor in the data set. label, target: y and t.
        status: `exact`, `bracket` or `timeout`.
        verdict: `example` (`f_t > f_y` at the point, under onnxruntime), `tie`, `none` (proved) or `undecided`.
        lower, upper: of the objective; `lower` is infinite where nothing is proved.
        predicted: class of the best point; for an example usually t, but a third class may be ahead of both.
        distance: `|x - x0|_inf` of that point.
        nodes, runs, seconds: what it took.
    """

    model: str
    sample: int
    label: int
    target: int
    status: str
    verdict: str
    lower: float
    upper: float
    predicted: int
    distance: float
    nodes: int
    runs: int
    seconds: float

    @staticmethod
    def of(model: str, sample: int, result: dict[str, Any]) -> Pair:
        """The pair whose result is what `work_pair` gives."""
        keys = ("label", "target", "status", "verdict", "lower", "upper", "predicted", "distance", "nodes", "runs")
        return Pair(model, sample, **{k: result[k] for k in keys}, seconds=result["time_s"]["total"])

    def to_json(self) -> dict[str, Any]:
        names = ("sample", "label", "target", "status", "verdict", "lower", "upper", "predicted", "distance", "nodes", "seconds")
        return {name: getattr(self, name) for name in names}


def work_pair(
    query: Query, target: int, eps: float, options: MarginOptions | None = None, *, progress: Progress | None = None
) -> tuple[dict[str, Any], Array]:
    """One unit of work: the smallest margin of a pair as plain values, and the point of its upper end (float32, per-sample shape).

    The values are those of `MarginResult.to_json` and `interrupted`. The point is an example where `verdict` is `example`, a tie
    where it is `tie`; else it is no more than the best point found.

    Raises:
        InputError, UnsupportedOperatorError, MissingDependencyError, LicenceError, SolverError: as `smallest_margin`.
    """
    result = smallest_margin(query, target, eps, options, progress=progress)
    return {**result.to_json(), "interrupted": result.interrupted}, result.witness.x
