"""Estimated intervals: near those that `fastlin` proves, within plain intervals, repeatable, and never taken for bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.passes.bounds import BoundsOptions
from onnxsub.passes.estimate import Estimate, estimate_widths, most_directions
from onnxsub.passes.select import LARGE, SelectOptions, margin_gradients, select
from onnxsub.passes.substitute import lines, substitute
from onnxsub.propagate import METHODS, Bounds, compute_bounds
from tests.handmade import Net
from tests.random_dags import random_dag
from tests.random_models import random_model

Ball = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def network() -> Network:
    return lower(load_model(random_model(21, kind="conv", activations=("Relu",))))


def ball_of(network: Network, eps: float = 0.1) -> Ball:
    x0 = np.random.default_rng(0).random(network.input_shape)
    return np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1)


def widths(pre: object, name: str) -> np.ndarray:
    assert isinstance(pre, Estimate | Bounds)
    l, u = pre.pre[name]
    return (u - l).double().flatten().numpy()


def test_affine_units_are_met_to_the_stated_error(network: Network) -> None:
    ball = ball_of(network)
    first = network.activations[0].output
    exact = widths(compute_bounds(network, *ball, "fastlin"), first)
    for directions in (128, 2048):
        # plain intervals are exact here and would hide the error from above: only what falls short is seen
        ratio = widths(estimate_widths(network, *ball, directions=directions), first) / exact
        deviation = 1.6 / math.sqrt(directions)
        assert ratio.max() <= 1 + 1e-5
        assert ratio.min() >= 1 - 5 * deviation
        assert ratio.mean() >= 1 - deviation


def test_many_directions_lead_to_the_intervals_of_fastlin(network: Network) -> None:
    ball = ball_of(network)
    reference = compute_bounds(network, *ball, "fastlin-ibp")
    found = estimate_widths(network, *ball, directions=8192)
    for op in network.activations:
        ratio = widths(found, op.output) / widths(reference, op.output)
        assert abs(np.median(ratio) - 1) <= 0.05
        assert 0.8 <= np.quantile(ratio, 0.05) <= np.quantile(ratio, 0.95) <= 1.2


def test_the_order_is_that_of_fastlin(network: Network) -> None:
    ball = ball_of(network)
    names = [op.output for op in network.activations]

    def all_widths(pre: object) -> np.ndarray:
        return np.concatenate([widths(pre, n) for n in names])

    reference = all_widths(compute_bounds(network, *ball, "fastlin"))
    orders = [spearmanr(reference, all_widths(estimate_widths(network, *ball, seed=seed)))[0] for seed in range(40)]
    # single seeds of this small network spread by 0.015 round 0.958, so one seed says little
    assert np.mean(orders) >= 0.95


@pytest.mark.parametrize("seed", range(25))
def test_every_operator_passes_directions_on(seed: int) -> None:
    network = lower(load_model(random_dag(seed)))
    ball = ball_of(network)
    found, plain = estimate_widths(network, *ball, directions=32), compute_bounds(network, *ball, "ibp")
    assert set(found.pre) == {op.output for op in network.nonlinear}
    for name, (l, u) in found.pre.items():
        low, high = (end.float() for end in plain.pre[name])
        room = 1e-4 * (1 + torch.maximum(low.abs(), high.abs()))
        assert torch.isfinite(l).all()
        assert torch.isfinite(u).all()
        assert (l <= u).all()
        assert (l >= low - room).all()  # tighter intervals before lead to no wider ones behind
        assert (u <= high + room).all()


def test_a_pooling_passes_on_its_largest_element() -> None:
    n = Net(1, 4, 4)
    x = n.node("MaxPool", ["x"], kernel_shape=[2, 2], strides=[2, 2])
    x = n.node("Flatten", [n.node("Relu", [x])])
    network = lower(load_model(n.model(n.gemm(x, 4, 2), 2)))
    x0 = np.zeros((1, 4, 4))
    x0[0, ::2, ::2] = 0.5  # the winner of every window, also at the ends of the ball
    found = estimate_widths(network, x0 - 0.1, x0 + 0.1, directions=2048)
    l, u = found.pre[network.activations[0].output]
    np.testing.assert_allclose(((l + u) / 2).flatten(), 0.5, atol=0.03)
    np.testing.assert_allclose((u - l).flatten(), 0.2, rtol=0.2)


def test_only_the_units_that_are_asked_for_are_estimated(network: Network) -> None:
    ball = ball_of(network)
    units = {op.output: torch.tensor([0, 3]) for op in network.activations}
    some, plain = estimate_widths(network, *ball, units=units), compute_bounds(network, *ball, "ibp")
    first = network.activations[0].output
    rest = np.setdiff1d(np.arange(network.activations[0].out_size), [0, 3])
    np.testing.assert_allclose(widths(some, first)[rest], widths(plain, first)[rest], rtol=1e-4)


def test_lines_have_no_band(network: Network) -> None:
    x0 = np.random.default_rng(0).random(network.input_shape)
    chosen = lines(network, "act", x0)
    affine = substitute(network, chosen, {op.output: np.zeros(op.out_shape, dtype=bool) for op in network.activations})
    found = estimate_widths(affine, x0 - 0.3, x0 + 0.3, directions=8192)
    exact = compute_bounds(affine, x0 - 0.3, x0 + 0.3, "fastlin")
    for op in affine.activations:
        ratio = widths(found, op.output) / np.maximum(widths(exact, op.output), 1e-12)
        assert abs(np.median(ratio) - 1) <= 0.05


def test_one_seed_gives_one_estimate_and_a_point_has_no_width(network: Network) -> None:
    ball = ball_of(network)
    one, two, other = (estimate_widths(network, *ball, directions=16, seed=s) for s in (1, 1, 2))
    last = network.activations[-1].output
    assert np.array_equal(widths(one, last), widths(two, last))
    assert not np.array_equal(widths(one, last), widths(other, last))
    point = estimate_widths(network, ball[0], ball[0], directions=16)
    assert max(widths(point, op.output).max() for op in network.activations) <= 1e-5


@pytest.mark.parametrize("directions", [16, 128])
def test_layers_of_lines_are_not_pushed_through_again(network: Network, directions: int) -> None:
    ball = ball_of(network)
    x0, xa = (ball[0] + ball[1]) / 2, ball[1]
    chosen = lines(network, "lin", x0, xa)
    kept = {op.output: np.ones(op.out_shape, dtype=bool) for op in network.prunable}
    first, second, *_ = list(kept)
    start = None
    for name in (None, first, second):
        if name is not None:
            kept[name][:] = False
        g = substitute(network, chosen, kept)
        once = estimate_widths(g, *ball, directions=directions)
        again = estimate_widths(g, *ball, directions=directions, start=start)
        start = again.start
        assert all(torch.equal(once.pre[n][i], again.pre[n][i]) for n in once.pre for i in (0, 1))
        assert set(once.pre) == set(again.pre)
    assert start is not None
    assert start.number > g.ops.index(g.producers[second])
    other = estimate_widths(g, *ball, directions=directions + 1, start=start)  # other directions begin anew
    assert torch.equal(other.pre[second][0], estimate_widths(g, *ball, directions=directions + 1).pre[second][0])
    with pytest.raises(ValueError, match="keeps fewer units"):
        estimate_widths(network, *ball, directions=directions, start=start)


def test_weights_that_overflow_give_no_numbers_in_disguise() -> None:
    n = Net(2)
    x = n.node("Relu", [n.node("Gemm", ["x", n.weight([[1e30, -1e30], [1.0, 1.0]])])])
    x = n.node("Relu", [n.node("Gemm", [x, n.weight([[1e30, -1.0], [-1e30, 1.0]])])])
    network = lower(load_model(n.model(n.gemm(x, 2, 2), 2)))
    found = estimate_widths(network, np.zeros(2), np.ones(2))
    for l, u in found.pre.values():
        assert not torch.isnan(l).any()
        assert not torch.isnan(u).any()
        assert (l <= u).all()


def test_memory_limits_the_directions(network: Network) -> None:
    ball = ball_of(network)
    assert most_directions(network, 2**40) > 10**5
    assert estimate_widths(network, *ball, directions=64, memory=1).directions == most_directions(network, 1) == 16
    assert estimate_widths(network, *ball, directions=64).directions == 64


class Watched(Budget):
    """Ends at the n-th look."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most, self.looks = most, 0

    @property
    def over(self) -> bool:
        self.looks += 1
        return self.looks > self.most


