r"""Tables over pairs (anchor, target class): counts, confusion matrix, statistics, and how far examples of one model fool another.

An *example* is a point of the ball with `f_t > f_y` strictly, under onnxruntime on the file. A *tie* (`f_t = f_y`) is none and is
counted apart, as is a pair for which it is *proved* that there is none, and one that is *undecided*.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.anchors import fit_shape
from onnxsub.errors import InputError
from onnxsub.metrics.adversarial import Anchor, Pair
from onnxsub.model import load_model
from onnxsub.ops.base import Array
from onnxsub.query import two_classes
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime

if TYPE_CHECKING:
    from onnxsub.metrics.adversarial_pairs import Found, Pairs

__all__ = [
    "VERDICTS", "Confusion", "Spread", "Success", "Tried", "check_classes", "confusion", "count_by", "spread", "success_by",
    "try_examples",
]  # fmt: skip

VERDICTS = ("example", "tie", "none", "undecided")


def count_by(pairs: Iterable[Pair], key: str) -> dict[int, dict[str, int]]:
    """How many pairs of each verdict, by `label` (source class) or by `target`: class -> verdict -> number."""
    if key not in ("label", "target"):
        raise ValueError(f"pairs are not counted by {key!r}; choose label or target")
    found: dict[int, Counter[str]] = {}
    for pair in pairs:
        found.setdefault(getattr(pair, key), Counter())[pair.verdict] += 1
    return {k: {v: found[k][v] for v in VERDICTS} for k in sorted(found)}


@dataclass(frozen=True)
class Success:
    """How often a pair has an example.

    Attributes:
        examples: pairs that surely have one. undecided: pairs that may. pairs: all.
    """

    examples: int
    undecided: int
    pairs: int

    def to_json(self) -> dict[str, Any]:
        """`rate` counts what is undecided as unsuccessful, `possible` as successful; null without pairs."""
        rate, possible = ((n / self.pairs if self.pairs else None) for n in (self.examples, self.examples + self.undecided))
        return {"examples": self.examples, "pairs": self.pairs, "rate": rate, "possible": possible}


def success_by(pairs: Iterable[Pair], key: str) -> dict[int, Success]:
    """The rate per source class (`label`) or `target` class."""
    counts = count_by(pairs, key)
    return {k: Success(n["example"], n["undecided"], sum(n.values())) for k, n in counts.items()}


@dataclass(frozen=True)
class Confusion:
    """Of all examples: from which class towards which one, and what the model says of them.

    Attributes:
        classes: number of classes, rows and columns of both matrices.
        targeted: `targeted[y][t]` is the number of examples from class y towards class t.
        predicted: `predicted[y][k]` is the number of examples from class y that the model gives class k.
        triples: (y, t, k) -> number.
    """

    classes: int
    targeted: tuple[tuple[int, ...], ...]
    predicted: tuple[tuple[int, ...], ...]
    triples: dict[tuple[int, int, int], int]

    def to_json(self) -> dict[str, Any]:
        triples = [{"label": y, "target": t, "predicted": k, "examples": n} for (y, t, k), n in sorted(self.triples.items())]
        return {"targeted": self.targeted, "predicted": self.predicted, "examples": triples}


def confusion(pairs: Iterable[Pair], classes: int) -> Confusion:
    """The confusion matrices of the examples among `pairs`."""
    triples = Counter((p.label, p.target, p.predicted) for p in pairs if p.verdict == "example")
    targeted, predicted = (np.zeros((classes, classes), dtype=int) for _ in range(2))
    for (y, t, k), n in triples.items():
        targeted[y, t] += n
        predicted[y, k] += n
    return Confusion(classes, _rows(targeted), _rows(predicted), dict(triples))


def _rows(matrix: Array) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, row)) for row in matrix)


@dataclass(frozen=True)
class Spread:
    """Count, extremes, quartiles (linear between values), mean, standard deviation (n - 1) of numbers; NaN where there are none."""

    count: int
    least: float
    median: float
    mean: float
    most: float
    deviation: float
    lower: float
    upper: float

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count, "min": self.least, "median": self.median, "mean": self.mean, "max": self.most,
            "std": self.deviation, "q1": self.lower, "q3": self.upper,
        }  # fmt: skip


def spread(values: Iterable[float]) -> Spread:
    """The statistics of finite numbers."""
    v = sorted(values)
    if not v:
        return Spread(0, *(7 * (math.nan,)))
    lower, _, upper = statistics.quantiles(v, method="inclusive") if len(v) > 1 else 3 * v
    deviation = statistics.stdev(v) if len(v) > 1 else 0.0
    return Spread(len(v), v[0], statistics.median(v), statistics.fmean(v), v[-1], deviation, lower, upper)


@dataclass(frozen=True)
class Tried:
    """The examples of one model, each run on another (or on the same file again).

    Attributes:
        made_on, tried_on: names of the models.
        examples: how many there are.
        fooled: given another class than the label of their anchor.
        to_target: given the class that they aim at.
        beyond: with `f_t > f_y`, as an example of the model itself has it.
        right: examples whose anchor the other model gives its label, so that a wrong class is the example's doing.
        fooled_right: of these, given another class.
    """

    made_on: str
    tried_on: str
    examples: int
    fooled: int
    to_target: int
    beyond: int
    right: int
    fooled_right: int

    @property
    def rate(self) -> float:
        """Share of the examples with a right anchor that fool the model; NaN where there is none."""
        return self.fooled_right / self.right if self.right else math.nan

    @property
    def accuracy(self) -> float:
        """Share of all examples that the model gives the label of their anchor; NaN where there is none."""
        return (self.examples - self.fooled) / self.examples if self.examples else math.nan

    def to_json(self) -> dict[str, Any]:
        names = ("made_on", "tried_on", "examples", "fooled", "to_target", "beyond", "right", "fooled_right")
        return {**{n: getattr(self, n) for n in names}, "rate": self.rate, "accuracy": self.accuracy}


def try_examples(source: Pairs, path: str, anchors: Sequence[Anchor], space: InputSpace, name: str) -> Tried:
    """Runs the examples of `source` on the file `path`, each alone, under onnxruntime.

    Args:
        anchors: those of the model at `path`, in its own shape.
        space: domain and normalisation, the same for both models.
        name: of the model at `path`.

    Raises:
        InputError: the examples do not fit that model's input, or it has other classes.
    """
    runtime = Runtime(load_model(path), threads=1)
    check_classes(source.name, source.classes, name, max(runtime.model.outputs, 2))
    found = source.examples
    own = {a.sample: a.x for a in anchors}
    if not found:
        return Tried(source.name, name, 0, 0, 0, 0, 0, 0)
    logits = _logits(runtime, [_fitted(f, runtime, name) for f in found], space)
    at_anchor = {s: int(_logits(runtime, [own[s]], space)[0].argmax()) for s in {f.pair.sample for f in found}}
    fooled = to_target = beyond = right = fooled_right = 0
    for f, row in zip(found, logits, strict=True):
        pair = f.pair
        wrong = int(row.argmax()) != pair.label
        fooled += wrong
        to_target += int(row.argmax()) == pair.target
        beyond += bool(row[pair.target] > row[pair.label])
        if at_anchor[pair.sample] == pair.label:
            right += 1
            fooled_right += wrong
    return Tried(source.name, name, len(found), fooled, to_target, beyond, right, fooled_right)


def check_classes(one: str, classes: int, other: str, others: int) -> None:
    """Raises InputError where two models tell different numbers of classes apart: an example's target must be one of both."""
    if classes != others:
        raise InputError(f"--transfer: {one} has {classes} classes and {other} has {others}; give two models of the same classes")


def _fitted(found: Found, runtime: Runtime, name: str) -> Array:
    try:
        return fit_shape(found.x, runtime.model.input_shape, "an example")
    except InputError as error:
        raise InputError(f"--transfer {name}: {error}; the two models must take the same images") from error


def _logits(runtime: Runtime, rows: Sequence[Array], space: InputSpace) -> Array:
    return two_classes(runtime.logits(space.normalise(np.stack(rows)), one_by_one=True))
