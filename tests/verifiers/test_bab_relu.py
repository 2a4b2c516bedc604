"""Networks of Relus as matrices: every closed form against what goes through operators and graphs, by torch and compiled."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.geometry import halfspace_radius
from onnxsub.propagate.halfspace import cut_minimum
from onnxsub.verifiers.bab.bound import Bounder, Line, farthest
from onnxsub.verifiers.bab.branch import choose
from onnxsub.verifiers.bab.narrow import cut_box, narrowed
from onnxsub.verifiers.bab.relu import kernels
from onnxsub.verifiers.bab.relu.bounder import ReluBounder
from onnxsub.verifiers.bab.relu.cut import Halved
from onnxsub.verifiers.bab.relu.matrices import matrices_of
from onnxsub.verifiers.bab.relu.nearest import reached
from tests.verifiers.bab_tools import frame_of, random_multipliers, random_split
from tests.verifiers.nets import anchor, random_network

LOOPS = ["torch", pytest.param("compiled", marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="no numba"))]


@pytest.fixture(params=LOOPS)
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way that the loops over all inputs go."""
    monkeypatch.setattr(kernels._Loops, "absent", request.param == "torch")
    monkeypatch.setattr(kernels, "_PAYS", 0)


def lines(seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Half-spaces and boxes with ties, coefficients of 0 and -0, inputs of width 0, boxes without the anchor, and void ones."""
    rng = np.random.default_rng(seed)
    c = rng.choice([0.0, -0.0, 1.0, -1.0, 0.5], (40, 13)) * rng.choice([1.0, 1e-9, 3.7], (40, 13))
    low, high = -rng.choice([0.0, 0.1, 0.3], (40, 13)), rng.choice([0.0, 0.1, 0.7], (40, 13))
    low[30:, 3] = high[30:, 3] - 0.05
    k = -np.abs(c).sum(1) * rng.choice([-0.1, 0.0, 0.05, 0.2, 5.0], 40)
    return tuple(torch.as_tensor(t, dtype=dtype) for t in (c, k, low, high))  # type: ignore[return-value]


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(4))
def test_distances_are_those_of_the_sort(seed: int, dtype: torch.dtype) -> None:
    c, k, low, high = lines(seed, dtype)
    expected = halfspace_radius(c, k, low, high)
    for begin in (None, torch.zeros_like(k), expected + 0.01, torch.full_like(k, torch.inf)):
        found = reached((c, k), (low, high), 0.25, begin=begin)
        room = 1e-12 if dtype == torch.float64 else 1e-5
        assert bool((found.radius.isinf() == expected.isinf()).all())
        torch.testing.assert_close(found.radius, expected, rtol=0, atol=room)
        point = farthest(c, low, high, found.radius.clamp(max=0.25))
        moved = c != 0
        torch.testing.assert_close(found.point[moved], point[moved], rtol=0, atol=room)
        torch.testing.assert_close(found.value, k + (c * point).sum(1), rtol=0, atol=100 * room)


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("seed", range(4))
def test_cut_minima_are_sound_and_as_good_as_those_of_a_bisection(seed: int) -> None:
    c, k, low, high = lines(seed, torch.float64)
    rng = np.random.default_rng(seed)
    a, b = torch.as_tensor(rng.normal(size=(40, 5, 13))), torch.as_tensor(rng.normal(size=(40, 5)))
    a[:, 0], a[:, 1] = c, 0.0
    points = torch.as_tensor(rng.random((200, 40, 13))).round(decimals=0) * (high - low) + low
    inside = (points * c).sum(2) + k >= 0
    for sign in (1.0, -1.0):
        found = Halved(c, k, low, high).minimum(a, b, sign)
        values = sign * (torch.einsum("brn,pbn->pbr", a, points) + b)
        assert bool((values >= found - 1e-12)[inside].all())
        expected = cut_minimum(sign * a, sign * b, c, k, low, high)
        plain = cut_minimum(sign * a, sign * b, torch.zeros_like(c), torch.ones_like(k), low, high)
        reachable = ((c.abs() * torch.where(c > 0, high, -low)).sum(1) + k) > 0
        gain, before = (found - plain)[reachable].sum(), (expected - plain)[reachable].sum()
        assert float(gain) > 0.98 * float(before) - 1e-9


def test_boxes_are_cut_where_coefficients_are_no_more_than_a_sign() -> None:
    c, k, low, high = lines(0, torch.float64)
    cut = cut_box(low, high, Line(c, k))
    still = c == 0
    assert bool((cut[0][still] == low[still]).all())
    assert bool((cut[1][still] == high[still]).all())


KINDS = [("dense", 16, "auto"), ("dense", 9, "never"), ("conv", 10, "never"), ("conv", 13, "auto")]


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(("kind", "seed", "fold"), KINDS)
def test_nodes_by_matrices_are_those_by_operators(kind: str, seed: int, fold: str) -> None:
    network = random_network(seed, kind=kind)
    x0, label = anchor(network, seed)
    frame = frame_of(network, x0, label, 0.4, tight=True, fold=fold)
    assert frame is not None
    m = matrices_of(frame)
    assert m is not None
    by_operators, by_matrices = Bounder(frame), ReluBounder(frame, m)
    rng = np.random.default_rng(seed)
    nodes = by_operators.roots()
    for _ in range(3):
        nodes = random_multipliers(nodes, rng)
        a, b = (x.bound(nodes, 0, 0.4) for x in (by_operators, by_matrices))
        torch.testing.assert_close(b.line.c, a.line.c, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(b.line.k, a.line.k, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(b.nodes.radius, a.nodes.radius, rtol=1e-7, atol=1e-7)
        for one, other, lower, upper in zip(b.seen, a.seen, nodes.lower, nodes.upper, strict=True):
            open_ = (lower < 0) & (upper > 0)
            torch.testing.assert_close(one[open_], other[open_], rtol=1e-9, atol=1e-9)
        # the gradient in closed form leads where the graph's does
        a, b = (x.bound(nodes, 6, 0.4) for x in (by_operators, by_matrices))
        torch.testing.assert_close(b.nodes.radius, a.nodes.radius, rtol=0, atol=2e-3)
        left, right = (narrowed(x, a.nodes, a.line) for x in (by_operators, by_matrices))
        torch.testing.assert_close(right.low, left.low, rtol=0, atol=1e-9)
        for one, other, whole in zip(right.upper, left.upper, a.nodes.upper, strict=True):
            some = a.nodes.radius.isfinite()  # of a node without any point anything may be said
            lost, won = (one - other)[some].clamp(min=0), (whole - other)[some]
            assert float(lost.sum()) <= 0.02 * float(won.sum()) + 1e-6
        splits = choose(by_matrices, b, 0.4, 8)
        assert bool((splits.layer >= -1).all())
        nodes = random_split(by_operators, replace(b.nodes), rng)
        nodes = nodes.take(torch.as_tensor(rng.permutation(len(nodes))[:6]))
