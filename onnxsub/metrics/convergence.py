r"""How estimates settle as the tolerance shrinks: the same estimate again and again, from as many samples as each error asks for.

For every error e, subsets of `N(e) = hoeffding_samples(e, confidence)` outcomes are drawn from those at hand, without replacement,
`repeats` times. The mean of all that are at hand stands for the truth, so the share of estimates within e of it can be read off: at
least `confidence` by Hoeffding's bound, which holds without replacement too (Hoeffding 1963, section 6), and more in practice. A
subset that is nearly everything says nothing: it cannot differ. With replacement the estimates scatter as those of new samples do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxsub.errors import InputError
from onnxsub.metrics.intervals import check_range, hoeffding_samples

__all__ = ["REPEATS", "ConvergenceRow", "convergence"]

_BLOCK = 2**22  # numbers drawn at once

REPEATS = 50
"""Subsets per tolerance, as published."""


@dataclass(frozen=True)
class ConvergenceRow:
    """Repeated estimates at one error.

    Attributes:
        error: half the width that is asked for.
        samples: that it takes.
        repeats: estimates.
        mean, deviation, smallest, largest: of the estimates (deviation: standard, of the repeats).
        within: share of the estimates that are within `error` of the mean of all outcomes.
    """

    error: float
    samples: int
    repeats: int
    mean: float
    deviation: float
    smallest: float
    largest: float
    within: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def convergence(
    values: Sequence[float],
    errors: Iterable[float],
    confidence: float,
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
    repeats: int = REPEATS,
    replacement: bool = False,
    seed: int = 0,
) -> tuple[ConvergenceRow, ...]:
    """One row per error, in the order given.

    Args:
        values: one outcome per sample, within `value_range` (for shares: 0 and 1).
        replacement: whether an outcome may be drawn again.

    Raises:
        InputError: no values, values outside of their range, fewer than one repeat, more samples than there are.
    """
    low, high = check_range(value_range)
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or len(data) == 0:
        raise InputError("a convergence table needs at least one outcome")
    if not ((data >= low) & (data <= high)).all():
        raise InputError(f"outcomes lie outside of their range [{low:g}, {high:g}]")
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; give at least 1")
    rng = np.random.default_rng(seed)
    truth = float(data.mean())
    rows = []
    for error in errors:
        count = hoeffding_samples(error, confidence, high - low)
        if not replacement and count > len(data):
            raise InputError(
                f"an error of {error:g} takes {count:,} samples, and there are {len(data):,}; give a larger error, or draw with "
                "replacement"
            )
        draw = _drawn if replacement else _subset
        found = np.array([draw(data, count, rng) for _ in range(repeats)])
        within = float((np.abs(found - truth) <= error).mean())
        spread = float(found.std(ddof=1)) if repeats > 1 else 0.0
        ends = float(found.min()), float(found.max())
        rows.append(ConvergenceRow(float(error), count, repeats, float(found.mean()), spread, *ends, within))
    return tuple(rows)


def _drawn(data: np.ndarray[Any, Any], count: int, rng: np.random.Generator) -> float:
    """The mean of `count` draws with replacement."""
    total = 0.0
    for start in range(0, count, _BLOCK):
        total += float(data[rng.integers(len(data), size=min(_BLOCK, count - start))].sum())
    return total / count


def _subset(data: np.ndarray[Any, Any], count: int, rng: np.random.Generator) -> float:
    """The mean of `count` different outcomes."""
    return float(rng.choice(data, size=count, replace=False, shuffle=False).mean())
