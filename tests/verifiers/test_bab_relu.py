"""Networks of Relus as matrices: every closed form against what goes through operators and graphs, by torch and compiled."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.geometry import halfspace_radius
from onnxsub.propagate.halfspace import cut_minimum
from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.branch import choose
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.line import Line, farthest
from onnxsub.verifiers.bab.narrow import cut_box, narrowed
from onnxsub.verifiers.bab.nodes import Nodes
from onnxsub.verifiers.bab.relu import kernels
from onnxsub.verifiers.bab.relu.bounder import ReluBounder
from onnxsub.verifiers.bab.relu.cut import Halved
from onnxsub.verifiers.bab.relu.lines import Pulled
from onnxsub.verifiers.bab.relu.matrices import matrices_of
from onnxsub.verifiers.bab.relu.nearest import reached
from tests.verifiers.bab_tools import Sample, check_nodes, frame_of, random_multipliers, random_split
from tests.verifiers.nets import anchor, dense, random_network

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
@pytest.mark.parametrize("size", [1e-30, 1e25, 1e31, 1e37])
def test_a_distance_is_not_endless_because_it_is_large(size: float) -> None:
    c, k, low, high = lines(0, torch.float64)
    expected = halfspace_radius(c, k, low, high)
    found = reached((c / size, k), (size * low, size * high), 0.25 * size)
    assert bool((found.radius.isinf() == expected.isinf()).all())
    held = expected.isfinite()
    torch.testing.assert_close(found.radius[held] / size, expected[held], rtol=0, atol=1e-12)


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


def both_ways(frame: Frame | None) -> tuple[Bounder, ReluBounder]:
    """What bounds by operators and what bounds by matrices."""
    assert frame is not None
    m = matrices_of(frame)
    assert m is not None
    return Bounder(frame), ReluBounder(frame, m)


def split_at_zero(nodes: Nodes, rng: np.random.Generator) -> Nodes:
    """Both children of the split of an open unit per node, as a tree makes it; nodes without one are left out."""
    picked = []
    for i in range(len(nodes)):
        pairs = ((lower[i].flatten(), upper[i].flatten()) for lower, upper in zip(nodes.lower, nodes.upper, strict=True))
        places = [(k, int(j)) for k, (l, u) in enumerate(pairs) for j in torch.nonzero((l < 0) & (u > 0))[:, 0]]
        if places:
            picked.append((i, *places[int(rng.integers(len(places)))]))
    rows, layer, unit = torch.tensor(picked, dtype=torch.long).reshape(-1, 3).T
    return nodes.take(rows).children(layer, unit, torch.zeros(len(rows), dtype=torch.float64))


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(("kind", "seed", "fold"), KINDS)
def test_nodes_by_matrices_are_those_by_operators(kind: str, seed: int, fold: str) -> None:
    network = random_network(seed, kind=kind)
    x0, label = anchor(network, seed)
    by_operators, by_matrices = both_ways(frame_of(network, x0, label, 0.4, tight=True, fold=fold))
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
        some = a.nodes.radius.isfinite()  # of a node without any point anything may be said
        for name in ("lower", "upper"):
            ends = (getattr(x, name) for x in (right, left, a.nodes))
            for one, other, whole, l, u in zip(*ends, a.nodes.lower, a.nodes.upper, strict=True):
                # units that are closed are left as they are
                moved = ((l < 0) & (u > 0))[some]
                sign = -1 if name == "lower" else 1
                lost, won = (sign * (one - other))[some][moved].clamp(min=0), (sign * (whole - other))[some][moved]
                assert float(lost.sum()) <= 0.02 * float(won.sum()) + 1e-6
        splits = choose(by_matrices, b, 0.4, 8)
        assert bool((splits.layer >= -1).all())
        nodes = split_at_zero(b.nodes, rng)
        nodes = nodes.take(torch.as_tensor(rng.permutation(len(nodes))[:6]))


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(("kind", "seed"), [("dense", 9), ("dense", 16), ("conv", 10), ("residual", 3)])
def test_every_node_keeps_its_points(kind: str, seed: int) -> None:
    """Splits anywhere, also of units that are closed on the whole frame, multipliers of all sizes, narrowed twice."""
    network = random_network(seed, kind=kind, activations=("Relu",))
    x0, label = anchor(network, seed)
    _, bounder = both_ways(frame_of(network, x0, label, 0.4, tight=False, fold="never"))
    sample = Sample.of(bounder.frame, seed)
    rng = np.random.default_rng(seed)
    nodes, seen = bounder.roots(), 0
    for steps in (0, 4, 0, 4):
        found = bounder.bound(random_multipliers(nodes, rng), steps, 0.4)
        seen += check_nodes(bounder.frame, found.nodes, sample, found)
        nodes = narrowed(bounder, found.nodes, found.line)
        seen += check_nodes(bounder.frame, nodes, sample)
        nodes = random_split(bounder, nodes, rng)
        nodes = nodes.take(torch.as_tensor(rng.permutation(len(nodes))[:10]))
    assert seen > 100


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("power", [-900, -130, -60, -3, 3, 60, 130, 400])
def test_scales_of_hidden_layers_do_not_matter(power: int) -> None:
    """Powers of two, up to where float32 overflows and float64 nearly does."""
    rng = np.random.default_rng(7)
    sizes = ((12, 5), (10, 12), (3, 10))
    layers = [(rng.normal(size=s) / np.sqrt(s[1]), 0.2 * rng.normal(size=s[0])) for s in sizes]
    scale = 2.0**power
    moved = [(layers[0][0] * scale, layers[0][1] * scale), (layers[1][0] / scale, layers[1][1]), layers[2]]
    plain, scaled = dense(*layers), dense(*moved)
    x0, label = anchor(plain, 1)
    a, b = (both_ways(frame_of(n, x0, label, 0.4, tight=False, fold="never"))[1] for n in (plain, scaled))
    found = [x.bound(x.roots(), steps, 0.4) for steps in (0, 5) for x in (a, b)]
    torch.testing.assert_close(found[1].line.c, found[0].line.c, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1].nodes.radius, found[0].nodes.radius, rtol=1e-9, atol=1e-9)
    if abs(power) <= 60:  # what float32 holds
        torch.testing.assert_close(found[3].nodes.radius, found[2].nodes.radius, rtol=1e-4, atol=1e-6)
    assert bool((found[3].nodes.radius >= found[1].nodes.radius - 1e-9).all())
    sample = Sample.of(b.frame, 0)
    nodes, seen = found[3].nodes, 0
    line = found[3].line
    for _ in range(3):
        nodes = narrowed(b, nodes, line)
        seen += check_nodes(b.frame, nodes, sample)
        nodes = split_at_zero(nodes, rng)
        again = b.bound(nodes, 3, 0.4)
        nodes, line = again.nodes, again.line
        seen += check_nodes(b.frame, nodes, sample, again)
    assert seen > 100


@pytest.mark.usefixtures("loops")
def test_lines_that_overflow_prove_nothing() -> None:
    c = torch.full((4, 3), 1e308, dtype=torch.float64)
    c[1, 0], c[2] = torch.nan, torch.inf
    k = torch.tensor([-1e308, -1.0, -1.0, torch.nan], dtype=torch.float64)
    low, high = -torch.ones(4, 3, dtype=torch.float64), torch.ones(4, 3, dtype=torch.float64)
    network = dense((np.eye(3), -0.5 * np.ones(3)), (np.eye(3), np.zeros(3)))
    _, bounder = both_ways(frame_of(network, np.array([0.6, 0.5, 0.4], dtype=np.float32), 0, 0.3, tight=False, fold="never"))
    nodes = bounder.roots()
    nodes = replace(nodes.take(torch.zeros(4, dtype=torch.long)), low=low, high=high)
    line, radius, point = bounder._claims(nodes, Pulled(c, k, c, c))
    assert radius.tolist() == [0.0] * 4
    assert bool(point.isfinite().all())
    rows = torch.full((4, 2, 3), 1e308, dtype=torch.float64)
    rows[0, 1], rows[3, 0, 0] = torch.inf, torch.nan
    found = Halved(line.c, line.k, low, high).minimum(rows, torch.zeros(4, 2, dtype=torch.float64))
    assert bool((found <= -1e308).all())


def test_loops_are_compiled_also_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = pytest.importorskip("onnxsub.verifiers.bab.relu.compiled")
    plain = compiled.njit

    def nowhere(function: Callable[..., None], *, cache: bool = False, **options: Any) -> Callable[..., None]:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return plain(function, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(compiled, "njit", nowhere)
    out = np.zeros(3)

    def doubled(a: Any, out: Any) -> None:
        for i in range(len(a)):
            out[i] = 2 * a[i]

    compiled.kept(doubled)(np.arange(3.0), out)
    assert out.tolist() == [0.0, 2.0, 4.0]


def test_torch_serves_where_numba_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("Numba needs NumPy 2.3 or less")

    for name, value in (("absent", False), ("modules", {}), ("ready", set()), ("gone", 0)):
        monkeypatch.setattr(kernels._Loops, name, value)
    monkeypatch.setattr(kernels, "_PAYS", 0)
    monkeypatch.setattr(kernels.importlib, "import_module", broken)
    c, k, low, high = lines(0, torch.float64)
    found = reached((c, k), (low, high), 0.25)
    torch.testing.assert_close(found.radius, halfspace_radius(c, k, low, high), rtol=0, atol=1e-12)
    assert kernels._Loops.absent
