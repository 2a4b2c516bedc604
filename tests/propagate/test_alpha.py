"""alpha-CROWN: sound for every slope, never worse than CROWN, better where slopes matter, and within its memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Activation
from onnxsub.propagate import Coefficients, compute_bounds, pull_back
from onnxsub.propagate.alpha import optimised_minimum
from tests.handmade import Net
from tests.random_dags import random_dag
from tests.random_models import ACTIVATIONS, PIECEWISE, random_model


def setting(seed: int, **kwargs: object) -> tuple[Network, np.ndarray, np.ndarray]:
    network = lower(load_model(random_model(seed, **{"activations": ACTIVATIONS, **kwargs})))  # type: ignore[arg-type]
    x0 = np.random.default_rng(seed).random(network.input_shape)
    return network, np.maximum(x0 - 0.15, 0), np.minimum(x0 + 0.15, 1)


def sampled(network: Network, low: np.ndarray, high: np.ndarray) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    shape = (300, *low.shape)
    x = np.concatenate([rng.uniform(low, high, shape), np.where(rng.random(shape) < 0.5, low, high)])
    with torch.no_grad():
        return network.values(torch.as_tensor(x))


@pytest.mark.parametrize("seed", range(5))
def test_any_slope_is_sound(seed: int) -> None:
    network, low, high = setting(seed, activations=PIECEWISE)
    values = sampled(network, low, high)
    base = compute_bounds(network, low, high, "crown")
    generator = torch.Generator().manual_seed(seed)
    for _ in range(4):
        relaxations = dict(base.relaxations)
        for op in network.nonlinear:
            if isinstance(op, Activation) and op.takes_alpha:
                l, u = base.pre[op.output]
                relaxations[op.output] = op.relax(l, u, "crown", torch.rand(l.shape, generator=generator, dtype=l.dtype))
        for tensor in {op.inputs[0] for op in network.nonlinear} | {network.output}:
            shape = network.shapes[tensor]
            size = int(np.prod(shape))
            rows = torch.eye(size, dtype=torch.float64).reshape(1, size, *shape)
            bound = pull_back(network, tensor, Coefficients(rows), relaxations).minimum(base.lower, base.upper)
            assert (values[tensor].flatten(1) >= bound - 1e-9).all()


def test_slopes_are_found_that_neither_zero_nor_one_give() -> None:
    # y = relu(x) + relu(-x) - x / 2 on [-1, 1.2], at least 0: CROWN takes relu(x) >= x and relu(-x) >= 0, so x / 2
    n = Net(1)
    z = n.node("Gemm", ["x", n.weight([[1.0, -1.0]]), n.weight([0.0, 0.0])])
    h = n.node("Concat", [n.node("Relu", [z]), "x"], axis=1)
    y = n.node("Gemm", [h, n.weight([[1.0, 0.0], [1.0, 0.0], [-0.5, 1.0]]), n.weight([0.0, 0.0])])
    network = lower(load_model(n.model(y, 2)))
    low, high = np.array([-1.0]), np.array([1.2])
    crown, alpha = (compute_bounds(network, low, high, m, steps=200).output[0][0, 0].item() for m in ("crown", "alpha-crown"))
    assert crown == pytest.approx(-0.5)
    assert -1e-3 <= alpha <= 0.0


@pytest.mark.parametrize("seed", range(6))
def test_never_worse_than_crown_and_sound(seed: int) -> None:
    network = lower(load_model(random_dag(seed + 100)))
    x0 = np.random.default_rng(seed).random(network.input_shape)
    low, high = np.maximum(x0 - 0.2, 0), np.minimum(x0 + 0.2, 1)
    values = sampled(network, low, high)
    crown, alpha = (compute_bounds(network, low, high, m, steps=10) for m in ("crown", "alpha-crown"))
    for op in network.nonlinear:
        (l, u), (wide_l, wide_u) = alpha.pre[op.output], crown.pre[op.output]
        z = values[op.inputs[0]]
        assert (z >= l).all()
        assert (z <= u).all()
        assert (l >= wide_l - 1e-9).all()
        assert (u <= wide_u + 1e-9).all()
    logits = values[network.output].flatten(1)
    assert (logits >= alpha.output[0]).all()
    assert (logits <= alpha.output[1]).all()


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_small_memory_gives_the_same(kind: str) -> None:
    network, low, high = setting(4, kind=kind)
    whole, pieces = (compute_bounds(network, low, high, "alpha-crown", steps=4, memory=m) for m in (2**28, 1))
    for op in network.nonlinear:
        for a, b in zip(whole.pre[op.output], pieces.pre[op.output], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_several_boxes() -> None:
    network, low, high = setting(2, kind="conv")
    lows, highs = np.stack([low, np.maximum(low - 0.1, 0)]), np.stack([high, high])
    found = compute_bounds(network, lows, highs, "alpha-crown", steps=3)
    for i in range(2):
        values = sampled(network, lows[i], highs[i])
        for op in network.nonlinear:
            l, u = found.pre[op.output]
            assert (values[op.inputs[0]] >= l[i]).all()
            assert (values[op.inputs[0]] <= u[i]).all()
    start = Coefficients(torch.eye(network.classes, dtype=torch.float64).unsqueeze(0))
    least = optimised_minimum(network, network.output, start, found.pre, found.relaxations, found.lower, found.upper, steps=3)
    assert least.shape == (2, network.classes)
    for i in range(2):
        assert (sampled(network, lows[i], highs[i])[network.output] >= least[i]).all()
