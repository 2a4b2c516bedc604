"""Binaries that a row makes needless: the program without them has the same optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.passes.unpool import without_windows
from onnxsub.propagate import compute_bounds
from onnxsub.verifiers.box.one_sided import pulled_down, switched_units
from onnxsub.verifiers.programs.encode import encode_network
from onnxsub.verifiers.programs.solvers import SOLVERS, SolverOptions
from tests.handmade import Net


def network_of(seed: int, kind: str) -> Network:
    n = Net(5, seed=seed)
    if kind == "max":
        h = n.node("Max", [n.gemm("x", 5, 6) for _ in range(4)])
        h = n.node("Relu", [n.gemm(h, 6, 4)])
        return lower(load_model(n.model(n.gemm(h, 4, 3), 3)))
    h = n.node("Relu", [n.gemm("x", 5, 6)])
    if kind == "tree":
        m = n.node("Max", [n.gemm("x", 5, 6) for _ in range(4)])
        return without_windows(lower(load_model(n.model(n.gemm(m, 6, 3), 3))))
    return lower(load_model(n.model(n.gemm(n.node("Relu", [n.gemm(h, 6, 5)]), 5, 3), 3)))


@pytest.mark.parametrize("kind", ["relu", "max", "tree"])
@pytest.mark.parametrize("seed", range(6))
def test_the_optimum_is_the_same_without_them(kind: str, seed: int) -> None:
    network = network_of(seed, kind)
    x0 = np.random.default_rng(seed).random(5)
    low, high = x0 - 0.3, x0 + 0.3
    bounds = compute_bounds(network, low, high, "crown")
    intervals = {name: bounds.arrays(name) for name in bounds.pre}
    encoding = encode_network(network, x0, low, high, intervals)
    row = np.eye(3)[seed % 3]
    mask = pulled_down(network, row, intervals)
    expression = -encoding.logits.take(np.array([seed % 3]))
    exact = encoding.model.problem(expression)
    eased = encoding.model.problem(expression)
    dropped = 0
    for op in network.nonlinear:
        columns, units = encoding.switches[op.output], switched_units(op, *intervals[op.output])  # type: ignore[arg-type]
        assert len(columns) == len(units)
        eased.integer[columns[mask[op.output][units]]] = False
        dropped += int(mask[op.output][units].sum())
    solver = SOLVERS["highs"]
    found = [solver.solve(p, SolverOptions()).objective for p in (exact, eased)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    if kind == "tree":
        assert dropped > 0
        # whole trees: every Relu of a window that the row pulls down
        best = network.producers[network.output]
        assert best.out_size == 3


def test_no_sign_is_assumed() -> None:
    network = network_of(0, "relu")
    bounds = compute_bounds(network, np.zeros(5), np.ones(5), "ibp")
    intervals = {name: bounds.arrays(name) for name in bounds.pre}
    last = network.activations[-1]
    mask = pulled_down(network, np.array([1.0, 0.0, 0.0]), intervals)[last.output]
    x = torch.rand(3, 5, dtype=torch.float64).requires_grad_()
    values = network.values(x)
    grad = torch.autograd.grad(values[network.output][:, 0].sum(), values[last.output])[0]
    np.testing.assert_array_equal(mask, (grad[0] <= 0).numpy())
