"""What the decisions rest on: scores as networks, and the Jacobian of a box."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from onnxsub.errors import InputError
from onnxsub.lower import lower
from onnxsub.metrics.local.jacobian import lipschitz_bound
from onnxsub.metrics.local.scores import log_odds, odds_network, scores
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.maxpool import MaxPool
from onnxsub.ops.relu import Relu
from onnxsub.ops.smooth import Smooth
from onnxsub.propagate import compute_bounds
from tests.random_models import ACTIVATIONS, random_model
from tests.verifiers.nets import dense


def test_sums_of_odds_say_what_scores_do() -> None:
    rng = np.random.default_rng(1)
    network = dense((rng.normal(size=(4, 3)) * 3, rng.normal(size=4)))
    x = rng.random((500, 3))
    p = scores(network.forward(torch.from_numpy(x)).numpy())
    asked = [(k, s) for k in range(4) for s in (0.02, 0.4, 0.9)]
    sums = odds_network(network, asked).forward(torch.from_numpy(x)).numpy()
    for column, (k, s) in enumerate(asked):
        assert ((sums[:, column] > 1) == (p[:, k] < s)).all()
    assert log_odds(0.5) == 0
    assert math.exp(-log_odds(1e-9)) == pytest.approx(1e-9, rel=1e-6)


def test_too_many_scores_are_refused_before_memory_is_used_up() -> None:
    network = dense((np.zeros((1000, 1)), np.zeros(1000)))
    with pytest.raises(InputError, match="choose property"):
        odds_network(network, [(k, 0.5) for k in range(1000)])


def ratios(network: Network, x0: np.ndarray, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        f, start = (network.forward(torch.from_numpy(v)).numpy() for v in (x, x0[None]))
    size = np.abs(x - x0).reshape(len(x), -1).max(axis=1)
    return np.asarray(np.abs(f - start).max(axis=1) / size)


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
@pytest.mark.parametrize("seed", range(6))
def test_no_ratio_exceeds_the_bound_of_the_jacobian(seed: int, kind: str) -> None:
    network = lower(load_model(random_model(seed, kind=kind, activations=ACTIVATIONS, classes=3)))
    rng = np.random.default_rng(seed)
    x0 = np.where(rng.random(network.input_shape) < 0.3, 0.0, rng.random(network.input_shape))
    for radius in (0.2, 0.01, 1e-4):
        low, high = np.clip(x0 - radius, 0, 1), np.clip(x0 + radius, 0, 1)
        x = np.where(rng.random((400, *x0.shape)) < 0.5, low, high)
        x[::2] = low + (high - low) * rng.random(x[::2].shape)
        # towards the corner that the gradient points at, which attains it where the network is linear
        leaf = torch.from_numpy(x0.copy()).requires_grad_()
        for k in range(3):
            (g,) = torch.autograd.grad(network.forward(leaf[None])[0, k], leaf)
            for i, s in enumerate((1, -1)):
                x[2 * k + i] = np.where(s * g.numpy() > 0, high, low)
        found = ratios(network, x0, x)
        bound = lipschitz_bound(network, x0, low, high)
        assert found.max() <= bound * (1 + 1e-9)
        pooled = any(isinstance(op, MaxPool) for op in network.ops)
        smooth = any(isinstance(op, Smooth) for op in network.ops)
        if radius == 1e-4 and not pooled and not smooth:
            assert bound <= 1.6 * found.max()


def test_a_linear_network_has_its_own_norm_and_the_domain_counts() -> None:
    network = dense(([[1.0, -2.0], [0.5, 0.5]], [0.0, 0.0]))
    inside, corner = np.array([0.5, 0.5]), np.array([0.0, 0.0])
    assert lipschitz_bound(network, inside, inside - 0.1, inside + 0.1) == pytest.approx(3.0)
    # both inputs can only grow: the first output by 1 or down by 2
    assert lipschitz_bound(network, corner, corner, corner + 0.1) == pytest.approx(2.0)
    assert lipschitz_bound(dense((np.zeros((2, 2)), [1.0, 0.0])), corner, corner, corner + 1) == 0.0


def test_what_is_no_number_proves_nothing() -> None:
    network = dense(([[1.0, -2.0], [0.5, 0.5]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    x0 = np.array([0.5, 0.5])
    low, high = x0 - 0.1, x0 + 0.1
    known = compute_bounds(network, low, high)
    assert math.isfinite(lipschitz_bound(network, x0, low, high, known))
    (name,) = known.pre
    l, u = known.pre[name]
    for ends in ((torch.full_like(l, math.nan), u), (l, torch.full_like(u, math.nan))):
        # a unit of which nothing is known has all slopes of its function
        all_slopes = replace(known, pre={name: (-torch.full_like(l, 1e9), torch.full_like(u, 1e9))})
        assert lipschitz_bound(network, x0, low, high, replace(known, pre={name: ends})) >= lipschitz_bound(
            network, x0, low, high, all_slopes
        )
    smooth = lower(load_model(random_model(0, activations=("Tanh",), classes=3)))
    inside = np.full(smooth.input_shape, 0.5)
    whole = compute_bounds(smooth, inside - 0.1, inside + 0.1)
    broken = replace(whole, pre={n: (l * math.nan, u) for n, (l, u) in whole.pre.items()})
    assert lipschitz_bound(smooth, inside, inside - 0.1, inside + 0.1, broken) == math.inf


def test_an_operator_without_slopes_has_no_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    network = dense(([[1.0, -2.0], [0.5, 0.5]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    x0 = np.array([0.5, 0.5])
    monkeypatch.setattr(Relu, "unsupported", {"slopes": "declared for this test"})
    assert lipschitz_bound(network, x0, x0 - 0.1, x0 + 0.1) == math.inf
