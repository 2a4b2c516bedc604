"""Standard robustness SR(eps, delta): small changes of the input change the output little."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.metrics.local.base import Counterexamples, LocalProperty, Measured, at_anchor, clause
from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator
from onnxsub.ops.convex import Square
from onnxsub.ops.dense import Dense
from onnxsub.ops.leaky import Leaky
from onnxsub.ops.movement import flatten
from onnxsub.properties import Clause
from onnxsub.query import Query

__all__ = ["NORMS", "StandardRobustness"]

NORMS = {"inf": math.inf, "1": 1.0, "2": 2.0}
"""Names of output norms."""

_MOST_EUCLIDEAN = 1e150  # delta of norm 2, which is decided by its square
_MOST_SIGNS = 10  # outputs for which norm 1 is written out as one clause per pattern of signs


@dataclass(frozen=True)
class StandardRobustness(LocalProperty):
    r"""SR(eps, delta): the logits stay within delta of those at the anchor.

        for all x in B(eps):  |f(x) - f(x0)|_p <= delta,    p = inf (default), 1 or 2

    A difference of exactly delta satisfies it. The class of the anchor plays no part. f are logits, never scores
    (`confidence` speaks of scores), so delta is in units of logits. Quantity: `|f(x) - f(x0)|_p`, bound delta. Attack: the
    loss `|f_k(x) - f_k(x0)|` for every output and sign, or the norm itself.

    Decided: p = inf as 2 outputs' linear clauses; p = 1 by `|.|` units behind the outputs, which are piecewise linear; p = 2 by
    square units, which branch and bound splits until the chord is near enough: everything but a band round delta that
    shrinks with the time spent (`milp` cannot). VNN-LIB: p = inf; p = 1 for at most 10 outputs (a clause per sign pattern).

    Source: Casadio et al. 2022, "Neural Network Robustness as a Verification Property" (for any pair of norms).
    """

    delta: float = math.nan
    norm: str = "inf"

    name: ClassVar[str] = "sr"
    needs_label: ClassVar[bool] = False
    smallest: ClassVar[bool] = False

    def _check(self) -> None:
        if not (math.isfinite(self.delta) and self.delta >= 0):
            raise OptionError(f"--delta {self.delta} is not a distance of outputs; give a finite number that is not negative")
        if self.norm == "2" and self.delta > _MOST_EUCLIDEAN:
            raise OptionError(f"--delta {self.delta:g} has no square in float64; give at most {_MOST_EUCLIDEAN:g} for --norm 2")
        if self.norm not in NORMS:
            raise _unknown(self.norm)

    @property
    def bound(self) -> float:
        return self.delta

    def quantity(self, query: Query, f: Array, start: Array, x: Array) -> Array:
        return np.asarray(np.linalg.norm(f.astype(np.float64) - start.astype(np.float64), ord=NORMS[self.norm], axis=1))

    def measure(self, query: Query, x: Array) -> Measured:
        value = self.quantity(query, query.logits(x), query.logits(query.x0[None])[0], x)
        return Measured(value, np.asarray(value > self.delta))

    def linear_clauses(self, query: Query) -> tuple[Clause, ...]:
        start, m = at_anchor(query), query.classes
        if self.norm == "2" or (self.norm == "1" and m > _MOST_SIGNS):
            raise InputError(
                f"property sr in norm {self.norm} over {m} outputs is no short disjunction of linear inequalities; use --norm inf"
            )
        match self.norm:
            case "1":
                rows = [np.array(signs) for signs in itertools.product((1.0, -1.0), repeat=m)]
            case "inf":
                rows = [sign * row for row in np.eye(m) for sign in (1.0, -1.0)]
            case _:
                raise _unknown(self.norm)
        if query.model.outputs == 1:  # the first logit is the constant 0
            rows = [row for row in rows if row[1]]
        # row (f - f0) >= delta
        return tuple(clause(-row, -float(row @ start) - self.delta) for row in rows)

    def counterexamples(self, query: Query) -> Counterexamples:
        match self.norm:
            case "inf":
                return Counterexamples(query.network, self.linear_clauses(query))
            case "1":
                size = self.delta
            case "2":
                size = self.delta**2
            case _:
                raise _unknown(self.norm)
        return Counterexamples(_norm_network(query, self.norm), (clause(np.array([-1.0]), -size),))


def _unknown(norm: str) -> InputError:
    return InputError(f"output norm {norm!r} is unknown; choose one of {', '.join(NORMS)}")


def _norm_network(query: Query, norm: str) -> Network:
    """The network with `|f - f(x0)|_1` or `|f - f(x0)|_2^2` behind it, `(1,)`."""
    network, m = query.network, query.classes
    flat = flatten(network.output, network.output_shape, "norm:logits")
    moved = Dense(
        op_type="Norm", node="f - f(x0)", inputs=(flat.output,), output="norm:moved", in_shapes=((m,),), out_shape=(m,),
        weight=np.eye(m), bias=-at_anchor(query),
    )  # fmt: skip
    units: Operator
    match norm:
        case "1":
            units = Leaky(
                op_type="Norm", node="|f - f(x0)|", inputs=(moved.output,), output="norm:units", in_shapes=((m,),), out_shape=(m,),
                slope=np.array(-1.0),
            )  # fmt: skip
        case "2":
            units = Square(
                op_type="Norm", node="(f - f(x0))^2", inputs=(moved.output,), output="norm:units", in_shapes=((m,),), out_shape=(m,)
            )  # fmt: skip
        case _:
            raise ValueError(f"norm {norm!r} is no sum over units; choose 1 or 2")
    total = Dense(
        op_type="Norm", node="sum", inputs=(units.output,), output="norm:sum", in_shapes=((m,),), out_shape=(1,),
        weight=np.ones((1, m)),
    )  # fmt: skip
    return network.then((flat, moved, units, total))
