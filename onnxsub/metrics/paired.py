r"""Two models on the same samples: the exact test of McNemar, and intervals of the difference that pairing sees.

Of N samples, b are *lost* (the first model has the property, the second has not) and c are *won*. The shares differ by
`(b - c) / N`; samples on which both models agree say nothing of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxsub.errors import InputError
from onnxsub.metrics.intervals import Interval, check_confidence, clopper_pearson

__all__ = ["mcnemar", "mean_interval", "paired_interval"]


def mcnemar(lost: int, won: int) -> float:
    """`min(1, 2 P(X <= min(b, c)))`, X of Binomial(b + c, 1/2): the exact two-sided p-value (McNemar 1947; the sign test).

    The probability of a split at least as uneven, were a sample that changes as likely to be won as lost; 1 where none changes.

    Raises:
        InputError: a count is negative.
    """
    if min(lost, won) < 0:
        raise InputError(f"{lost} lost and {won} won are no counts; give numbers that are not negative")
    if lost + won == 0:
        return 1.0
    from scipy.stats import binom

    return min(1.0, 2.0 * float(binom.cdf(min(lost, won), lost + won, 0.5)))


def paired_interval(lost: int, won: int, count: int, confidence: float) -> Interval:
    """Of the difference `P(lost) - P(won) = pi (2 theta - 1)`: pi the share that changes, theta the part of these that is lost.

    `b + c` of N is binomial with pi, and given that, b of `b + c` with theta: each has its Clopper-Pearson interval at
    `1 - alpha / 2`, and the extremes of the product over both are the ends. Each end of the difference joins two ends that fail
    with probability `alpha / 4` at most, so it fails with `alpha / 2` at most (Bonferroni), for any N. It has the sign of the exact
    test: it lies on one side of 0 where that of theta lies on one side of 1/2.

    Raises:
        InputError: counts that are impossible, a confidence that is none.
    """
    check_confidence(confidence)
    changed = lost + won
    if min(lost, won) < 0 or changed > count:
        raise InputError(f"{lost} lost and {won} won of {count} samples is impossible")
    each = (1 + confidence) / 2
    share = clopper_pearson(changed, count, each)
    part = clopper_pearson(lost, changed, each) if changed else Interval(0.0, 1.0, each, "clopper-pearson")
    low, high = 2 * part.lower - 1, 2 * part.upper - 1
    lower = low * (share.lower if low > 0 else share.upper)
    upper = high * (share.upper if high > 0 else share.lower)
    return Interval(lower, upper, confidence, "paired clopper-pearson")


def mean_interval(lower: Sequence[float], upper: Sequence[float], confidence: float) -> Interval:
    """Of a mean difference, of which each sample gives a bracket: Student's lower end of the lower ends, upper of the upper ones.

    Approximate: `mean -+ t s / sqrt(N)` is exact for normal values and good for many of any kind. One sample gives infinite ends.

    Raises:
        InputError: no sample, a confidence that is none.
    """
    check_confidence(confidence)
    if not lower or len(lower) != len(upper):
        raise InputError(f"{len(lower)} lower and {len(upper)} upper ends say nothing; give one of each per sample")
    ends = [sum(values) / len(values) for values in (lower, upper)]
    reach = [_reach(values, mean, confidence) for values, mean in zip((lower, upper), ends, strict=True)]
    return Interval(ends[0] - reach[0], ends[1] + reach[1], confidence, "student")


def _reach(values: Sequence[float], mean: float, confidence: float) -> float:
    """`t s / sqrt(N)`."""
    n = len(values)
    if n == 1:
        return math.inf
    from scipy.stats import t

    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return float(t.isf((1 - confidence) / 2, n - 1)) * deviation / math.sqrt(n)
