r"""Confidence intervals for a mean, from N independent samples: how many are needed, and what N samples say.

Two-sided at confidence `1 - alpha`; each end alone fails with probability `alpha / 2` at most, so that the lower end of one
quantity and the upper end of a larger one make an interval of the same confidence (`globally.py` needs that).

The Clopper-Pearson interval is never wider than Hoeffding's: it inverts the binomial tail itself, Hoeffding's an upper bound of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from onnxsub.errors import InputError, OptionError

__all__ = [
    "Interval",
    "check_confidence",
    "check_error",
    "check_range",
    "clopper_pearson",
    "hoeffding_error",
    "hoeffding_interval",
    "hoeffding_samples",
    "require_samples",
]

_MOST_SAMPLES = 1e12
"""Far beyond every data set, and small enough for float64 to tell one number of samples from the next."""


@dataclass(frozen=True)
class Interval:
    """`lower <= mean <= upper` with probability at least `confidence` over the draw of the samples.

    Attributes:
        method: `hoeffding`, `clopper-pearson` or `sequential`.
    """

    lower: float
    upper: float
    confidence: float
    method: str

    @property
    def width(self) -> float:
        return self.upper - self.lower

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper

    def to_json(self) -> dict[str, Any]:
        return {"lower": self.lower, "upper": self.upper, "confidence": self.confidence, "method": self.method}


def check_confidence(confidence: float) -> None:
    """Raises InputError unless `0 < confidence < 1`."""
    if not 0 < confidence < 1:
        raise OptionError(f"--confidence {confidence:g} must lie strictly between 0 and 1, such as 0.95")


def check_error(error: float, value_range: float = 1.0) -> None:
    """Raises InputError unless `0 < error < value_range`."""
    if not (math.isfinite(value_range) and value_range > 0):
        raise InputError(f"the range of the values is {value_range:g}; it is the largest value less the smallest, above 0")
    if not 0 < error < value_range:
        raise OptionError(f"--error {error:g} must lie strictly between 0 and {value_range:g}, the range of the values")


def check_range(value_range: tuple[float, float]) -> tuple[float, float]:
    """`(A, B)` itself; raises InputError unless both are finite and `A < B`."""
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"the values' range [{low:g}, {high:g}] is no interval; give two finite numbers, the smaller one first")
    return low, high


def hoeffding_samples(error: float, confidence: float, value_range: float = 1.0) -> int:
    """The smallest N with `2 exp(-2 error^2 N / value_range^2) <= 1 - confidence` (Hoeffding 1963, theorem 2).

    The mean of N independent samples is then within `error` of the true mean with probability at least `confidence`.

    Args:
        error: half the width of the interval, in units of the values.
        value_range: `B - A` for values in `[A, B]`.

    Raises:
        InputError: error or confidence outside of its range, or an error so small that no data set has that many samples.
    """
    check_error(error, value_range)
    check_confidence(confidence)
    ratio = value_range / error  # may be infinite, and its square too
    estimate = _log_odds(confidence) * ratio * ratio / 2
    if estimate > _MOST_SAMPLES:
        raise OptionError(f"--error {error:g} is too small: it needs more than {_MOST_SAMPLES:g} samples; give a larger one")
    needed = math.ceil(estimate)
    # the quotient may have been rounded across an integer in either direction
    while needed > 1 and hoeffding_error(needed - 1, confidence, value_range) <= error:
        needed -= 1
    while hoeffding_error(needed, confidence, value_range) > error:
        needed += 1
    return needed


def hoeffding_error(count: int, confidence: float, value_range: float = 1.0) -> float:
    """`(B - A) sqrt(ln(2 / (1 - confidence)) / (2 N))`: the error that N samples give."""
    check_confidence(confidence)
    _check_count(count)
    return value_range * math.sqrt(_log_odds(confidence) / (2 * count))


def hoeffding_interval(mean: float, count: int, confidence: float, value_range: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """`mean -+ hoeffding_error`, cut to `value_range = (A, B)`."""
    low, high = check_range(value_range)
    if not low <= mean <= high:
        raise InputError(f"the mean {mean:g} lies outside of the values' range [{low:g}, {high:g}]")
    error = hoeffding_error(count, confidence, high - low)
    return Interval(max(low, mean - error), min(high, mean + error), confidence, "hoeffding")


def clopper_pearson(successes: int, count: int, confidence: float) -> Interval:
    """The exact interval of a share (Clopper and Pearson 1934): all p at which neither tail of Binomial(N, p) is below `alpha / 2`.

    With S successes of N, `lower = Beta(alpha/2; S, N - S + 1)`, 0 for S = 0, and `upper = Beta(1 - alpha/2; S + 1, N - S)`, 1 for
    S = N (quantiles).
    """
    check_confidence(confidence)
    _check_count(count)
    if not 0 <= successes <= count:
        raise InputError(f"{successes} successes of {count} samples is impossible")
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    lower = float(beta.ppf(tail, successes, count - successes + 1)) if successes else 0.0
    upper = float(beta.isf(tail, successes + 1, count - successes)) if successes < count else 1.0
    return Interval(lower, upper, confidence, "clopper-pearson")


def require_samples(available: int, error: float, confidence: float, value_range: float = 1.0) -> int:
    """`hoeffding_samples`, where so many are there.

    Raises:
        InputError: fewer are available; the message says how many are needed and which error the available number gives.
    """
    needed = hoeffding_samples(error, confidence, value_range)
    if available >= needed:
        return needed
    if available < 1:
        raise InputError(f"no samples: an error of {error:g} at confidence {confidence:g} needs {needed}")
    # rounded up, so that the error offered is one that the samples do give
    offered = math.ceil(hoeffding_error(available, confidence, value_range) * 1e4) / 1e4
    way = f"--error {offered:g} is what {available} samples give" if offered < value_range else "they are too few for any error"
    raise InputError(
        f"{available} samples are available, an error of {error:g} at confidence {confidence:g} needs {needed}; "
        f"{way}, or give more samples or a lower --confidence"
    )


def _log_odds(confidence: float) -> float:
    """`ln(2 / (1 - confidence))`."""
    return math.log(2) - math.log1p(-confidence)


def _check_count(count: int) -> None:
    if count < 1:
        raise InputError(f"{count} samples say nothing; give at least 1")
