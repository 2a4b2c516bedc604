"""Lipschitz robustness LR(eps, L): the output changes at most L times as much as the input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.metrics.local.base import LocalProperty, Measured
from onnxsub.ops.base import Array
from onnxsub.properties import Clause
from onnxsub.query import Query

__all__ = ["ROUNDING", "LipschitzRobustness"]

ROUNDING = 1e-5
"""A difference of float32 logits is known to about `ROUNDING * (max |f(x)| + max |f(x0)|)`. Near the anchor the ratio of two such
differences is noise, so a violation must exceed the bound by that much."""


@dataclass(frozen=True)
class LipschitzRobustness(LocalProperty):
    r"""LR(eps, L): no logit changes more than L times as much as the input.

        for all x in B(eps):  |f(x) - f(x0)|_inf <= L |x - x0|_inf

    Both norms are inf; L is in units of logits per unit of input. A ratio of exactly L satisfies it. The class of the anchor plays
    no part. Quantity: the ratio (0 at the anchor), bound L. Attack: the ratio of every output and sign, at many radii.

    A point violates it only where `|f(x) - f(x0)|_inf > L |x - x0|_inf + ROUNDING (max |f(x)| + max |f(x0)|)` by onnxruntime.

    Decided through `LR(eps, L)  <=>  SR(r, L r) for all r <= eps` (`lipschitz_decide`): proved shell by shell, and near the
    anchor by a bound of the generalised Jacobian over a ball. Undecided where the time ends first, or where the largest ratio is L
    itself within what the Jacobian's bound can tell. Implies SR(eps, eps L). VNN-LIB: none, inputs and outputs are related.

    Source: Casadio et al. 2022, "Neural Network Robustness as a Verification Property"; Jacobian over a box: Weng et al. 2018,
    "Towards Fast Computation of Certified Robustness for ReLU Networks" (Fast-Lip), Jordan and Dimakis 2020 (Clarke Jacobian).
    """

    lipschitz: float = math.nan

    name: ClassVar[str] = "lr"
    needs_label: ClassVar[bool] = False
    smallest: ClassVar[bool] = False

    def _check(self) -> None:
        if not (math.isfinite(self.lipschitz) and self.lipschitz >= 0):
            raise OptionError(f"--lipschitz {self.lipschitz} is not a Lipschitz constant; give a finite one, not negative")

    @property
    def bound(self) -> float:
        return self.lipschitz

    def quantity(self, query: Query, f: Array, start: Array, x: Array) -> Array:
        return _ratio(np.abs(f.astype(np.float64) - start.astype(np.float64)).max(axis=1), query.radius(x))

    def measure(self, query: Query, x: Array) -> Measured:
        change, radius, room = _moved(query, x)
        return Measured(_ratio(change, radius), np.asarray(change > self.lipschitz * radius + room))

    def reached(self, query: Query, x: Array) -> Array:
        """The milder of the ratio over the real numbers and that of onnxruntime less the room for rounding."""
        change, radius, room = _moved(query, x)
        return np.minimum(super().reached(query, x), _ratio(np.maximum(change - room, 0.0), radius))

    def counterexamples(self, query: Query) -> None:
        return None

    def linear_clauses(self, query: Query) -> tuple[Clause, ...]:
        raise InputError("property lr relates inputs and outputs to each other, which VNN-LIB text cannot state")


def _moved(query: Query, x: Array) -> tuple[Array, Array, Array]:
    """By how much the logits differ from those at the anchor, the distance, and the room for rounding: `(N,)` each."""
    f, start = query.logits(x).astype(np.float64), query.logits(query.x0[None]).astype(np.float64)
    room = ROUNDING * (np.abs(f).max(axis=1) + np.abs(start).max())
    return np.abs(f - start).max(axis=1), query.radius(x), room


def _ratio(change: Array, radius: Array) -> Array:
    return np.divide(change, radius, out=np.zeros_like(change), where=radius > 0)
