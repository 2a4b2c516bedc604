"""Scale: a hidden layer times 2^k and the next one times 2^-k is the same network, and every bound says so, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.propagate import METHODS, compute_bounds, margin_bounds
from onnxsub.propagate.balance import balancing, groups, scaled
from onnxsub.propagate.halfspace import cut_minimum
from onnxsub.propagate.rounding import scales_of
from tests.handmade import Net
from tests.random_dags import random_dag
from tests.random_models import random_model

HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "Abs")


def network_of(seed: int) -> Network:
    """Dense, Conv, MaxPool, AveragePool and residual Sum with activations that commute with positive factors."""
    make = random_dag if seed % 3 == 0 else random_model
    return lower(load_model(make(seed, activations=HOMOGENEOUS)))


def random_exponents(network: Network, seed: int, most: int = 100) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    found: dict[str, int] = {}
    for group in groups(network):
        found |= dict.fromkeys(group, int(rng.integers(-most, most + 1)))
    return found


def ball(network: Network, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x0, eps = rng.random(network.input_shape), float(rng.choice([0.01, 0.1, 0.3]))
    return np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1)


def same(found: torch.Tensor, expected: torch.Tensor, exponent: int = 0) -> bool:
    return torch.equal(found, torch.ldexp(expected, torch.tensor(exponent)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS))
def test_bounds_are_those_of_the_scaled_network_bit_for_bit(seed: int, method: str) -> None:
    network = network_of(seed)
    exponents = random_exponents(network, seed)
    other = scaled(network, exponents)
    box = ball(network, seed)
    here, there = (compute_bounds(n, *box, method, steps=3) for n in (network, other))
    for op in network.nonlinear:
        for end, expected in zip(there.pre[op.output], here.pre[op.output], strict=True):
            assert same(end, expected, exponents.get(op.inputs[0], 0)), (op.output, exponents)
    assert all(same(a, b) for a, b in zip(there.output, here.output, strict=True))
    rows = np.eye(network.classes)[:1] - np.eye(network.classes)[1:2]
    margins = [margin_bounds(n, b, rows) for n, b in ((network, here), (other, there))]
    assert all(same(a, b) for a, b in zip(*margins, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_a_scaled_network_is_the_same_function(seed: int) -> None:
    network = network_of(seed)
    exponents = random_exponents(network, seed)
    x = torch.rand((5, *network.input_shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    values, others = network.values(x), scaled(network, exponents).values(x)
    assert groups(network)
    assert all(same(others[name], value, exponents.get(name, 0)) for name, value in values.items())


def test_a_unit_of_its_own_where_the_function_allows_it_only() -> None:
    n = Net(2)
    y = n.gemm(n.node("Tanh", [n.gemm("x", 2, 3, "z")]), 3, 2)
    network = lower(load_model(n.model(y, 2)))
    assert groups(network) == []  # Tanh commutes with no factor
    with pytest.raises(ValueError, match="whose unit is fixed"):
        scaled(network, {"z": 3})
    network = network_of(2)
    first = groups(network)[0]
    assert len(first) > 1
    with pytest.raises(ValueError, match="different exponents within one group"):
        scaled(network, {first[0]: 1})


def test_balancing_brings_every_layer_near_one() -> None:
    network = network_of(1)
    low, high = (torch.as_tensor(end)[None] for end in ball(network, 1))

    def sizes(n: Network) -> Mapping[str, float]:
        return {name: float(s.max()) for name, s in scales_of(n, low, high).items()}

    far = scaled(network, random_exponents(network, 1))
    exponents = balancing(far, scales_of(far, low, high))
    near = sizes(scaled(far, exponents))
    assert max(sizes(far).values()) > 2.0**20
    for group in groups(network):
        assert 0.5 <= max(near[name] for name in group) <= 1
    assert balancing(network, scales_of(network, low, high)) == {}


@pytest.mark.parametrize("k", [-100, -60, 60, 100])
def test_half_spaces_are_used_whatever_the_scale(k: int) -> None:
    rng = np.random.default_rng(0)
    a, c = (torch.as_tensor(rng.normal(size=shape)) for shape in ((1, 3, 5), (1, 5)))
    b, low = torch.zeros((1, 3), dtype=torch.float64), -torch.as_tensor(rng.random((1, 5)))
    cut, factor = 0.7 * (c * low).abs().sum(1).neg(), 2.0**k
    plain = cut_minimum(a, b, c, cut, low, -low)
    loose = cut_minimum(a, b, c, cut + 1e3, low, -low)
    assert (plain > loose + 0.01).any()
    assert torch.equal(cut_minimum(a * factor, b, c, cut, low, -low), plain * factor)
    assert torch.equal(cut_minimum(a, b, c * factor, cut * factor, low, -low), plain)


@pytest.mark.parametrize("seed", range(8))
def test_slack_is_far_above_what_the_order_of_sums_changes(seed: int) -> None:
    """Deep networks: bounds of rows pulled back together and one by one differ by a small share of the slack."""
    n = Net(12, seed=seed)
    x = "x"
    for _ in range(24):
        x = n.node("Relu", [n.gemm(x, 12, 12)])
    network = lower(load_model(n.model(n.gemm(x, 12, 3), 3)))
    low, high = ball(network, seed)
    found = [compute_bounds(network, low, high, "crown", memory=m) for m in (2**28, 1)]
    for op in network.nonlinear[1:]:
        scale = 1e-10 * found[0].scales[op.inputs[0]]
        for a, b in zip(*(f.pre[op.output] for f in found), strict=True):
            assert ((a - b).abs() <= 0.01 * scale).all()


def test_cancellation_two_layers_back_shows_in_the_slack() -> None:
    # two terms of 1e12 cancel; all units are stable, so lines are exact and what is left behind the last layer is rounding
    n = Net(2, dtype=np.float64)
    big, third = 1e12, 1 / 3
    first = n.node("Gemm", ["x", n.weight([[big * third, big * 0.7], [big * 0.7, big * third]]), n.weight([1.0, 1.0])])
    h = n.node("Relu", [first])
    second = n.node("Gemm", [h, n.weight([[1.0, -1.0], [-1.0, 1.0]]), n.weight([1e4 + 2.1e12, 1e4 + 2.1e12])])
    third_layer = n.node("Gemm", [n.node("Relu", [second]), n.weight([[1.0, 0.0], [1.0, 1.0]]), n.weight([-2e4 - 4.2e12, 0.0])])
    network = lower(load_model(n.model(third_layer, 2)))
    x = np.array([0.4, 0.6])
    bounds = compute_bounds(network, x - 1e-13, x + 1e-13, "crown")
    # over the reals the first logit is 0: both halves cancel
    low, high = (float(end[0, 0]) for end in bounds.output)
    assert low <= 0 <= high
    assert high - low > 1e3 * np.finfo(np.float64).eps * 1e12
