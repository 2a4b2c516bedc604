"""The domain, the ball and the normalisation, at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsub.errors import InputError
from onnxsub.region import InputSpace


@given(
    lower=st.floats(-3, 3),
    width=st.floats(1e-3, 5),
    eps=st.one_of(st.just(0.0), st.floats(0, 10), st.floats(1e-30, 1e-6)),
    share=st.floats(0, 1),
)
def test_the_ball_lies_in_the_domain_and_holds_its_centre(lower: float, width: float, eps: float, share: float) -> None:
    space = InputSpace(lower, lower + width)
    x0 = space.inside(np.array([lower, lower + width, lower + share * width]))
    assert x0.dtype == np.float32
    low, high = space.ball(x0, eps)
    centre = x0.astype(np.float64)
    assert (space.lower <= low).all()
    assert (low <= centre).all()
    assert (centre <= high).all()
    assert (high <= space.upper).all()
    reach = eps + np.finfo(np.float64).eps * (np.abs(centre) + eps)  # the rounding of one sum
    assert (np.abs(low - centre) <= reach).all()
    assert (np.abs(high - centre) <= reach).all()
    whole = space.ball(x0, space.reach(x0) * (1 + 1e-12))
    assert (whole[0] == space.lower).all()
    assert (whole[1] == space.upper).all()


def test_float32_of_an_end_of_the_domain_can_be_outside_of_it() -> None:
    space = InputSpace(0.7, 1.3)
    assert float(np.float32(0.7)) < 0.7  # hence `inside`
    x0 = space.inside(np.array([0.7, 0.7 - 1e-8]))
    assert (x0.astype(np.float64) >= 0.7).all()
    for centre in (x0, np.array([0.7, 0.7], np.float32)):
        low, high = space.ball(centre, 0.0)
        assert (low <= high).all()
        assert (low >= 0.7).all()


def test_a_domain_without_float32_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="holds no float32 number; widen it"):
        InputSpace(0.3, 0.3 + 1e-12).inside(np.array([0.3]))


@pytest.mark.parametrize(("lower", "upper"), [(1.0, 0.0), (0.5, 0.5), (np.nan, 1.0), (0.0, np.inf)])
def test_domains_that_are_no_interval(lower: float, upper: float) -> None:
    with pytest.raises(InputError, match=r"--domain .* is not an interval; give two finite numbers"):
        InputSpace(lower, upper)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5,), None, "belong together"),
        (None, (0.5,), "belong together"),
        ((0.5,), (0.0,), "must be positive"),
        ((0.5,), (-1.0,), "must be positive"),
        ((0.5,), (np.nan,), "must be positive"),
        ((np.inf,), (1.0,), "must be finite"),
    ],
)
def test_bad_normalisation(mean: tuple[float, ...] | None, std: tuple[float, ...] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        InputSpace(0, 1, mean, std)


def test_normalisation_per_channel_first_last_and_for_all() -> None:
    space = InputSpace(0, 1, (0.1, 0.2, 0.3), (0.5,))
    x = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    expected = (x.astype(np.float64) - np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)) / 0.5
    np.testing.assert_array_equal(space.normalise(x), expected.astype(np.float32))
    last = np.moveaxis(x, 1, -1)
    np.testing.assert_array_equal(space.normalise(last), np.moveaxis(space.normalise(x), 1, -1))
    assert InputSpace().normalise(x).dtype == np.float32
    np.testing.assert_array_equal(InputSpace().normalise(x), x)


@pytest.mark.parametrize("shape", [(1, 28, 28), (784,), (4, 4, 4)])
def test_a_wrong_number_of_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"--mean has 3 values, the model's input .* channels; give one or as many"):
        InputSpace(0, 1, (0.1, 0.2, 0.3), (1.0,)).mean_std(shape)
    with pytest.raises(InputError, match="--std has 2 values"):
        InputSpace(0, 1, (0.1,), (1.0, 2.0)).mean_std(shape)


def test_check_says_what_is_wrong_with_a_point() -> None:
    space = InputSpace(0, 1)
    space.check(np.array([0.0, 1.0, 1.0 + 2.0**-23]), "x")
    with pytest.raises(InputError, match="outside the domain"):
        space.check(np.array([0.0, 1.0, 1.0 + 5e-7]), "x")
    with pytest.raises(InputError, match=r"x contains NaN or infinite values \(2 of 3\)"):
        space.check(np.array([np.nan, 0.5, np.inf]), "x")
    with pytest.raises(InputError, match=r"x has values in \[0, 255\], outside the domain \[0, 1\]; scale it, or say .* --domain"):
        space.check(np.array([0, 255]), "x")
