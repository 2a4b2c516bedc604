"""Distances of files whose inputs are whole numbers: so is every distance, and a proof beyond 3.2 is one up to 4.

With a whole anchor, `|x - x0|_inf` of a whole x is whole. The search, which knows the box only, may therefore stop where its two
ends lie less than 1 apart, and the lower end moves up to the next whole number.
"""

from __future__ import annotations

import math
from dataclasses import replace

from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.result import DistanceResult, TargetResult

__all__ = ["coarser", "next_whole"]

_SLACK = 1e-5
"""What a lower end must be beyond a whole number to count for the next one: more than any rounding of a radius up to 65,536."""


def coarser(limits: Limits) -> Limits:
    """The limits with the tolerance at which the ends leave one whole number only."""
    return replace(limits, tol=max(limits.tol, 1.0 - 2 * _SLACK))


def next_whole(result: DistanceResult) -> DistanceResult:
    """The same answer for whole numbers: lower ends moved up, never beyond the upper ones."""
    lower = _up(result.lower, result.upper)
    targets = {t: TargetResult(_up(r.lower, r.upper), r.upper, r.status) for t, r in result.targets.items()}
    closed = result.status == "bracket" and lower == result.upper
    original = result.original
    if original is not None:
        original = replace(original, lower=_up(original.lower, original.upper))
    status = "exact" if closed else result.status
    return replace(
        result, status=status, lower=lower, targets=targets, original=original, reason=None if closed else result.reason
    )


def _up(lower: float, upper: float) -> float:
    return min(float(math.ceil(lower - _SLACK)), upper) if math.isfinite(lower) else lower
