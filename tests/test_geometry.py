"""The nearest point of a half-space within a box, against linear programming."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from onnxsub.geometry import halfspace_radius, nearest_in_halfspace


def smallest(c: np.ndarray, k: float, low: np.ndarray, high: np.ndarray) -> float:
    """The radius by linear programming, inf where there is none."""
    n = len(c)
    above = np.hstack([np.eye(n), -np.ones((n, 1))])
    below = np.hstack([-np.eye(n), -np.ones((n, 1))])
    rows = np.vstack([above, below, [np.append(-c, 0.0)]])
    found = linprog(np.eye(n + 1)[n], rows, np.append(np.zeros(2 * n), k), bounds=[*zip(low, high, strict=True), (0, None)])
    return float(found.fun) if found.status == 0 else math.inf


def rows(*arrays: object) -> tuple[torch.Tensor, ...]:
    return tuple(torch.as_tensor(np.asarray(a, dtype=np.float64)) for a in arrays)


@pytest.mark.parametrize("around", [True, False], ids=["the box holds 0", "the box lies anywhere"])
def test_the_radius_is_the_smallest(around: bool) -> None:
    rng = np.random.default_rng(int(around))
    reached = 0
    for _ in range(150):
        n = int(rng.integers(1, 8))
        c = np.where(rng.random(n) < 0.2, 0.0, rng.normal(size=n))
        low, high = -rng.random(n) * rng.integers(0, 2, n), rng.random(n) * rng.integers(0, 2, n)
        if not around:
            shift = rng.normal(size=n)
            low, high = low + shift, high + shift
        k = float(rng.normal())
        best = smallest(c, k, low, high)
        found = float(halfspace_radius(*rows(c[None], [k], low[None], high[None])))
        assert found == pytest.approx(best, abs=1e-9)
        assert found == float(halfspace_radius(*rows(c[None], [k], low, high)))
        reached += 0 < best < math.inf
    assert reached > 20


def test_rows_do_not_depend_on_each_other() -> None:
    rng = np.random.default_rng(2)
    c, k = rng.normal(size=(6, 4)), rng.normal(size=6)
    low, high = -rng.random((6, 4)), rng.random((6, 4))
    whole = halfspace_radius(*rows(c, k, low, high))
    for i in range(6):
        one = slice(i, i + 1)
        assert halfspace_radius(*rows(c[one], k[one], low[one], high[one]))[0] == whole[i]


def test_the_point_is_nearest_and_in_the_half_space() -> None:
    rng = np.random.default_rng(3)
    reached = 0
    for _ in range(200):
        n = int(rng.integers(1, 8))
        c = np.where(rng.random(n) < 0.2, 0.0, rng.normal(size=n))
        low, high = -rng.random(n) * rng.integers(0, 2, n), rng.random(n) * rng.integers(0, 2, n)
        k = float(rng.normal())
        point, best = nearest_in_halfspace(c, k, low, high), smallest(c, k, low, high)
        assert (point is None) == math.isinf(best)
        if point is None:
            continue
        reached += k < 0
        assert np.abs(point).max() == pytest.approx(best, abs=1e-9)
        assert (point >= low).all()
        assert (point <= high).all()
        assert c @ point + k >= -1e-9
    assert reached > 20
