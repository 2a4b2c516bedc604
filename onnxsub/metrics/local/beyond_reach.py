"""Anchors round which bounds prove that no point has another class: no attack finds one there, so none has to be tried.

What an attack comes to is not changed by that. The anchors that stand are those that cost: every start is tried, and none succeeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import UnsupportedOperatorError
from onnxsub.network import Network
from onnxsub.passes.certify import margin_rows
from onnxsub.propagate import compute_bounds, margin_bounds
from onnxsub.query import Query

__all__ = ["proved_radii"]

_LOT = 10
"""Anchors that are bounded together; the rest is left alone where fewer than half of a lot is proved."""

_MOST_UNITS = 6_000
"""Up to so many units every one of them is bounded by lines, else only the margins: it takes a backward pass for each."""


def proved_radii(queries: Sequence[Query], chosen: Sequence[int], radii: Sequence[float], budget: Budget) -> dict[int, float]:
    """The largest of the radii at which an anchor is proved to keep its class, for those of `chosen` of which one is.

    Args:
        queries: of one model. radii: in ascending order. budget: where it ends, what is proved so far is the answer.
    """
    network, found = queries[0].network, dict[int, float]()
    units = sum(math.prod(s) for op in network.nonlinear for s in op.in_shapes)
    # at a large radius first: what is proved there is proved at all smaller ones
    for radius in sorted(radii, reverse=True):
        for lines in (False, True) if units <= _MOST_UNITS else (False,):
            left = sorted((i for i in chosen if i not in found), key=lambda i: queries[i].label)
            for at in range(0, len(left), _LOT):
                lot = left[at : at + _LOT]
                try:
                    proved = _proved(network, queries, lot, radius, budget, lines=lines)
                except (UnsupportedOperatorError, OutOfTime):
                    return found
                found |= dict.fromkeys(proved, radius)
                if 2 * len(proved) < len(lot):
                    break
    return found


def _proved(
    network: Network, queries: Sequence[Query], lot: Sequence[int], radius: float, budget: Budget, *, lines: bool
) -> list[int]:
    """Those of a lot that keep their class within the radius.

    Args:
        lines: bounds of all units by lines, not by intervals.
    """
    found = []
    none = None if lines else {op.output: torch.zeros(0, dtype=torch.long) for op in network.nonlinear}
    for label in dict.fromkeys(queries[i].label for i in lot):
        own = [i for i in lot if queries[i].label == label]
        balls = [queries[i].space.ball(queries[i].x0, queries[i].space.within_reach(queries[i].x0, radius)) for i in own]
        lower, upper = (np.stack(ends) for ends in zip(*balls, strict=True))
        bounds = compute_bounds(network, lower, upper, "crown", units=none, only_unstable=lines, output=False, budget=budget)
        margins = margin_bounds(network, bounds, margin_rows(network.classes, label), budget=budget)[0]
        found += [i for i, margin in zip(own, margins.amin(dim=1).tolist(), strict=True) if margin > 0]
    return found
