"""Seconds of the solver runs of a sample: number, mean and standard deviation, so that those of several samples can be pooled."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["run_statistics", "sd_of"]


def run_statistics(bnd: Any, hat: Any) -> dict[str, Any]:
    """Number, mean and standard deviation of the seconds of solver runs: `timed_*`, `run_s_*`, `run_sd_*` of a row.

    The substitute's runs count only where their radius is in the range that the network was asked about.

    Args:
        bnd, hat: `[target, radius, seconds, outcome]` of each run; None: not known.
    """
    mine = [seconds for _, _, seconds, _ in bnd or []]
    radii = [radius for _, radius, _, _ in bnd or []]
    theirs = [seconds for _, radius, seconds, _ in hat or [] if radii and min(radii) <= radius <= max(radii)]
    found: dict[str, Any] = {}
    for side, log, seconds in (("bnd", bnd, mine), ("hat", hat, theirs)):
        mean = math.fsum(seconds) / len(seconds) if seconds else None
        found[f"timed_{side}"] = None if log is None or bnd is None else len(seconds)
        found[f"run_s_{side}"] = mean
        found[f"run_sd_{side}"] = None if mean is None else sd_of(math.fsum((s - mean) ** 2 for s in seconds), len(seconds))
    return found


def sd_of(squares: float, count: int) -> float | None:
    """Standard deviation (n - 1) from the sum of squared distances to the mean; None of fewer than two values."""
    return math.sqrt(squares / (count - 1)) if count > 1 else None
