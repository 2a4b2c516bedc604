"""Frequency and severity from brackets: against every assignment, and against exact values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.metrics.intervals import clopper_pearson
from onnxsub.metrics.pointwise import Rho, counted, curve, estimated, frequency, frequency_interval, rho_of, severity
from onnxsub.verifiers.result import DistanceResult, Original


def random_rhos(rng: np.random.Generator, count: int) -> list[Rho]:
    """Exact ones, brackets, ends at infinity, and ties with round radii."""
    found = []
    for _ in range(count):
        low, high = np.sort(rng.choice([0.0, 0.1, 0.2, 0.3, 0.5, round(float(rng.random()), 2)], 2))
        kind = rng.integers(4)
        found.append(Rho(float(low), float((high, low, math.inf, high)[kind])))
    return found


def brute(rhos: list[Rho], eps: float) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """Frequency and severity over all assignments of ends, eps itself, and a value beyond it."""
    shares, means = [], []
    choices = [sorted({r.lower, r.upper, *([eps] if r.lower <= eps <= r.upper else [])}) for r in rhos]
    for values in itertools.product(*choices):
        inside = [v for v in values if v <= eps]
        shares.append(len(inside) / len(values))
        if inside:
            means.append(sum(inside) / len(inside))
    return (min(shares), max(shares)), (min(means), max(means)) if means else None


@pytest.mark.parametrize("seed", range(60))
def test_equal_the_extremes_over_all_assignments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rhos = random_rhos(rng, int(rng.integers(1, 8)))
    for eps in (0.0, 0.1, 0.2, 0.25, float(rng.random())):
        share, mean = brute(rhos, eps)
        assert frequency(rhos, eps) == pytest.approx(share)
        got = severity(rhos, eps)
        assert (got is None) == (mean is None)
        if got is not None and mean is not None:
            assert got == pytest.approx(mean)


def test_exact_distances_give_numbers() -> None:
    rhos = [Rho(v, v) for v in (0.0, 0.05, 0.1, 0.4)]
    assert frequency(rhos, 0.1) == (0.75, 0.75)
    assert severity(rhos, 0.1) == pytest.approx((0.05, 0.05))
    assert severity(rhos[1:], 0.01) is None


def test_an_attack_bounds_frequency_from_below_only() -> None:
    rhos = [Rho(0.0, 0.05), Rho(0.0, math.inf)]
    assert frequency(rhos, 0.1) == (0.5, 1.0)
    assert severity(rhos, 0.1) == (0.0, pytest.approx(0.075))


def test_misclassified_samples() -> None:
    rhos = [Rho(0.0, 0.0, misclassified=True), Rho(0.2, 0.2)]
    assert frequency(counted(rhos), 0.1) == (0.5, 0.5)
    assert frequency(counted(rhos, misclassified=False), 0.1) == (0.0, 0.0)
    assert severity(rhos, 0.3) == pytest.approx((0.1, 0.1))


def test_interval_is_the_union_of_both_counts() -> None:
    rhos = [Rho(0.0, 0.05)] * 7 + [Rho(0.0, 0.5)] * 2 + [Rho(0.4, 0.5)] * 11
    found = frequency_interval(rhos, 0.1, 0.9)
    assert found.lower == clopper_pearson(7, 20, 0.9).lower
    assert found.upper == clopper_pearson(9, 20, 0.9).upper


def test_curve_rises_and_has_a_band() -> None:
    rng = np.random.default_rng(0)
    rhos = [Rho(v, v * f) for v, f in zip(rng.random(200), rng.uniform(1, 1.3, 200), strict=True)]
    points = curve(rhos, np.linspace(0, 1.3, 14), 0.95)
    shares = np.array([(p.frequency_lower, p.frequency_upper, p.band_lower, p.band_upper) for p in points])
    assert (np.diff(shares, axis=0) >= 0).all()
    assert (shares[:, 2] <= shares[:, 0]).all()
    assert (shares[:, 0] <= shares[:, 1]).all()
    assert (shares[:, 1] <= shares[:, 3]).all()
    assert points[0].severity_lower is None
    assert points[-1].frequency_lower == 1.0
    error = math.sqrt(math.log(40) / 400)
    assert points[-1].band_lower == pytest.approx(1 - error)
    assert points[3].to_json()["eps"] == points[3].eps


def test_band_contains_the_whole_curve() -> None:
    rng = np.random.default_rng(1)
    grid = np.linspace(0, 1, 41)
    missed = 0
    for _ in range(100):
        points = curve([Rho(v, v) for v in rng.random(60)], grid, 0.9)
        missed += any(not p.band_lower - 1e-12 <= p.eps <= p.band_upper + 1e-12 for p in points)
    assert missed <= 10 + 4 * 3  # 10 % and four standard deviations


def result(status: str, lower: float, upper: float, original: Original | None = None) -> DistanceResult:
    return DistanceResult(status, lower, upper, None, "bab", None, {}, 0, 0, False, {}, {}, original=original)


def test_what_a_distance_says() -> None:
    assert rho_of(result("exact", 0.1, 0.1)) == Rho(0.1, 0.1)
    assert rho_of(result("bracket", 0.1, 0.2)) == Rho(0.1, 0.2)
    assert rho_of(result("none", math.inf, math.inf)) == Rho(math.inf, math.inf)
    assert rho_of(result("misclassified", 0.0, 0.0)) == Rho(0.0, 0.0, misclassified=True)
    # by way of a substitute, what is certified of the model counts
    assert rho_of(result("exact", 0.1, 0.1, Original(0.05, math.inf, False, None))) == Rho(0.05, math.inf)


def test_bad_input() -> None:
    for lower, upper in ((0.2, 0.1), (-0.1, 0.1), (math.nan, 1.0), (0.0, math.nan)):
        with pytest.raises(InputError, match="impossible"):
            Rho(lower, upper)
    with pytest.raises(InputError, match="misclassified"):
        Rho(0.0, 0.1, misclassified=True)
    with pytest.raises(InputError, match="no samples"):
        frequency([], 0.1)
    with pytest.raises(InputError, match="--eps"):
        severity([Rho(0.0, 0.0)], -0.1)
    with pytest.raises(InputError, match="--eps"):
        frequency([Rho(0.0, 0.0)], math.nan)


def test_estimates_take_what_was_found() -> None:
    assert estimated([0.0, 0.1, 0.3, math.inf], 0.2) == (0.5, pytest.approx(0.05))
    assert estimated([0.3, math.inf], 0.2) == (0.0, None)
    assert estimated([0.2], 0.2) == (1.0, 0.2)
    for values, eps in (([], 0.1), ([math.nan], 0.1), ([-0.1], 0.1), ([0.1], -0.1)):
        with pytest.raises(InputError):
            estimated(values, eps)
