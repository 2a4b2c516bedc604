"""Strong classification robustness SCR(eps, eta): the score of the true class stays high."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.metrics.local.base import Counterexamples, LocalProperty, Measured, clause
from onnxsub.metrics.local.scores import log_odds, odds_network, scores
from onnxsub.ops.base import Array
from onnxsub.properties import Clause
from onnxsub.query import Query

__all__ = ["StrongClassificationRobustness"]


@dataclass(frozen=True)
class StrongClassificationRobustness(LocalProperty):
    r"""SCR(eps, eta): the softmax score of the true class is at least eta.

        for all x in B(eps):  p_y(x) >= eta,    p = softmax(f),    0 < eta < 1

    A score of exactly eta satisfies it. `eta > 1/2` implies CR(eps). Of a single logit z the score of class 1 is sigmoid(z).
    Quantity: `p_y`, bound eta. Attack: the loss `sum_{t != y} exp(f_t - f_y)`, as far as its terms are below the bound.

    Decided on logits: `p_y >= eta  <=>  sum_{t != y} exp(f_t - f_y) <= (1 - eta) / eta`. For two classes that is linear and as
    exact as CR. For more, units with a convex function stand behind the logits (`convex.Odds`); branch and bound splits them until
    the chord is near enough: everything but a band round eta that shrinks with the time spent (`milp` cannot). VNN-LIB: two
    classes.

    Source: Casadio et al. 2022, "Neural Network Robustness as a Verification Property" (`f(x)_c >= eta`, with scores as outputs).
    """

    eta: float = math.nan

    name: ClassVar[str] = "scr"
    needs_label: ClassVar[bool] = True
    smallest: ClassVar[bool] = True
    of_scores: ClassVar[bool] = True

    def _check(self) -> None:
        if not 0 < self.eta < 1:
            raise OptionError(f"--eta {self.eta} is not a score that softmax can be held to; give a number between 0 and 1")

    @property
    def bound(self) -> float:
        return self.eta

    def quantity(self, query: Query, f: Array, start: Array, x: Array) -> Array:
        return np.asarray(scores(f)[:, query.label])

    def measure(self, query: Query, x: Array) -> Measured:
        own = self.quantity(query, query.logits(x), query.logits(query.x0[None])[0], x)
        return Measured(own, np.asarray(own < self.eta))

    def linear_clauses(self, query: Query) -> tuple[Clause, ...]:
        if query.classes > 2:
            raise InputError("property scr over more than two classes is not linear in the logits; VNN-LIB text cannot state it")
        gap = np.array([1.0, -1.0]) * (1 if query.label == 0 else -1)  # f_y - f_t
        return (clause(gap, -log_odds(self.eta)),)

    def counterexamples(self, query: Query) -> Counterexamples:
        if query.classes == 2:
            return Counterexamples(query.network, self.linear_clauses(query))
        network = odds_network(query.network, [(query.label, self.eta)])
        return Counterexamples(network, (clause(np.array([-1.0]), -1.0),))
