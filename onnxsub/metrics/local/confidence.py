"""Confidence robustness: no softmax score changes by more than gamma."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.metrics.local.base import Counterexamples, LocalProperty, Measured, at_anchor, clause
from onnxsub.metrics.local.scores import log_odds, odds_network, scores
from onnxsub.ops.base import Array
from onnxsub.properties import Clause
from onnxsub.query import Query

__all__ = ["ConfidenceRobustness"]


@dataclass(frozen=True)
class ConfidenceRobustness(LocalProperty):
    r"""confidence(eps, gamma): no softmax score changes by more than gamma.

        for all x in B(eps):  max_k |p_k(x) - p_k(x0)| <= gamma,    p = softmax(f),    0 < gamma < 1

    A change of exactly gamma satisfies it. Quantity: `max_k |p_k(x) - p_k(x0)|`, bound gamma. The class of the anchor plays no
    part. Attack: the score of every class k up and down, as the two sums below.

    Decided on logits, for every class k and side: `p_k < p_k(x0) - gamma` and `p_k > p_k(x0) + gamma` each compare
    `sum_{t != k} exp(f_t - f_k)` with a constant; a side beyond 0 or 1 cannot be reached. For two classes both are linear. For
    more, units with a convex function stand behind the logits, as for SCR (`milp` cannot). VNN-LIB: two classes.

    Source: standard robustness of Casadio et al. 2022, "Neural Network Robustness as a Verification Property", with scores as the
    outputs of f.
    """

    gamma: float = math.nan

    name: ClassVar[str] = "confidence"
    needs_label: ClassVar[bool] = False
    smallest: ClassVar[bool] = False
    of_scores: ClassVar[bool] = True

    def _check(self) -> None:
        if not 0 < self.gamma < 1:
            raise OptionError(f"--gamma {self.gamma} is not a change of a score that can be exceeded; give one between 0 and 1")

    @property
    def bound(self) -> float:
        return self.gamma

    def quantity(self, query: Query, f: Array, start: Array, x: Array) -> Array:
        return np.asarray(np.abs(scores(f) - scores(start)).max(axis=1))

    def measure(self, query: Query, x: Array) -> Measured:
        change = self.quantity(query, query.logits(x), query.logits(query.x0[None])[0], x)
        return Measured(change, np.asarray(change > self.gamma))

    def _sides(self, query: Query) -> list[tuple[int, float, float]]:
        """Class, score and side (1: above it, -1: below it) of every change that is too large and possible."""
        found = []
        for k, p in enumerate(scores(at_anchor(query)).tolist()):
            found += [(k, p + s * self.gamma, s) for s in (1.0, -1.0) if 0 < p + s * self.gamma < 1]
        return found

    def linear_clauses(self, query: Query) -> tuple[Clause, ...]:
        if query.classes > 2:
            raise InputError(
                "property confidence over more than two classes is not linear in the logits; VNN-LIB text cannot state it"
            )
        # the two scores add up to 1: what one gains the other loses
        gap = np.array([1.0, -1.0])
        return tuple(clause(-s * gap, s * log_odds(score)) for k, score, s in self._sides(query) if k == 0)

    def counterexamples(self, query: Query) -> Counterexamples:
        if query.classes == 2:
            return Counterexamples(query.network, self.linear_clauses(query))
        sides = self._sides(query)
        if not sides:
            return Counterexamples(query.network, ())
        network = odds_network(query.network, [(k, score) for k, score, _ in sides])
        # an output is below 1 where the score is above, and the other way round
        rows = np.eye(len(sides))
        return Counterexamples(network, tuple(clause(s * row, s) for row, (_, _, s) in zip(rows, sides, strict=True)))
