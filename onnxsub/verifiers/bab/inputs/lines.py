"""Lines above the rows of clauses on many boxes at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Box
from onnxsub.propagate import Coefficients, compute_bounds, pull_back
from onnxsub.propagate.bounds import per_domain, slack

__all__ = ["RowLines", "row_lines"]

_ROOM = 1e-14  # share of the ends and of what is cut off that a cut may be off: a few roundings


@dataclass(frozen=True, eq=False)
class RowLines:
    """`row <= end + c . (x - x')` on boxes, x' the corner at which the line is largest.

    Attributes:
        c: `(B, R, n)`.
        end: the line's largest value, moved outward, `(B, R)`; `inf` where the line is no number.
        top: the same or what intervals prove, whichever is less.
        pre: intervals of the pre-activations, by the tensor that the operator writes.
    """

    c: Tensor
    end: Tensor
    top: Tensor
    pre: Mapping[str, Box]

    def cut(self, which: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The boxes `(B, n)` without what lies where one of some rows is negative; an end passes the other where nothing is left.

        Args:
            which: rows that must all be `>= 0`, `(B, M)`.
        """
        low, high = lower, upper
        rows = torch.arange(len(which), device=which.device)
        for column in which.T:
            c, end = self.c[rows, column], self.end[rows, column].clamp(min=0)[:, None]
            reach = end / c.abs()
            room = _ROOM * (lower.abs() + upper.abs() + reach)
            # where a line does not lean there is no end: 0 / 0 is no number, which fmax and fmin pass over
            low = torch.where(c > 0, torch.fmax(low, upper - reach - room), low)
            high = torch.where(c < 0, torch.fmin(high, lower + reach + room), high)
        return low, high


def row_lines(
    network: Network,
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    within: Mapping[str, Box] | None = None,
    budget: Budget | None = None,
    *,
    units: bool = True,
) -> RowLines:
    """Lines above some outputs of a network.

    Args:
        rows: numbers of the outputs, `(R,)`.
        lower, upper: `(B, n)` float64, finite.
        within: intervals of pre-activations that hold already; units that these prove stable cost nothing.
        units: bound every unit by a backward pass too; else they have the intervals `within` and those of the layer before.

    Raises:
        UnsupportedOperatorError: an operator has no bounds.
        OutOfTime: the budget ended.
    """
    with torch.no_grad():
        low, high = (e.reshape(-1, *network.input_shape) for e in (lower, upper))
        wanted = None if units else {op.output: torch.zeros(0, dtype=torch.long) for op in network.nonlinear}
        bounds = compute_bounds(
            network, low, high, "crown", output=False, only_unstable=within is not None, within=within, units=wanted, budget=budget
        )
        start = lower.new_zeros((1, len(rows), network.classes))
        start[0, torch.arange(len(rows)), rows] = -1.0
        given = Coefficients(start.reshape(1, len(rows), *network.output_shape))
        given = per_domain(network, network.output, given, bounds.relaxations, len(lower))
        bound = pull_back(network, network.output, given, bounds.relaxations, scales=bounds.scales.finite, budget=budget)
        assert bound.passed is not None
        least = bound.minimum(low, high)
        scale = bounds.scales[network.output].flatten(1)[:, rows]
        end = slack(least, least, scale, bound.passed, largest=bounds.scales.largest) - least
        c = -bound.coefficients.full(network.input_shape).flatten(2).expand(len(lower), -1, -1)
        end = torch.where(end.isfinite() & c.isfinite().all(2), end, torch.inf)
        return RowLines(c, end, torch.fmin(end, bounds.output[1][:, rows]), bounds.pre)
