"""Fixed-size intervals: against the formulas, exact coverage, edge cases, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from onnxsub.errors import InputError
from onnxsub.metrics.intervals import (
    Interval,
    clopper_pearson,
    hoeffding_error,
    hoeffding_interval,
    hoeffding_samples,
    require_samples,
)


@pytest.mark.parametrize("error", [0.5, 0.1, 0.05, 0.013, 0.001])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("value_range", [1.0, 0.6, 12.0])
def test_hoeffding_samples_are_the_fewest(error: float, confidence: float, value_range: float) -> None:
    def tail(n: int) -> float:
        return 2 * math.exp(-2 * (error / value_range) ** 2 * n)

    n = hoeffding_samples(error, confidence, value_range)
    assert tail(n) <= (1 - confidence) * (1 + 1e-9)
    assert n == 1 or tail(n - 1) > (1 - confidence) * (1 - 1e-9)
    assert hoeffding_error(n, confidence, value_range) <= error


def test_known_sample_sizes() -> None:
    assert hoeffding_samples(0.05, 0.95) == 738
    assert hoeffding_samples(0.01, 0.99) == 26492
    assert hoeffding_samples(0.05, 0.95, 2.0) == 2952


def test_hoeffding_interval_is_cut_to_the_range() -> None:
    i = hoeffding_interval(-0.9, 100, 0.95, (-1.0, 3.0))
    assert i.lower == -1.0
    assert i.upper == pytest.approx(-0.9 + 4 * math.sqrt(math.log(40) / 200))
    assert -0.9 in i
    assert 0.0 not in i


@pytest.mark.parametrize("n", [1, 2, 7, 50, 1000])
def test_clopper_pearson_against_scipy(n: int) -> None:
    for s in {0, 1, n // 3, n - 1, n}:
        for confidence in (0.8, 0.95, 0.99):
            expected = binomtest(s, n).proportion_ci(confidence, "exact")
            got = clopper_pearson(s, n, confidence)
            assert (got.lower, got.upper) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_clopper_pearson_ends() -> None:
    assert clopper_pearson(0, 10, 0.95).lower == 0.0
    assert clopper_pearson(10, 10, 0.95).upper == 1.0
    # 1 - p^n = confidence with half of alpha on the one side that is left
    assert clopper_pearson(10, 10, 0.95).lower == pytest.approx(0.025**0.1)


@pytest.mark.parametrize("n", [1, 5, 40, 200])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_summed_over_all_outcomes(n: int, confidence: float) -> None:
    s = np.arange(n + 1)
    exact = [clopper_pearson(int(k), n, confidence) for k in s]
    wide = [hoeffding_interval(k / n, n, confidence) for k in s]
    for p in np.concatenate([[0.0, 1.0, 1e-3, 1 - 1e-3], np.linspace(0.01, 0.99, 60)]):
        weight = binom.pmf(s, n, p)
        assert weight[[p in i for i in exact]].sum() >= confidence - 1e-12
        assert weight[[p in i for i in wide]].sum() >= confidence - 1e-12


@pytest.mark.parametrize("n", [1, 2, 3, 10, 99, 738])
def test_clopper_pearson_lies_within_hoeffding(n: int) -> None:
    for confidence in (0.3, 0.9, 0.999):
        for s in range(0, n + 1, max(1, n // 30)):
            inner, outer = clopper_pearson(s, n, confidence), hoeffding_interval(s / n, n, confidence)
            assert outer.lower - 1e-12 <= inner.lower <= inner.upper <= outer.upper + 1e-12


def test_too_few_samples_are_told_what_they_are_good_for() -> None:
    assert require_samples(738, 0.05, 0.95) == 738
    with pytest.raises(InputError, match=r"100 samples are available.*needs 738.*--error 0.1359") as e:
        require_samples(100, 0.05, 0.95)
    assert "\n" not in str(e.value)
    assert hoeffding_samples(0.1359, 0.95) <= 100
    with pytest.raises(InputError, match="needs 738"):
        require_samples(0, 0.05, 0.95)
    with pytest.raises(InputError, match="too few for any error"):
        require_samples(1, 0.05, 0.95)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, 1.5, math.nan])
def test_confidence_out_of_range(confidence: float) -> None:
    for ask in (lambda: hoeffding_samples(0.1, confidence), lambda: clopper_pearson(1, 2, confidence)):
        with pytest.raises(InputError, match="--confidence"):
            ask()


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_error_out_of_range(error: float) -> None:
    with pytest.raises(InputError, match="--error"):
        hoeffding_samples(error, 0.95)


@pytest.mark.parametrize(("error", "value_range"), [(1e-10, 1.0), (1e-170, 1.0), (0.1, 1e200), (5e-324, 1.0)])
def test_errors_that_no_data_set_reaches_are_refused_at_once(error: float, value_range: float) -> None:
    with pytest.raises(InputError, match="more than 1e\\+12 samples"):
        hoeffding_samples(error, 0.95, value_range)


def test_other_bad_input() -> None:
    with pytest.raises(InputError, match="range of the values"):
        hoeffding_samples(0.1, 0.95, 0.0)
    with pytest.raises(InputError, match="no interval"):
        hoeffding_interval(0.5, 10, 0.95, (1.0, 0.0))
    with pytest.raises(InputError, match="outside"):
        hoeffding_interval(1.5, 10, 0.95)
    with pytest.raises(InputError, match="impossible"):
        clopper_pearson(3, 2, 0.95)
    with pytest.raises(InputError, match="at least 1"):
        clopper_pearson(0, 0, 0.95)


def test_json() -> None:
    assert Interval(0.1, 0.2, 0.95, "hoeffding").to_json() == {
        "lower": 0.1, "upper": 0.2, "confidence": 0.95, "method": "hoeffding",
    }  # fmt: skip
