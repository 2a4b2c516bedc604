"""The confidence sequence: its bets are fair, its intervals are those of the bets, it covers at all times together."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.integrate import quad

from onnxsub.errors import InputError
from onnxsub.metrics.intervals import hoeffding_samples
from onnxsub.metrics.sequential import Sequential, betting_log_wealth, mixture_log_wealth, run_sequential

LOG_ODDS = math.log(40)  # of confidence 0.95


@pytest.mark.parametrize("m", [0.02, 0.3, 0.77, 0.999])
def test_mixture_is_the_integral_it_claims(m: float) -> None:
    for ones, zeros in ((0, 0), (3, 0), (0, 4), (7, 5)):
        integral = quad(lambda q, s=ones, f=zeros: (q / m) ** s * ((1 - q) / (1 - m)) ** f, m, 1)[0] / (1 - m)
        assert math.exp(mixture_log_wealth(m, ones, zeros)) == pytest.approx(integral, rel=1e-8)


@pytest.mark.parametrize("m", [0.05, 0.4, 0.9])
def test_wealth_is_a_martingale(m: float) -> None:
    """What the next value brings on average, where the mean is m: nothing."""
    for ones, zeros in ((0, 0), (5, 2), (30, 40)):
        after = m * np.exp(mixture_log_wealth(m, ones + 1, zeros)) + (1 - m) * np.exp(mixture_log_wealth(m, ones, zeros + 1))
        assert after == pytest.approx(np.exp(mixture_log_wealth(m, ones, zeros)), rel=1e-9)
    past = np.random.default_rng(0).random(9)
    before = betting_log_wealth(np.array([m]), past)[-1]
    # values m / 2 and (1 + m) / 2, half of the way to the ends, with the mean m
    low, high = m / 2, (1 + m) / 2
    share = (m - low) / (high - low)
    ahead = [np.exp(betting_log_wealth(np.array([m]), np.append(past, v))[-1]) for v in (low, high)]
    assert (1 - share) * ahead[0] + share * ahead[1] == pytest.approx(np.exp(before), rel=1e-9)


def test_wealth_above_e_falls_in_the_mean() -> None:
    m = np.linspace(1e-6, 1 - 1e-6, 4001)
    for ones in (0, 1, 2, 5, 40, 300):
        for zeros in (0, 1, 3, 50, 299):
            wealth = mixture_log_wealth(m, ones, zeros)
            above = wealth >= 1.0
            count = int(above.sum())
            assert above[:count].all()
            assert (np.diff(wealth[:count]) <= 1e-9).all()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_ends_are_where_wealth_reaches_the_threshold(binary: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.random(120) < rng.random()).astype(float) if binary else rng.beta(*rng.uniform(0.3, 5, 2), 120)
    sequence = Sequential(0.95, binary=binary)
    last = (0.0, 1.0)
    for t, value in enumerate(x, 1):
        sequence.update(float(value))
        interval = sequence.interval
        assert last[0] <= interval.lower <= interval.upper <= last[1]
        last = interval.lower, interval.upper
        for end, seen in ((interval.lower, x[:t]), (1 - interval.upper, 1 - x[:t])):
            inside, outside = end + 2e-3, end - 1e-9
            assert log_wealth(inside, seen, binary).max() < LOG_ODDS
            if outside > 1e-6:
                assert log_wealth(outside, seen, binary).max() >= LOG_ODDS - 1e-6
    assert sequence.count == len(x)


def log_wealth(m: float, x: np.ndarray, binary: bool) -> np.ndarray:
    if binary:
        ones = np.cumsum(x)
        return mixture_log_wealth(m, ones, np.arange(1, len(x) + 1) - ones)
    return betting_log_wealth(np.array([m]), x)


@pytest.mark.parametrize("R", [0.03, 0.5, 0.9])
def test_coverage_at_all_times_together(R: float) -> None:
    rng = np.random.default_rng(7)
    x = (rng.random((300, 250)) < R).astype(float)
    ones = np.cumsum(x, axis=1)
    zeros = np.arange(1, 251) - ones
    missed = (mixture_log_wealth(R, ones, zeros) >= LOG_ODDS) | (mixture_log_wealth(1 - R, zeros, ones) >= LOG_ODDS)
    # 5 % and four standard deviations of 300 repeats
    assert missed.any(1).mean() <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)
    m = np.full((300, 1), R)
    bets = (betting_log_wealth(m, x) >= LOG_ODDS) | (betting_log_wealth(1 - m, 1 - x) >= LOG_ODDS)
    assert bets.any(1).mean() <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)


def test_stops_as_soon_as_it_may_and_asks_for_nothing_more() -> None:
    asked = 0

    def source() -> Iterator[float]:
        nonlocal asked
        while True:
            asked += 1
            yield 1.0

    run = run_sequential(source(), 0.05, 0.95, binary=True)
    assert run.reached
    assert run.samples == asked
    assert run.interval.width <= 0.1
    assert run.interval.upper == 1.0
    assert run.samples < hoeffding_samples(0.05, 0.95) / 10
    before = Sequential(0.95, binary=True)
    for _ in range(run.samples - 1):
        before.update(1.0)
    assert before.interval.width > 0.1


def test_brackets_give_the_union() -> None:
    rng = np.random.default_rng(3)
    low = (rng.random(300) < 0.7).astype(float)
    high = np.maximum(low, rng.random(300) < 0.1)
    both, one, other = (Sequential(0.95, binary=True) for _ in range(3))
    for l, h in zip(low, high, strict=True):
        both.update(float(l), float(h))
        one.update(float(l))
        other.update(float(h))
    assert both.interval.lower == one.interval.lower
    assert both.interval.upper == other.interval.upper
    assert both.interval.width > one.interval.width


def test_values_of_another_range() -> None:
    x = np.random.default_rng(0).beta(30, 10, 200)
    unit, wide = Sequential(0.9), Sequential(0.9, value_range=(-2.0, 6.0))
    for v in x:
        unit.update(float(v))
        wide.update(float(-2 + 8 * v))
    assert wide.interval.lower == pytest.approx(-2 + 8 * unit.interval.lower, abs=0.01)
    assert wide.interval.upper == pytest.approx(-2 + 8 * unit.interval.upper, abs=0.01)
    # values that vary little are known better than Hoeffding's bound says
    assert unit.interval.width < 0.5 * 2 * math.sqrt(math.log(20) / 400)


def test_used_up_samples_are_said_to_be() -> None:
    run = run_sequential([1.0, 0.0, 1.0], 0.05, 0.95, binary=True)
    assert not run.reached
    assert run.samples == 3


def test_bad_input() -> None:
    with pytest.raises(InputError, match="binary=False"):
        Sequential(0.95, binary=True).update(0.5)
    with pytest.raises(InputError, match="no part"):
        Sequential(0.95).update(1.5)
    with pytest.raises(InputError, match="no part"):
        Sequential(0.95).update(0.7, 0.3)
    with pytest.raises(InputError, match="no part"):
        Sequential(0.95).update(math.nan)
    with pytest.raises(InputError, match="--confidence"):
        Sequential(1.0)
    with pytest.raises(InputError, match="--error"):
        run_sequential([1.0], 1.0, 0.95)
    with pytest.raises(InputError, match="no samples"):
        run_sequential([], 0.1, 0.95)
