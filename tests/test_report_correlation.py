"""Rank correlation: known values, ties, and what has none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from onnxsub.errors import OptionError
from onnxsub.report.correlation import spearman


def test_known_values() -> None:
    # the worked example of Spearman 1904 as most books give it: IQ and hours of television
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    found = spearman(iq, hours)
    assert found.rho == pytest.approx(-29 / 165)
    assert found.count == 10
    half = 1.959964 * np.sqrt((1 + (29 / 165) ** 2 / 2) / 7)
    assert found.lower == pytest.approx(np.tanh(np.arctanh(-29 / 165) - half), abs=1e-6)
    assert found.sign == "open"


def test_ties_share_their_mean_rank() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 40), rng.integers(0, 5, 40)
    assert spearman(x.tolist(), y.tolist()).rho == pytest.approx(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def test_the_interval_covers() -> None:
    """Of 400 draws of 30 pairs the 90 % interval misses the true value about forty times."""
    rng = np.random.default_rng(0)
    r = 0.6
    rho = 6 / np.pi * np.arcsin(r / 2)  # of a normal pair with correlation r
    missed = 0
    for _ in range(400):
        a, b = rng.standard_normal((2, 30))
        found = spearman(a.tolist(), (r * a + np.sqrt(1 - r * r) * b).tolist(), 0.9)
        assert found.lower is not None
        assert found.upper is not None
        missed += not found.lower <= rho <= found.upper
    assert 20 <= missed <= 60


@pytest.mark.parametrize(
    ("x", "y", "rho", "count"),
    [
        ([], [], None, 0),
        ([1.0], [1.0], None, 1),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], None, 3),
        ([1.0, 2.0, float("nan")], [2.0, 1.0, 3.0], -1.0, 2),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 4.0], 1.0, 3),
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 9.0], 1.0, 4),
    ],
)
def test_what_has_no_interval(x: list[float], y: list[float], rho: float | None, count: int) -> None:
    found = spearman(x, y)
    assert (found.rho, found.lower, found.upper, found.count) == (rho, None, None, count)
    assert found.sign == "open"
    assert found.text == ("-" if rho is None else f"{rho:.2f}")


def test_signs_and_words() -> None:
    x = list(range(20))
    up = spearman(x, [v + (3 if v % 2 else 0) for v in x])
    assert up.sign == "positive"
    assert up.text.startswith("0.9")
    assert spearman(x, [-v + (3 if v % 2 else 0) for v in x]).sign == "negative"
    assert up.to_json()["count"] == 20
    with pytest.raises(OptionError):
        spearman(x, x, 1.0)
    with pytest.raises(ValueError, match="paired"):
        spearman(x, x[1:])
