"""Ties: where float32 inference cannot tell two classes apart, and where the network over the real numbers can."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from onnxsub.instance import Instance, Replay
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.region import InputSpace
from onnxsub.verifiers.real_rows import output_scales, real_margins
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.result import DistanceResult
from tests.verifiers.nets import UNIT, decided, dense, logits, measured

BOTH = ("bab", "milp")


def cliff(height: float, level: float, slope: float, shift: float = 0.0) -> Network:
    """`f_0 - f_1 = height relu(0.75 - s) + level - slope relu(s - 0.75)` of `s = x_0 + x_1`, computed two layers deep; both logits
    are moved by `shift`."""
    return dense(
        ([[-1.0, -1.0], [1.0, 1.0]], [0.75, -0.75]),
        ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),
        ([[height, -slope], [0.0, 0.0]], [level + shift, shift]),
    )


ANCHOR = np.array([0.125, 0.125], dtype=np.float32)
EDGE = 0.25
"""Distance of the edge of the plateau from the anchor."""


@pytest.mark.parametrize("verifier", BOTH)
@pytest.mark.parametrize(
    ("height", "level", "slope", "shift"),
    [(1e9, 1.0, 2.0, 0.0), (3e14, 1.0, 2.0, 0.0), (1.0, 1e-10, 2e-10, 1.0), (1e6, 1e-4, 2e-4, 3.0)],
)
def test_a_plateau_behind_a_steep_slope_is_not_the_boundary(
    height: float, level: float, slope: float, shift: float, verifier: str
) -> None:
    network = cliff(height, level, slope, shift)
    true = EDGE + level / slope / 2
    # float32 cannot tell 1 + 1e-10 from 1, so the file would tie on the plateau
    replay = below(network, 1e-8) if shift else in_float32(network)
    r = measured(network, ANCHOR, 0, replay=replay, verifier=verifier, timeout=1.0)
    assert r.lower <= true + 1e-9
    if r.status == "exact":
        assert r.upper == pytest.approx(true, abs=1e-6)
    else:
        assert r.status == "bracket"
        assert r.reason
    assert r.upper >= true - 1e-6


@pytest.mark.parametrize("verifier", BOTH)
def test_exact_means_the_tolerance_also_where_float32_comes_to_the_boundary_first(verifier: str) -> None:
    """Class 1 begins at t, which float32 rounds down by 5e-6: there it has a tie."""
    t = float(np.float32(185.0)) + 5e-6
    assert float(np.float32(t)) == 185.0
    network, x0 = dense(([[0.0], [1.0]], [t, 0.0])), np.array([10.0], dtype=np.float32)

    def ask(tol: float) -> DistanceResult:
        space = InputSpace(0.0, 255.0)
        return measured(network, x0, 0, space, replay=in_float32(network), verifier=verifier, tol=tol, threads=1)

    coarse, fine = ask(1e-4), ask(1e-6)
    assert coarse.status == "exact"
    assert coarse.upper == pytest.approx(t - 10.0, abs=1e-4)
    assert fine.status == "bracket"
    assert fine.reason
    assert fine.lower <= t - 10.0


@pytest.mark.parametrize("verifier", BOTH)
def test_a_plateau_that_never_ends_has_no_distance(verifier: str) -> None:
    network = cliff(1e9, 1.0, 0.0)
    r = measured(network, ANCHOR, 0, replay=in_float32(network), verifier=verifier, timeout=1.0)
    assert r.status in ("none", "bracket")
    assert math.isinf(r.upper)


@pytest.mark.parametrize("verifier", BOTH)
def test_a_distance_and_a_decision_agree_on_a_plateau(verifier: str) -> None:
    network = cliff(1e7, 1.0, 2.0)
    r = measured(network, ANCHOR, 0, replay=in_float32(network), verifier=verifier, timeout=1.0)
    v = decided(network, ANCHOR, 0, 0.4, verifier=verifier)
    assert v.status != "violated"
    assert not (v.status == "proved" and r.upper < 0.4)


def in_float32(network: Network, noise: float = 0.0) -> Replay:
    exact = logits(network)

    def replay(x: Array) -> Array:
        return np.asarray(exact(x) - np.array([0.0, noise]), dtype=np.float32)

    return replay


def referee(network: Network, replay: Replay, x0: Array = ANCHOR) -> Referee:
    return Referee(Instance(network, x0, 0, UNIT, replay))


def below(network: Network, noise: float) -> Callable[[Array], Array]:
    """The network in float64 with every other class a little lower, as a kernel may sum it."""
    exact = logits(network)
    return lambda x: exact(x) - np.array([0.0, noise])


def test_a_tie_is_judged_by_sizes_at_the_point() -> None:
    beyond = np.array([[0.5, 0.5]])
    for level, kind in ((1e-10, "rejected"), (1e-13, "rejected"), (0.0, "tie")):
        network = cliff(1.0, level, 0.0, 1.0)
        (found,) = referee(network, below(network, 1e-8)).judge(beyond)
        assert found.kind == kind, level


def test_a_boundary_that_is_only_touched_is_a_tie() -> None:
    # f_1 - f_0 = -|x_0 - 0.5| of numbers whose sums round
    network = dense(([[3.3, 0.0], [-3.3, 0.0]], [-1.65, 1.65]), ([[1.0, 1.0], [0.0, 0.0]], [0.1, 0.1]))
    at, beside = np.array([[0.5, 0.2]]), np.array([[0.500001, 0.2]])
    judge = referee(network, below(network, 1e-7))
    assert judge.judge(at)[0].kind == "tie"
    assert judge.judge(beside)[0].kind == "rejected"


def test_the_margin_over_the_real_numbers_is_in_units_of_the_point() -> None:
    # beyond the plateau the other class is ahead by 1e-10, at the anchor the margin is 0.5
    network = cliff(1.0, 1e-10, 4e-10)
    judge = referee(network, logits(network))
    (found,) = judge.judge(np.array([[0.75, 0.75]]))
    assert found.kind == "strict"
    assert judge.over_reals(found) > 0.1
    assert not judge.float32_only(found)


def test_rounding_of_float32_is_told_by_sizes_at_the_point() -> None:
    # the file has another class on a plateau whose margin is 1, behind logits of 5e8 at the anchor
    network = cliff(1e9, 1.0, 0.0)
    judge = referee(network, below(network, -2.0))
    (found,) = judge.judge(np.array([[0.5, 0.5]]))
    assert found.kind == "strict"
    assert judge.float32_only(found)


def test_scales_of_margins_are_those_of_the_terms() -> None:
    network = cliff(8.0, 1.0, 2.0, 4.0)
    x = np.array([[0.125, 0.125], [0.5, 0.5]])
    found = real_margins(network, x, 0)
    np.testing.assert_allclose(found.margins, [-5.0, -0.5])
    np.testing.assert_allclose(found.own, [4.0 + 5.0 + 4.0, 0.5 + 5.0 + 4.0])
    np.testing.assert_allclose(output_scales(network, x[0]), [9.0, 4.0])
    assert (found.terms >= found.own).all()
    assert (found.error < 1e-12).all()
    assert not found.reached.any()


def test_no_number_is_no_tie() -> None:
    network = cliff(1e308, 1.0, 2.0)
    found = real_margins(network, np.array([[-1e9, -1e9]]), 0)
    assert not found.reached.any()
    assert (found.error == 0).all()


@pytest.mark.parametrize("verifier", BOTH)
@pytest.mark.parametrize("shift", [2.0**23, 2.0**24])
def test_a_class_that_only_float32_reaches_is_told(shift: float, verifier: str) -> None:
    # over the real numbers f_1 - f_0 <= -0.3 everywhere; float32 logits lie 1 or 2 apart, so the file ties
    network = dense(([[1.0, 1.0]], [0.0]), ([[-0.2], [0.0]], [0.7 + shift, shift]))
    r = measured(network, ANCHOR, 0, replay=in_float32(network), verifier=verifier, timeout=1.0)
    assert (r.status, r.lower) == ("bracket", 0.0)
    assert "float32 execution differs" in str(r.reason)


@pytest.mark.parametrize("verifier", BOTH)
def test_a_tie_at_the_very_corner_of_the_domain_is_told(verifier: str) -> None:
    # the file ties at the upper corner alone; over the real numbers the margin there is -0.01
    network = dense(([[1.0, 1.0]], [0.0]), ([[-0.1], [0.0]], [0.21, 0.0]))
    exact = logits(network)

    def replay(x: Array) -> Array:
        f = exact(x)
        f[np.asarray(x).min(axis=1) >= 1.0, 0] = 0.0
        return f

    r = measured(network, ANCHOR, 0, replay=replay, verifier=verifier, timeout=1.0)
    assert (r.status, r.lower) == ("bracket", 0.0)
    assert r.upper == 0.875
    assert "float32 execution differs" in str(r.reason)


@pytest.mark.parametrize("verifier", BOTH)
def test_a_boundary_at_the_very_corner_of_the_domain_is_exact(verifier: str) -> None:
    network = dense(([[1.0, 1.0]], [0.0]), ([[-0.1], [0.0]], [0.2, 0.0]))
    r = measured(network, ANCHOR, 0, replay=logits(network), verifier=verifier, timeout=1.0)
    assert r.status == "exact"
    assert r.upper == pytest.approx(0.875, abs=1e-6)
