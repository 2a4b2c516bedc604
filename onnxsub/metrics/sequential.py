r"""A confidence sequence: intervals for a mean that hold at every moment together, so that one may look and stop at any time.

    Pr[ lower_t <= mean <= upper_t for all t >= 1 ] >= confidence

Both ends come from a test of every candidate mean m by betting against it. Where the mean is m or smaller, the gambler's wealth is
a nonnegative supermartingale, which ever grows by a factor of `2 / alpha` with probability `alpha / 2` at most (Ville 1939), so
every m at which it did is ruled out. The lower end is the smallest m that never was; the upper end is the same for mirrored values.

- For values 0 and 1 a mixture of the likelihood ratios of all shares q above m to m, with wealth
  `int_m^1 q^S (1-q)^F dq / ((1 - m) m^S (1-m)^F)` after S ones and F zeros (Robbins 1970; the one-sided beta-binomial mixture of
  Howard et al. 2021, with a uniform prior).
- For values x in [0, 1] the mean over several k of the wealths `prod_i (1 + k (x_i / m - 1))`: bets of fixed shares k of the wealth
  (the hedged capital of Waudby-Smith and Ramdas 2024 with their diversified bets, "dKelly"). Where the values vary little, the
  large bets grow fast and the interval is narrow. Their predictable plug-in bets took three times as many samples of a fair coin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxsub.errors import InputError
from onnxsub.metrics.intervals import Interval, check_confidence, check_error, check_range
from onnxsub.ops.base import Array

__all__ = ["Sequential", "SequentialRun", "betting_log_wealth", "mixture_log_wealth", "run_sequential"]

_STEPS = 60  # of bisection: ends are known to 1e-16 of their range or so

_SHARES: Array = np.geomspace(0.003, 0.95, 16)
"""The k of the bets. The best one for a mean mu against m is about `(mu - m) m / variance`: what is between two of them is not
lost, what is below the smallest is slow."""

_MEANS = 2000
"""Candidates for the mean, evenly over the range, that bets on values in [0, 1] keep account of; ends are rounded outward."""


def mixture_log_wealth(m: Array | float, ones: Array | float, zeros: Array | float) -> Array:
    """Log wealth against "the share is at most m" after so many ones and zeros; the three broadcast, `0 < m < 1`."""
    from scipy.special import betaincc, betaln, xlog1py, xlogy

    a, b = ones + 1.0, zeros + 1.0
    tail = betaincc(a, b, m)
    with np.errstate(divide="ignore"):  # a tail of 0 is a wealth of 0
        log = np.log(tail) + betaln(a, b) - np.log1p(-m) - xlogy(ones, m) - xlog1py(zeros, -m)
    return np.asarray(log)


def betting_log_wealth(m: Array, values: Array) -> Array:
    """Log wealth against "the mean is at most m" after every value.

    Args:
        m: `(..., 1)`, in (0, 1).
        values: `(..., T)`, in [0, 1].

    Returns:
        `(..., T)`.
    """
    step = values / m - 1
    logs = np.stack([np.cumsum(np.log1p(k * step), axis=-1) for k in _SHARES])
    return np.asarray(np.logaddexp.reduce(logs, axis=0) - math.log(len(_SHARES)))


class _Lower(Protocol):
    """The lower end of a mean of values in [0, 1]; it never falls."""

    end: float

    def update(self, x: float) -> None:
        """One more value."""


class _Mixture:
    """Values 0 and 1.

    With M the wealth and a uniform prior, `d ln M / dm = (1 - 1 / M) / (1 - m) - (S - t m) / (m (1 - m))`, which is negative for
    `m < S / (t + 1)`; beyond that M is at most e. So wealth above e falls in m, and the means at which it reaches a larger
    threshold are those up to some m.
    """

    def __init__(self, log_odds: float) -> None:
        self.end = 0.0
        self._threshold = max(log_odds, 1.0)
        self._ones = self._zeros = 0

    def update(self, x: float) -> None:
        if x not in (0.0, 1.0):
            raise InputError(f"the value {x:g} of the range is neither 0 nor 1; a sequence of such values needs binary=False")
        self._ones += x == 1.0
        self._zeros += x == 0.0
        low, high = self.end, self._ones / (self._ones + self._zeros + 1)
        if low >= high or (low > 0 and not self._ruled_out(low)):
            return
        for _ in range(_STEPS):
            middle = (low + high) / 2
            if self._ruled_out(middle):
                low = middle
            else:
                high = middle
        self.end = low

    def _ruled_out(self, m: float) -> bool:
        return bool(mixture_log_wealth(m, self._ones, self._zeros) >= self._threshold)


class _Betting:
    """Values in [0, 1]. Every factor falls in m, so wealth does."""

    def __init__(self, log_odds: float) -> None:
        self.end = 0.0
        self._threshold = math.exp(log_odds) * len(_SHARES)
        self._m = (np.arange(_MEANS) + 1.0)[:-1, None] / _MEANS
        # of every bet; those that underflow are lost, which is on the safe side
        self._wealth = np.ones((len(self._m), len(_SHARES)))

    def update(self, x: float) -> None:
        self._wealth *= 1 + _SHARES * (x / self._m - 1)
        out = self._wealth.sum(axis=1) >= self._threshold
        count = len(out) if out.all() else int(out.argmin())
        if count:
            self.end = float(self._m[count - 1, 0])
            self._m, self._wealth = self._m[count:], self._wealth[count:]


class Sequential:
    """A confidence sequence for the mean of independent values in `[A, B]`; looking at it at any time, and stopping, is allowed.

    Args:
        confidence: of all intervals together.
        value_range: `(A, B)`.
        binary: the values are A and B only, for which a sharper and faster bet is known.

    Attributes:
        count: values so far.
    """

    def __init__(self, confidence: float, *, value_range: tuple[float, float] = (0.0, 1.0), binary: bool = False) -> None:
        check_confidence(confidence)
        self._range = check_range(value_range)
        self.confidence = confidence
        self.count = 0
        log_odds = math.log(2) - math.log1p(-confidence)
        kind: type[_Mixture] | type[_Betting] = _Mixture if binary else _Betting
        self._below: _Lower = kind(log_odds)
        self._above: _Lower = kind(log_odds)

    def update(self, value: float, upper: float | None = None) -> None:
        """One more value; where it is known as a bracket only, its two ends.

        The lower end of the interval then belongs to the mean of the lower ends, the upper one to that of the upper ends.
        """
        upper = value if upper is None else upper
        low, high = self._range
        if not low <= value <= upper <= high:
            raise InputError(f"the value [{value:g}, {upper:g}] is no part of the values' range [{low:g}, {high:g}]")
        self._below.update((value - low) / (high - low))
        self._above.update((high - upper) / (high - low))
        self.count += 1

    @property
    def interval(self) -> Interval:
        """The intersection of all intervals so far: it never grows.

        Ends that cross, which at most a share `1 - confidence` of all runs shows, meet in their middle.
        """
        low, high = self._range
        lower, upper = low + (high - low) * self._below.end, high - (high - low) * self._above.end
        if lower > upper:
            lower = upper = (lower + upper) / 2
        return Interval(lower, upper, self.confidence, "sequential")


@dataclass(frozen=True)
class SequentialRun:
    """Where a sequence was stopped.

    Attributes:
        interval: at the end.
        samples: values that were used.
        reached: whether it is as narrow as was asked for (else the values were used up).
    """

    interval: Interval
    samples: int
    reached: bool


def run_sequential(
    values: Iterable[float | tuple[float, float]],
    error: float,
    confidence: float,
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
    binary: bool = False,
) -> SequentialRun:
    """Takes values one by one until the interval is at most `2 error` wide; no value beyond that is asked for.

    Args:
        values: numbers or brackets `(lower, upper)`, in random order (`globally.shuffled`). May be computed as they are asked for.

    Raises:
        InputError: no values; error or confidence outside of its range.
    """
    check_error(error, value_range[1] - value_range[0])
    sequence = Sequential(confidence, value_range=value_range, binary=binary)
    for value in values:
        sequence.update(*(value if isinstance(value, tuple) else (value,)))
        if sequence.interval.width <= 2 * error:
            return SequentialRun(sequence.interval, sequence.count, True)
    if sequence.count == 0:
        raise InputError("no samples: a sequence of no values says nothing")
    return SequentialRun(sequence.interval, sequence.count, False)
