"""Spearman's correlation: the value of scipy, an interval that holds about as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from onnxsub.errors import InputError
from onnxsub.metrics.correlation import spearman


def test_the_value_is_that_of_scipy_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    for n in (4, 7, 30):
        x = rng.integers(0, 5, n).astype(float)
        y = x + rng.normal(size=n)
        found = spearman(list(x), list(y), 0.95)
        assert found is not None
        assert found.rho == pytest.approx(float(spearmanr(x, y).statistic))
        assert -1 <= found.interval.lower <= found.rho <= found.interval.upper <= 1


def test_the_interval_holds_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    r, n, repeats = 0.7, 12, 600
    truth = 6 / math.pi * math.asin(r / 2)  # of two normal variables
    held = 0
    for _ in range(repeats):
        x, e = rng.normal(size=(2, n))
        found = spearman(list(x), list(r * x + math.sqrt(1 - r * r) * e), 0.95)
        assert found is not None
        held += found.interval.lower <= truth <= found.interval.upper
    assert held / repeats >= 0.92


def test_a_perfect_order_of_few_is_no_certainty() -> None:
    up = spearman([1, 2, 3, 4], [1, 5, 6, 9], 0.95)
    down = spearman([1, 2, 3, 4], [9, 6, 5, 1], 0.95)
    many = spearman(list(range(50)), list(range(50)), 0.95)
    assert up is not None
    assert down is not None
    assert many is not None
    assert (up.rho, up.interval.upper) == (pytest.approx(1.0), 1.0)
    assert up.interval.lower < 0  # one of 24 orders
    assert (down.interval.lower, down.interval.upper) == (-1.0, pytest.approx(-up.interval.lower))
    assert many.interval.lower > 0.99


def test_where_there_is_none() -> None:
    assert spearman([1, 2, 3], [1, 2, 3], 0.95) is None
    assert spearman([1, 1, 1, 1], [1, 2, 3, 4], 0.95) is None
    assert spearman([], [], 0.95) is None
    for x, y in (([1, 2, 3, 4], [1, 2, 3]), ([1, 2, 3, math.nan], [1, 2, 3, 4]), ([1, 2, 3, 4], [1, 2, 3, math.inf])):
        with pytest.raises(InputError):
            spearman(x, y, 0.95)
