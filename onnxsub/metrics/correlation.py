r"""Spearman's rank correlation of two figures over models, with its interval.

    rho = correlation of the ranks (ties get the mean of their ranks)
    interval: tanh(atanh(rho) -+ z s),  s^2 = (1 + rho^2 / 2) / (n - 3)

Source: Spearman 1904; the variance on Fisher's scale by Bonett and Wright 2000. It is approximate, and wide where there are few
models: with 12 of them a correlation of 0.6 may be one of 0 or of 0.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxsub.errors import InputError
from onnxsub.metrics.intervals import Interval, check_confidence

__all__ = ["FEWEST", "Correlation", "spearman"]

FEWEST = 4
"""Pairs that an interval takes."""


@dataclass(frozen=True)
class Correlation:
    """How two figures go together.

    Attributes:
        rho: between -1 and 1. count: pairs. interval: of rho over all models of the kind, approximate.
    """

    rho: float
    count: int
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        return {"rho": self.rho, "count": self.count, "interval": self.interval.to_json()}


def spearman(x: Sequence[float], y: Sequence[float], confidence: float) -> Correlation | None:
    """The correlation; None where it is not defined: fewer than `FEWEST` pairs, or one of the figures is the same for all.

    Raises:
        InputError: sequences of different lengths, figures that are not finite, a confidence that is none.
    """
    check_confidence(confidence)
    if len(x) != len(y):
        raise InputError(f"{len(x)} and {len(y)} figures are no pairs; give one of each per model")
    if not all(map(math.isfinite, (*x, *y))):
        raise InputError("a figure is not finite, so it has no correlation; leave that model out")
    if len(x) < FEWEST or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    from scipy.stats import norm, rankdata

    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    rho = max(-1.0, min(1.0, float((a @ b) / math.sqrt(float(a @ a) * float(b @ b)))))
    # a perfect order has no interval on Fisher's scale; it gets that of the same order with two neighbours exchanged
    n = len(x)
    inner = math.copysign(min(abs(rho), 1 - 12 / (n * (n**2 - 1))), rho)
    reach = float(norm.isf((1 - confidence) / 2)) * math.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = (math.tanh(math.atanh(inner) + side * reach) for side in (-1, 1))
    return Correlation(rho, n, Interval(min(low, rho), max(high, rho), confidence, "bonett-wright"))
