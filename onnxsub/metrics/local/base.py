"""What a local property is: a statement about the ball round one anchor, and what points it excludes."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import log_softmax

from onnxsub.errors import InputError, OptionError
from onnxsub.metrics.local.scores import scores
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.properties import Case, Clause, Property, fed_box
from onnxsub.query import Query, own_scores

__all__ = ["Counterexamples", "LocalProperty", "Measured", "at_anchor", "clause"]


@dataclass(frozen=True, eq=False)
class Counterexamples:
    """A point violates the property where the output of `network` satisfies one of `clauses`, up to their boundaries.

    Attributes:
        network: over the inputs of the query, in un-normalised units.
        clauses: over its output; none where nothing can violate the property.
    """

    network: Network
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, eq=False)
class Measured:
    """Points by replay.

    Attributes:
        quantity: the number that the property bounds, `(N,)`, float64; NaN where the network gives NaN.
        violated: whether each point violates the property, `(N,)`, bool.
    """

    quantity: Array
    violated: Array


_POINTS = 8
"""Points of the domain at which a file's own scores are held against the softmax of its logits."""
_HEAD, _HALF = 1e-3, 1e-2
"""How far both may be apart: float32 rounds by less, half precision by less than the second."""
_ROUNDED = 1e-6
"""What float32 rounds of large logits, of their size: scores move by as much."""
_SUM = 1e-5  # how far the sum of float32 probabilities is from 1


@dataclass(frozen=True)
class LocalProperty(abc.ABC):
    """A statement about `f` on `B(eps) = {x : |x - x0|_inf <= eps}` intersected with the domain.

    f are the logits: a Softmax, LogSoftmax or (for one score) Sigmoid at the end of a file is left out, and a single logit z
    counts as the two logits (0, z).

    Attributes:
        eps: the radius, in un-normalised input units.
        name: as `make_property` takes it.
        needs_label: whether it speaks of the class of the anchor, so that a label is needed.
        smallest: whether the quantity is to stay above its bound (else below).
        of_scores: whether it speaks of softmax scores, which a softmax makes of the logits.
    """

    eps: float

    name: ClassVar[str]
    needs_label: ClassVar[bool]
    smallest: ClassVar[bool]
    of_scores: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.eps) and self.eps >= 0):
            raise OptionError(f"--eps {self.eps} is not a radius; give a finite number that is not negative")
        self._check()

    @abc.abstractmethod
    def _check(self) -> None:
        """Raises InputError where a parameter is impossible."""

    @property
    @abc.abstractmethod
    def bound(self) -> float:
        """What the quantity is compared with."""

    @abc.abstractmethod
    def quantity(self, query: Query, f: Array, start: Array, x: Array) -> Array:
        """The quantity at points `(N, *shape)`, `(N,)`, whose logits are `f`, `(N, classes)`, and `start` at the anchor."""

    @abc.abstractmethod
    def measure(self, query: Query, x: Array) -> Measured:
        """What onnxruntime says of points `(N, *shape)`, float32, in the ball."""

    def reached(self, query: Query, x: Array) -> Array:
        """The quantity at points `(N, *shape)` as far as rounding cannot have made it, `(N,)`: a bound of its extreme.

        The milder of two: what onnxruntime says, and the network over the real numbers (in float64), of which proofs speak.
        """
        with torch.no_grad():
            f = query.network.forward(torch.as_tensor(np.asarray(x, dtype=np.float64))).numpy()
        real, seen = self.quantity(query, f, at_anchor(query), x), self.measure(query, x).quantity
        return np.maximum(real, seen) if self.smallest else np.minimum(real, seen)

    @abc.abstractmethod
    def counterexamples(self, query: Query) -> Counterexamples | None:
        """The points that violate the property as a network; None where it takes more than one (Lipschitz robustness)."""

    @abc.abstractmethod
    def linear_clauses(self, query: Query) -> tuple[Clause, ...]:
        """The same as clauses over the logits.

        Raises:
            InputError: it is not a disjunction of linear inequalities.
        """

    def check_logits(self, query: Query) -> None:
        """Raises InputError where the file has scores of its own, and the softmax of its logits would be others.

        Its last tensor holds probabilities already; or Sigmoids of several scores, or scores that are divided by their size, are
        left out at its end.
        """
        model = query.model
        if not self.of_scores or model.outputs < 2:
            return
        if model.stripped and not model.own.is_class:
            self._check_head(query)
        if not any(n.op_type == "Softmax" for n in model.form.graph.node):
            return
        f = np.asarray(query.logits(query.x0[None])[0], dtype=np.float64)
        if f.min() >= 0 and abs(f.sum() - 1) <= _SUM:
            raise InputError(
                f"{model.where} ends in probabilities that are no softmax of logits, and property {self.name} would take their "
                "softmax; ask --property sr with --delta, which compares the outputs themselves, or export the network's logits"
            )

    def _check_head(self, query: Query) -> None:
        """Raises InputError where what is left out at the end of the file is neither a softmax nor its logarithm."""
        model = query.model
        low, high = query.space.ends(model.input_shape)
        drawn = np.random.default_rng(0).uniform(low, high, (_POINTS, *model.input_shape))
        x = np.concatenate([query.x0[None], query.space.inside(drawn)])
        said = own_scores(query.runtime.raw(query.space.normalise(x)), model.outputs)
        f = np.asarray(query.logits(x), dtype=np.float64)
        room = (_HALF if model.half else _HEAD) + _ROUNDED * float(np.abs(f).max())
        if all(float((np.abs(said - form) / (1 + np.abs(form))).max()) > room for form in (scores(f), log_softmax(f, axis=1))):
            raise InputError(
                f"{model.where} ends in scores that are no softmax of what they are made of (Sigmoids, or scores divided by their "
                f"size), and property {self.name} would speak of that softmax; ask --property sr with --delta, or export it with a "
                "Softmax at its end"
            )

    def parameters(self) -> dict[str, Any]:
        """Name, radius and parameters."""
        own = {k: v for k, v in vars(self).items() if k != "eps" and v is not None}
        return {"property": self.name, "eps": self.eps, **own}

    def to_property(self, query: Query) -> Property:
        """The question "is there a counterexample" for VNN-LIB: over the file's own input (normalised units) and output.

        Raises:
            InputError: the property is no disjunction of linear inequalities over the file's output.
        """
        clauses = self.linear_clauses(query)
        model = query.model
        if model.stripped:
            raise InputError(
                f"{model.where} ends in a head over which property {self.name} is not linear; export the network without it"
            )
        if model.outputs == 1:  # logits (0, z)
            clauses = tuple(Clause(c.A[:, 1:], c.b, c.strict) for c in clauses)
        case = Case(*fed_box(query, self.eps), clauses)
        return Property((case,), (1, *model.input_shape), (1, *model.output_shape))


def clause(row: Array, most: float) -> Clause:
    """`row . y <= most`."""
    return Clause(np.asarray(row, dtype=np.float64)[None], np.array([float(most)]), np.zeros(1, dtype=bool))


def at_anchor(query: Query) -> Array:
    """`f(x0)` in float64 arithmetic, as proofs see it: `(classes,)`."""
    with torch.no_grad():
        x = torch.as_tensor(query.x0.astype(np.float64)).unsqueeze(0)
        return np.asarray(query.network.forward(x)[0].numpy())
