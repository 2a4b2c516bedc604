"""Soundness of bound propagation on random networks: samples lie inside every bound, and the bounds nest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.propagate import METHODS, Bounds, Coefficients, compute_bounds, margin_bounds, pull_back
from onnxsub.propagate.chunks import row_chunks
from tests.random_models import ACTIVATIONS, random_model

LINEAR = ("fastlin", "fastlin-ibp", "crown", "alpha-crown")


def network_of(seed: int, **kwargs: object) -> Network:
    return lower(load_model(random_model(seed, activations=ACTIVATIONS, **kwargs)))  # type: ignore[arg-type]


def ball(network: Network, seed: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    x0 = np.random.default_rng(seed).random(network.input_shape)
    return np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1)


def sampled(network: Network, low: np.ndarray, high: np.ndarray, seed: int, count: int = 200) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    inside = rng.uniform(low, high, (count, *low.shape))
    corners = np.where(rng.random((count, *low.shape)) < 0.5, low, high)
    x = torch.as_tensor(np.concatenate([inside, corners]))
    with torch.no_grad():
        return network.values(x)


def contained(network: Network, bounds: Bounds, values: dict[str, torch.Tensor]) -> int:
    """How many values lie outside their bound."""
    outside = 0
    for op in network.nonlinear:
        l, u = bounds.pre[op.output]
        z = values[op.inputs[0]]
        outside += int(((z < l) | (z > u)).sum())
    y = values[network.output].flatten(1)
    return outside + int(((y < bounds.output[0]) | (y > bounds.output[1])).sum())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.0, 1e-3, 0.05, 0.3, 1.0]), method=st.sampled_from(METHODS))
def test_samples_lie_inside_every_bound(seed: int, eps: float, method: str) -> None:
    network = network_of(seed)
    low, high = ball(network, seed, eps)
    bounds = compute_bounds(network, low, high, method, steps=3)
    assert contained(network, bounds, sampled(network, low, high, seed)) == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([1e-3, 0.05, 0.3]))
def test_bounds_nest(seed: int, eps: float) -> None:
    network = network_of(seed)
    low, high = ball(network, seed, eps)
    found = {m: compute_bounds(network, low, high, m, steps=3) for m in METHODS}
    for inner, outer in (("fastlin-ibp", "ibp"), ("crown", "ibp"), ("alpha-crown", "crown")):  # the others need not nest
        for op in network.nonlinear:
            (l, u), (lo, hi) = found[inner].pre[op.output], found[outer].pre[op.output]
            tiny = 1e-8 * (1 + torch.maximum(lo.abs(), hi.abs()))
            assert (l >= lo - tiny).all(), (inner, outer, op.output)
            assert (u <= hi + tiny).all(), (inner, outer, op.output)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS))
def test_margins_are_sound_and_at_least_as_tight_as_the_outputs_intervals(seed: int, method: str) -> None:
    network = network_of(seed)
    low, high = ball(network, seed, 0.1)
    bounds = compute_bounds(network, low, high, method, steps=3)
    rows = np.eye(network.classes)[:1] - np.eye(network.classes)[1:2]
    l, u = margin_bounds(network, bounds, rows)
    y = sampled(network, low, high, seed)[network.output].flatten(1)
    margin = y[:, 0] - y[:, 1]
    assert (margin >= l[0, 0]).all()
    assert (margin <= u[0, 0]).all()
    assert l[0, 0] >= bounds.output[0][0, 0] - bounds.output[1][0, 1]


@pytest.mark.parametrize("method", METHODS[:-1])  # alpha-crown refines what is unstable in any domain: tighter together
def test_many_domains_give_what_each_gives_alone(method: str) -> None:
    network = network_of(11, kind="residual")
    boxes = [ball(network, seed, 0.1) for seed in range(3)]
    together = compute_bounds(network, np.stack([b[0] for b in boxes]), np.stack([b[1] for b in boxes]), method, steps=3)
    for i, (low, high) in enumerate(boxes):
        alone = compute_bounds(network, low, high, method, steps=3)
        for op in network.nonlinear:
            for a, b in zip(together.pre[op.output], alone.pre[op.output], strict=True):
                torch.testing.assert_close(a[i : i + 1], b, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("method", ["fastlin", "crown"])
@pytest.mark.parametrize("seed", range(6))
def test_chunks_and_windows_change_nothing(method: str, seed: int) -> None:
    network = network_of(seed, kind="residual")
    low, high = ball(network, seed, 0.1)
    whole = compute_bounds(network, low, high, method)
    small = compute_bounds(network, low, high, method, memory=1)
    for op in network.nonlinear:
        for a, b in zip(whole.pre[op.output], small.pre[op.output], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_chunks_hold_every_position_once_and_keep_the_memory_limit() -> None:
    network = network_of(11, kind="residual")
    tensor = network.activations[1].inputs[0]
    index = torch.arange(int(np.prod(network.shapes[tensor])))[::3]
    chunks = list(row_chunks(network, tensor, index, domains=1, itemsize=8, memory=2**15))
    assert sorted(torch.cat(chunks).tolist()) == index.tolist()
    widest = max(int(np.prod(s)) for s in network.shapes.values())
    assert max(len(c) for c in chunks) * widest * 8 * 4 <= 2**15 or max(len(c) for c in chunks) == 1


def test_units_that_are_not_asked_for_keep_their_interval() -> None:
    network = network_of(3, kind="dense")
    low, high = ball(network, 3, 0.2)
    op = network.activations[-1]
    ibp, all_units = compute_bounds(network, low, high, "ibp"), compute_bounds(network, low, high, "crown")
    some = compute_bounds(network, low, high, "crown", units={op.output: torch.tensor([0])})
    assert some.pre[op.output][0][0, 0] == all_units.pre[op.output][0][0, 0]
    assert (some.pre[op.output][0][0, 1:] >= ibp.pre[op.output][0][0, 1:] - 1e-9).all()


def test_only_unstable_units_are_refined_and_the_margin_stays_sound() -> None:
    network = network_of(5, kind="conv")
    low, high = ball(network, 5, 0.05)
    full, lazy = compute_bounds(network, low, high, "crown"), compute_bounds(network, low, high, "crown", only_unstable=True)
    values = sampled(network, low, high, 5)
    assert contained(network, full, values) == 0
    assert contained(network, lazy, values) == 0


def test_an_affine_network_is_bounded_exactly() -> None:
    network = network_of(2, kind="dense")
    first = network.ancestors(network.activations[0].inputs[0])
    affine = Network(network.input, network.input_shape, first[-1].output, first)
    low, high = ball(affine, 2, 0.1)
    bounds = compute_bounds(affine, low, high, "crown")
    start = torch.eye(affine.classes, dtype=torch.float64).unsqueeze(0)
    exact = pull_back(affine, affine.output, Coefficients(start), {}).minimum(
        torch.as_tensor(low)[None], torch.as_tensor(high)[None]
    )
    torch.testing.assert_close(bounds.output[0], exact, rtol=1e-8, atol=1e-9)


def test_unknown_method_is_refused() -> None:
    network = network_of(2)
    with pytest.raises(ValueError, match="unknown bounds method 'magic'; choose one of ibp"):
        compute_bounds(network, *ball(network, 0, 0.1), "magic")


@pytest.mark.slow
def test_ten_thousand_checks() -> None:
    """The soundness bar: 10,000 (network, point) pairs, every pre-activation and logit inside every method's bounds."""
    pairs = violations = 0
    for seed in range(100):
        network = network_of(seed + 5000)
        low, high = ball(network, seed, float(np.random.default_rng(seed).choice([0.01, 0.05, 0.2, 0.5])))
        values = sampled(network, low, high, seed, count=50)
        for method in METHODS:
            violations += contained(network, compute_bounds(network, low, high, method, steps=3), values)
        pairs += 100
    assert pairs == 10_000
    assert violations == 0
