"""Paired comparisons: the exact test against scipy's, the intervals by enumeration of everything that can happen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from onnxsub.errors import InputError
from onnxsub.metrics.paired import mcnemar, mean_interval, paired_interval


@pytest.mark.parametrize(("lost", "won"), [(0, 1), (1, 0), (5, 0), (19, 0), (7, 3), (3, 7), (12, 12), (40, 61), (300, 250)])
def test_the_test_is_the_exact_binomial_one(lost: int, won: int) -> None:
    assert mcnemar(lost, won) == pytest.approx(binomtest(lost, lost + won, 0.5).pvalue, rel=1e-12)


def test_nothing_changed_says_nothing() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 0) == 1.0
    assert mcnemar(5, 0) == 2 / 32
    with pytest.raises(InputError, match="no counts"):
        mcnemar(-1, 0)


def probability(lost: int, won: int, n: int, p: float, q: float) -> float:
    """Of so many lost and won of n, with the shares p and q."""
    rest = 1 - p - q
    ways = math.comb(n, lost) * math.comb(n - lost, won)
    return float(ways * p**lost * q**won * rest ** (n - lost - won))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    ("p", "q"), [(0.0, 0.0), (0.05, 0.0), (0.1, 0.1), (0.3, 0.02), (0.02, 0.3), (0.5, 0.5), (0.45, 0.2), (1.0, 0.0)]
)
def test_each_end_of_the_interval_keeps_its_promise(p: float, q: float, confidence: float) -> None:
    n, most = 12, (1 - confidence) / 2
    above = below = total = 0.0
    for lost in range(n + 1):
        for won in range(n + 1 - lost):
            weight = probability(lost, won, n, p, q)
            interval = paired_interval(lost, won, n, confidence)
            total += weight
            above += weight * (interval.lower > p - q + 1e-12)
            below += weight * (interval.upper < p - q - 1e-12)
    assert total == pytest.approx(1.0)
    assert above <= most
    assert below <= most


def test_the_interval_narrows_and_mirrors() -> None:
    a, b = paired_interval(10, 0, 200, 0.95), paired_interval(100, 0, 2000, 0.95)
    assert 0 < a.lower < 0.05 < a.upper
    assert a.lower < b.lower < 0.05 < b.upper < a.upper
    mirrored = paired_interval(0, 10, 200, 0.95)
    assert (mirrored.lower, mirrored.upper) == pytest.approx((-a.upper, -a.lower))
    with pytest.raises(InputError, match="impossible"):
        paired_interval(3, 3, 5, 0.95)


def test_the_mean_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(size=17)
    found = mean_interval(values.tolist(), values.tolist(), 0.9)
    wanted = ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (found.lower, found.upper) == pytest.approx((wanted.low, wanted.high))
    wider = mean_interval((values - 1).tolist(), values.tolist(), 0.9)
    assert wider.lower == pytest.approx(wanted.low - 1)
    assert wider.upper == pytest.approx(wanted.high)
    alone = mean_interval([1.0], [1.0], 0.9)
    assert (alone.lower, alone.upper) == (-math.inf, math.inf)
