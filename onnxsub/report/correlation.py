"""Rank correlation with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsub.metrics.intervals import check_confidence

__all__ = ["Correlation", "spearman"]

_FEWEST = 4


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho.

    Attributes:
        rho: in [-1, 1]; None where one of the two does not vary, or there are fewer than two points.
        lower, upper: of its interval; None where there are fewer than four points, or all ranks agree. count: of points.
    """

    rho: float | None
    lower: float | None
    upper: float | None
    confidence: float
    count: int

    @property
    def sign(self) -> str:
        """`positive`, `negative`, or `open` where the interval holds 0 or there is none."""
        if self.lower is None or self.upper is None or self.lower <= 0 <= self.upper:
            return "open"
        return "positive" if self.lower > 0 else "negative"

    @property
    def text(self) -> str:
        """`-0.62 [-0.77, -0.41]`."""
        if self.rho is None:
            return "-"
        return f"{self.rho:.2f}" + ("" if self.lower is None else f" [{self.lower:.2f}, {self.upper:.2f}]")

    def to_json(self) -> dict[str, Any]:
        return {"rho": self.rho, "lower": self.lower, "upper": self.upper, "confidence": self.confidence, "count": self.count}


def spearman(x: Sequence[float], y: Sequence[float], confidence: float = 0.95) -> Correlation:
    r"""Spearman's rank correlation; equal values share their mean rank.

        atanh(rho) -+ z sqrt((1 + rho^2 / 2) / (n - 3))

    The interval is that of Bonett and Wright 2000 ("Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations", Psychometrika 65): approximate, good from about ten points on and |rho| below 0.95. The points are taken as
    independent draws.

    Raises:
        ValueError: as many x as y are not given. OptionError: the confidence is out of range.
    """
    check_confidence(confidence)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} values cannot be paired; give as many of both")
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    n = len(a)
    if n < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Correlation(None, None, None, confidence, n)
    from scipy.stats import norm, spearmanr

    rho = float(np.clip(spearmanr(a, b).statistic, -1, 1))
    if n < _FEWEST or abs(rho) > 1 - 1e-12:  # where all ranks agree the formula would claim certainty
        return Correlation(rho, None, None, confidence, n)
    half = float(norm.isf((1 - confidence) / 2)) * math.sqrt((1 + rho * rho / 2) / (n - 3))
    return Correlation(rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half), confidence, n)
