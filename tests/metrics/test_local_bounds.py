"""What the decisions rest on: lines of the convex units, scores as networks, and the Jacobian of a box."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from onnxsub.errors import InputError, UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.metrics.local.convex import Convex, Odds, Square
from onnxsub.metrics.local.jacobian import lipschitz_bound
from onnxsub.metrics.local.scores import log_odds, odds_network, scores
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.maxpool import MaxPool
from onnxsub.ops.smooth import Smooth
from tests.random_models import ACTIVATIONS, random_model
from tests.verifiers.nets import dense

SHAPE = {"in_shapes": ((400,),), "out_shape": (400,)}
UNITS: list[Convex] = [kind(op_type="T", node="t", inputs=("x",), output="y", **SHAPE) for kind in (Odds, Square)]  # type: ignore[arg-type]


def boxes() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(1, 400)) * rng.choice([0.1, 3.0, 60.0], size=(1, 400))
    width = np.abs(rng.normal(size=(1, 400))) * rng.choice([0.0, 1e-9, 1e-3, 1.0, 40.0], size=(1, 400))
    return torch.from_numpy(centre - width), torch.from_numpy(centre + width)


@pytest.mark.parametrize("mode", ["crown", "fastlin"])
@pytest.mark.parametrize("op", UNITS, ids=lambda op: type(op).__name__)
def test_lines_and_intervals_contain_the_function(op: Convex, mode: str) -> None:
    low, high = boxes()
    lines, (bottom, top) = op.relax(low, high, mode), op.interval((low, high))
    for share in torch.linspace(0, 1, 21, dtype=torch.float64):
        z = low + share * (high - low)
        value = op.forward(z)
        assert (lines.lower_slope * z + lines.lower_offset <= value).all()
        assert (lines.upper_slope * z + lines.upper_offset >= value).all()
        assert ((bottom <= value) & (value <= top)).all()
    # the chord touches both ends
    gap = lines.upper_slope * high + lines.upper_offset - op.forward(high)
    assert (gap <= 1e-9 * (1 + op.forward(high).abs() + high.abs() * lines.upper_slope.abs())).all()


@pytest.mark.parametrize("op", UNITS, ids=lambda op: type(op).__name__)
def test_slopes_are_those_of_the_function(op: Convex) -> None:
    z = torch.linspace(-3, 3, 400, dtype=torch.float64).reshape(1, -1).requires_grad_()
    (gradient,) = torch.autograd.grad(op.forward(z).sum(), z)
    assert torch.allclose(op.derivative(z), gradient)
    slope, offset = op.tangent(z)
    assert torch.allclose(slope * z + offset, op.forward(z))
    with pytest.raises(UnsupportedOperatorError, match="bab"):
        op.encode_units(None, None, np.zeros(1), np.ones(1))  # type: ignore[arg-type]


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
