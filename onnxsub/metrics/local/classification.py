"""Classification robustness CR(eps)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsub.metrics.local.base import Counterexamples, LocalProperty, Measured, clause
from onnxsub.ops.base import Array
from onnxsub.properties import Clause, Property, robustness_property
from onnxsub.query import Query, worst_margin

__all__ = ["ClassificationRobustness"]


@dataclass(frozen=True)
class ClassificationRobustness(LocalProperty):
    r"""CR(eps): the class does not change.

        for all x in B(eps) and all t != y:  f_y(x) > f_t(x)

    A tie violates it: it lies on the decision boundary. Quantity: the margin `min_t f_y - f_t`, bound 0. Attack: the loss
    `f_t - f_y`. VNN-LIB: one clause `f_t >= f_y` per class t, also where the file ends in a head, which keeps the order.

    Source: Casadio et al. 2022, "Neural Network Robustness as a Verification Property" (`argmax f(x) = y`; what a tie is, is left
    open there); Katz et al. 2017, "Reluplex" (local adversarial robustness).
    """

    name: ClassVar[str] = "cr"
    needs_label: ClassVar[bool] = True
    smallest: ClassVar[bool] = True

    def _check(self) -> None:
        """It has no parameter but the radius."""

    @property
    def bound(self) -> float:
        return 0.0

    def quantity(self, query: Query, f: Array, start: Array, x: Array) -> Array:
        return -worst_margin(f, query.label, query.target)[0]

    def measure(self, query: Query, x: Array) -> Measured:
        margin = -query.margins(x)[0]
        return Measured(margin, np.asarray(margin <= 0))

    def linear_clauses(self, query: Query) -> tuple[Clause, ...]:
        own = np.eye(query.classes)[query.label]
        return tuple(clause(own - np.eye(query.classes)[t], 0.0) for t in query.targets)

    def counterexamples(self, query: Query) -> Counterexamples:
        return Counterexamples(query.network, self.linear_clauses(query))

    def to_property(self, query: Query) -> Property:
        """See `onnxsub.properties.robustness_property`: heads are no obstacle, they keep the order of the classes."""
        return robustness_property(query, self.eps)
