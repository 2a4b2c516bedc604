"""Rows of properties in units of their size: exact powers of two, rows of one kind in one unit."""

from __future__ import annotations

import numpy as np
import pytest

from onnxsub.passes.rescale import in_row_units
from onnxsub.properties.rows import RowSet

LEAST = 1e-3


def units(rows: RowSet, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The factor of every row, and the values of the scaled rows at y."""
    found = in_row_units(rows, y, LEAST)
    factor = np.abs(found.A).max(1) / np.abs(rows.A).max(1)
    assert np.array_equal(found.A, rows.A * factor[:, None])
    assert np.array_equal(found.b, rows.b * factor)
    assert np.all(np.frexp(factor)[0] == 0.5)  # powers of two round nothing
    assert found.clauses == rows.clauses
    return factor, found.b - found.A @ y


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_any_size_are_of_ordinary_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=4) * 10.0 ** rng.integers(-5, 6)
    A = rng.normal(size=(6, 4)) * 10.0 ** rng.integers(-8, 9, size=(6, 1))
    rows = RowSet(A, A @ y + rng.normal(size=6) * np.abs(A @ y), tuple((i,) for i in range(6)))
    _, values = units(rows, y)
    assert 0.5 <= np.abs(values).max() < 1
    shares = np.abs(rows.b - rows.A @ y) / (np.abs(rows.b) + np.abs(rows.A) @ np.abs(y))
    # each against the size of its own terms, to the factor 2 of powers of two
    ratio = np.abs(values) / shares
    assert ratio.max() <= 2.001 * ratio.min()


@pytest.mark.parametrize("clauses", [((0, 1, 2),), ((0,), (1,), (2,))])
def test_rows_of_one_kind_keep_their_ratio(clauses: tuple[tuple[int, ...], ...]) -> None:
    """Margins of very different size at the centre, as of the classes of an image: no row is stretched against another."""
    y = np.array([1.0, 0.999, 0.0, -1.0])
    A = np.array([[-1.0, 1, 0, 0], [-1.0, 0, 1, 0], [-1.0, 0, 0, 1]])
    factor, values = units(RowSet(A, np.zeros(3), clauses), y)
    assert factor.max() / factor.min() <= 2  # the ratio of the sizes of their terms
    assert 0.5 <= np.abs(values).max() < 1


def test_small_margins_are_not_blown_up_without_end() -> None:
    y = np.array([1.0, 1.0 + 1e-12])
    factor, _ = units(RowSet(np.array([[-1.0, 1.0]]), np.zeros(1), ((0,),)), y)
    assert factor.max() <= 1 / LEAST


def test_a_clause_whose_rows_have_units_of_their_own() -> None:
    y = np.array([1e-8, 3e7])
    rows = RowSet(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([2e-8, 5e7]), ((0, 1),))
    _, values = units(rows, y)
    assert np.all((np.abs(values) > 0.1) & (np.abs(values) < 2))


def test_rows_without_any_term_stay() -> None:
    rows = RowSet(np.zeros((2, 3)), np.zeros(2), ((0,), (1,)))
    found = in_row_units(rows, np.array([1.0, np.inf, np.nan]), LEAST)
    assert np.array_equal(found.A, rows.A)
    assert np.array_equal(found.b, rows.b)


@pytest.mark.parametrize(
    ("A", "b", "y"),
    [
        ([[1e300, 1e-300]], [0.0], [0.0, 1.0]),
        ([[1e300, 0.0], [0.0, 1e300]], [0.0, -1e300], [1e10, 1e-10]),
        ([[1e300, 0.0], [0.0, 1.0]], [0.0, -1e-10], [1e10, 1.0]),
        ([[5e-324, 0.0], [1.0, -1.0]], [1e-320, 0.5], [1e5, 1.0]),
        ([[1.0, -1.0]], [0.0], [np.inf, 1.0]),
    ],
)
def test_rows_at_the_ends_of_float64_stay_what_they_are(A: list[list[float]], b: list[float], y: list[float]) -> None:
    """Scaling loses no row: each is still its multiple by one power of two, number by number."""
    rows = RowSet(np.array(A), np.array(b), tuple((i,) for i in range(len(b))))
    found = in_row_units(rows, np.array(y), LEAST)
    for before, after in zip(np.column_stack([rows.A, rows.b]), np.column_stack([found.A, found.b]), strict=True):
        assert np.isfinite(after).all()
        assert np.array_equal(before == 0, after == 0)
        exponents = (np.frexp(after)[1] - np.frexp(before)[1])[before != 0]
        assert (exponents == exponents[0]).all()
        assert np.array_equal(np.frexp(after)[0], np.frexp(before)[0])
