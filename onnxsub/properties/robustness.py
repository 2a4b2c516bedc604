"""The property "no other class within the radius", as VNN-LIB states it: a counterexample is what is asked for."""

from __future__ import annotations

import numpy as np

from onnxsub.errors import OptionError
from onnxsub.ops.base import Array
from onnxsub.properties.property import Case, Clause, Property
from onnxsub.query import Query

__all__ = ["fed_box", "robustness_property"]


def robustness_property(query: Query, eps: float) -> Property:
    """`x in B(eps)` and some `f_t(x) >= f_y(x)`, in the units that the model is fed: `(x - mean) / std`.

    Raises:
        InputError: `eps` is no radius.
    """
    model = query.model
    case = Case(*fed_box(query, eps), _other_class(query))
    return Property((case,), (1, *model.input_shape), (1, *model.output_shape))


def fed_box(query: Query, eps: float) -> tuple[Array, Array]:
    """Both ends of what the model is fed for the points of `B(eps)`, `(inputs,)`, float64.

    The ball is clipped to the domain. Its ends are those of float64 arithmetic moved outward to the nearest float32 where that
    lies outside (half a unit in the last place at most), so that the box contains what a float32 network can be fed for
    any point of the ball: `unsat` holds for the ball as well.

    Raises:
        InputError: `eps` is no radius.
    """
    if not (np.isfinite(eps) and eps >= 0):
        raise OptionError(f"--eps {eps} is not a radius; give a finite number that is not negative")
    model = query.model
    lower, upper = (end.astype(np.float64) for end in query.space.ball(query.x0, eps))
    ms = query.space.mean_std(model.input_shape)
    if ms is not None:
        lower, upper = (lower - ms[0]) / ms[1], (upper - ms[0]) / ms[1]
    dtype = model.input_dtype
    lower = np.minimum(lower, lower.astype(dtype).astype(np.float64)).reshape(-1) + 0.0
    upper = np.maximum(upper, upper.astype(dtype).astype(np.float64)).reshape(-1) + 0.0
    return lower, upper


def _other_class(query: Query) -> tuple[Clause, ...]:
    """One clause per other class t: `f_y - f_t <= 0`."""
    loose = np.zeros(1, dtype=bool)
    if query.model.outputs == 1:
        # a single score: class 1 where it is above 0 (behind a Sigmoid: above 1/2)
        sign, boundary = (1.0 if query.label == 1 else -1.0), (0.5 if query.model.stripped else 0.0)
        return (Clause(np.array([[sign]]), np.array([sign * boundary]), loose),)
    clauses = []
    for t in query.targets:
        row = np.zeros((1, query.classes))
        row[0, query.label], row[0, t] = 1.0, -1.0
        clauses.append(Clause(row, np.zeros(1), loose))
    return tuple(clauses)