def test_the_clock_is_looked_at_before_every_operator(network: Network) -> None:
    whole = Watched(math.inf)
    estimate_widths(network, *ball_of(network), budget=whole)
    assert whole.looks >= len(network.ops)
    for looks in (0, whole.looks // 2, whole.looks - 1):
        with pytest.raises(OutOfTime):
            estimate_widths(network, *ball_of(network), budget=Watched(looks))


def test_an_estimate_is_no_bound(network: Network) -> None:
    assert not isinstance(estimate_widths(network, *ball_of(network), directions=16), Bounds)
    assert "estimate" not in METHODS
    with pytest.raises(ValueError, match="unknown bounds method 'estimate'"):
        compute_bounds(network, *ball_of(network), "estimate")
    with pytest.raises(InputError, match="--method 'estimate' is unknown"):
        BoundsOptions(0.1, "estimate")


@pytest.mark.parametrize("rank", ["width", "influence"])
@pytest.mark.parametrize("keep", [0, 5, 40])
def test_algorithm_1_on_estimates_keeps_the_number_asked_for(network: Network, rank: str, keep: int) -> None:
    ball = ball_of(network)
    x0, xa = (ball[0] + ball[1]) / 2, ball[1]
    gradients = margin_gradients(network, np.stack([x0, xa]), 0, 1)
    options = SelectOptions(gamma=None, keep=keep, rank=rank, bounds="estimate")
    chosen = lines(network, "lin", x0, xa)
    one, two = (select(network, ball, chosen, options, gradients=gradients) for _ in range(2))
    assert sum(one.kept_per_layer) == keep
    assert all(np.array_equal(one.kept[n], two.kept[n]) for n in one.kept)


def test_units_that_cost_nothing_go_in_one_round(network: Network) -> None:
    ball = ball_of(network, 1e-4)  # nearly all units are stable
    x0, xa = (ball[0] + ball[1]) / 2, ball[1]
    gradients = margin_gradients(network, np.stack([x0, xa]), 0, 1)
    chosen = lines(network, "lin", x0, xa)
    rounds = {
        bounds: select(
            network, ball, chosen, SelectOptions(gamma=0.9, gamma0=0.1, bounds=bounds), gradients=gradients
        ).rounds
        for bounds in ("estimate", "fastlin-ibp")
    }  # fmt: skip
    assert rounds["estimate"] == 1
    assert rounds["fastlin-ibp"] > 10


def test_large_networks_are_estimated_unless_somebody_says_otherwise() -> None:
    assert [SelectOptions().bounds_for(n) for n in (LARGE, LARGE + 1)] == ["fastlin-ibp", "estimate"]
    assert SelectOptions(bounds="crown").bounds_for(10**7) == "crown"
    assert SelectOptions(bounds="estimate").bounds_for(10) == "estimate"
    with pytest.raises(InputError, match="--bounds 'guess' is unknown"):
        SelectOptions(bounds="guess")
