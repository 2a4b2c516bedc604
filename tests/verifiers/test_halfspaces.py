"""Bounds at the points where a target is reached hold there, and nowhere else are they needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.passes.fold import fold
from onnxsub.propagate import compute_bounds
from onnxsub.propagate.halfspace import cut_minimum
from onnxsub.verifiers.box.halfspaces import tighten
from tests.random_models import PIECEWISE
from tests.verifiers.nets import UNIT, anchor, logits, random_network


@pytest.mark.parametrize("seed", range(20))
def test_half_space_minimum_is_the_optimum_of_the_linear_program(seed: int) -> None:
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    n = 6
    lower, upper = -rng.random(n), rng.random(n)
    a, c = rng.normal(size=(4, n)), rng.normal(size=n)
    k = 0.6 * np.abs(c) @ (upper - lower) / 2 * rng.uniform(-1, 1) - c @ (lower + upper) / 2
    zero = torch.zeros((1, 4), dtype=torch.float64)
    box = (torch.tensor(lower)[None], torch.tensor(upper)[None])
    found = cut_minimum(torch.tensor(a)[None], zero, torch.tensor(c)[None], torch.tensor([k]), *box)[0]
    for row, value in zip(a, found.tolist(), strict=True):
        best = linprog(row, A_ub=[-c], b_ub=[k], bounds=list(zip(lower, upper, strict=True)), method="highs")
        assert best.status == 0
        assert value <= best.fun + 1e-9
        assert value >= best.fun - 1e-3 * (1 + abs(best.fun))


@pytest.mark.parametrize("seed", range(24))
def test_reached_points_lie_inside(seed: int) -> None:
    network = random_network(seed, activations=PIECEWISE)
    x0, label = anchor(network, seed)
    rng = np.random.default_rng(seed)
    lower, upper = UNIT.ball(x0, 0.3)
    bounds = compute_bounds(network, lower, upper, "crown")
    folded = fold(network, bounds)
    bounds = compute_bounds(folded, lower, upper, "crown")
    samples = rng.uniform(lower, upper, (4000, *x0.shape))
    corners = np.where(rng.random((2000, *x0.shape)) < 0.5, lower, upper)
    points = np.concatenate([samples, corners])
    values = folded.values(torch.tensor(points))
    f = logits(folded)(points)
    for t in range(network.classes):
        if t == label:
            continue
        reached = f[:, t] >= f[:, label]
        found = tighten(folded, bounds, t, label, 1e-9)
        if found is None:
            assert not reached.any()
            continue
        x = torch.tensor(points[reached])
        assert (x >= found.lower - 1e-12).all()
        assert (x <= found.upper + 1e-12).all()
        assert (f[reached, t] - f[reached, label] <= found.margin).all()
        for op in folded.nonlinear:
            z = values[op.inputs[0]][torch.tensor(reached)].flatten(1)
            l, u = found.pre[op.output]
            assert (z >= l - 1e-9).all()
            assert (z <= u + 1e-9).all()


def test_never_looser_than_what_it_was_given() -> None:
    network = random_network(5, kind="dense")
    x0, label = anchor(network, 5)
    bounds = compute_bounds(network, *UNIT.ball(x0, 0.5), "crown")
    for t in range(network.classes):
        found = None if t == label else tighten(network, bounds, t, label, 1e-9)
        if found is None:
            continue
        for name, (l, u) in found.pre.items():
            before = bounds.arrays(name)
            assert (l.numpy() >= before[0]).all()
            assert (u.numpy() <= before[1]).all()
