"""A frontier ordered by values: its top falls, stays above every point, and rises never; levels and caps keep to that."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from onnxsub.network import Network
from onnxsub.properties import Clause, as_margin_network
from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.bab.order import BEYOND, ByDistance, ByValue, lowered
from onnxsub.verifiers.box.model import Box, BoxModel, Building, Rows
from onnxsub.verifiers.options import BabOptions
from tests.verifiers.nets import UNIT, anchor, random_network

EPS = 0.2


def values_of(network: Network, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network.forward(torch.as_tensor(x))[:, 0].numpy()


def case(seed: int, kind: str) -> tuple[Frontier, float]:
    """A frontier over the ball of an anchor, and the best value of many points; values below 0 are of no interest."""
    network = random_network(seed, kind=kind, classes=3, activations=("Relu",))
    x0, label = anchor(network, seed)
    x0 = x0.astype(np.float64)
    low, high = UNIT.ball(x0, EPS)
    rng = np.random.default_rng(seed)
    points = np.concatenate([
        rng.uniform(low, high, (4000, *x0.shape)), np.where(rng.random((4000, *x0.shape)) < 0.5, low, high),
    ])  # fmt: skip
    row = np.zeros((1, 3))
    row[0, label], row[0, (label + 1) % 3] = 1.0, -1.0
    plain = as_margin_network(network, Clause(row, np.zeros(1), np.zeros(1, dtype=bool)))
    base = float(np.quantile(values_of(plain, points), 0.9))
    above = as_margin_network(network, Clause(row, np.array([-base]), np.zeros(1, dtype=bool)))
    local = BoxModel.over(Rows(above, 1), Box(x0, low, high, EPS), Building())
    model = local.clause(0)
    assert model is not None
    options = BabOptions(batch=4, steps=2, root_steps=2)
    best = float(values_of(above, points).max())
    assert best > 0
    return Frontier(Frame.of([model], whole=True), options, 0.0, ByValue()), best


def top(tree: Frontier) -> float:
    (lower,) = tree.lowers().values()
    return -lower


@pytest.mark.parametrize("full", [False, True], ids=["heap", "memory used up"])
@pytest.mark.parametrize(("seed", "kind"), [(2, "conv"), (3, "dense"), (1, "residual")])
def test_the_top_falls_and_stays_above_every_point(seed: int, kind: str, full: bool) -> None:
    tree, best = case(seed, kind)
    assert math.isinf(top(tree))
    seen: list[int] = []
    tree.start()
    tops = [top(tree)]
    if full:
        tree.bytes = tree.options.memory
    for _ in range(8):
        if not tree.open:
            break
        tree.step(lambda points: seen.append(len(points)))
        tops.append(top(tree))
        assert tops[-1] >= best
    assert all(b <= a for a, b in pairwise(tops))
    assert tops[-1] < tops[0] or len(tops) == 1
    assert sum(seen) <= tree.visited
    tree.shrink(-best / 2)
    assert top(tree) >= best
    tree.raise_target(0, -best)
    assert top(tree) == best
    tree.shrink(-2 * best)
    assert top(tree) == 2 * best  # nothing lies above a level that no point has
    assert not tree.open or tree.lower == tree.close


@pytest.mark.parametrize("seed", range(3))
def test_a_level_that_rises_closes_what_lies_below_it(seed: int) -> None:
    tree, best = case(seed, "dense")
    tree.start()
    for share in (0.2, 0.5, 0.9, 0.99):
        tree.shrink(-share * best)
        assert tree.close == -share * best
        for _ in range(3):
            if tree.open:
                tree.step(lambda points: None)
            assert top(tree) >= best
    tree.shrink(-0.5 * best)  # a level that falls is none
    assert tree.close == -0.99 * best
    while tree.open and tree.visited < 4000:
        tree.step(lambda points: None)
    assert top(tree) >= best
    assert all(w.key < 0 for w in tree.all_open())


def test_an_interrupted_step_loses_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, best = case(2, "conv")
    tree.start()
    tree.step(lambda points: None)
    original = Bounder.bound
    for _ in range(3):
        before = top(tree)

        def interrupt(*args: Any, **options: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Bounder, "bound", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tree.step(lambda points: None)
        monkeypatch.setattr(Bounder, "bound", original)
        assert top(tree) == before
        for _ in range(3):
            tree.step(lambda points: None)
            assert best <= top(tree) <= before


def test_a_line_that_is_no_number_says_what_the_parent_says() -> None:
    tree, _ = case(3, "dense")
    found = tree.bounder.bound(tree.bounder.roots(), 0, EPS * BEYOND)
    order, parent = ByValue(), torch.tensor([-7.0], dtype=torch.float64)
    whole = order.keys(found, torch.tensor([-math.inf], dtype=torch.float64), 0.0)
    assert torch.isfinite(whole).all()
    assert torch.equal(order.keys(found, whole + 1, 0.0), whole + 1)  # never below the parent's
    broken = replace(found, line=replace(found.line, k=found.line.k * torch.nan))
    assert torch.equal(order.keys(broken, parent, 0.0), parent)
    endless = replace(found, line=replace(found.line, k=found.line.k * torch.inf + torch.inf))
    assert torch.equal(order.keys(endless, parent, 0.0), parent)
    assert order.nothing == -math.inf


def test_the_point_of_a_node_is_where_its_line_is_largest() -> None:
    tree, _ = case(3, "dense")
    found = tree.bounder.bound(tree.bounder.roots(), 3, EPS * BEYOND)
    point = ByValue().point(found)
    nodes, line = found.nodes, found.line
    assert ((nodes.low <= point) & (point <= nodes.high)).all()
    largest = (line.c * point).sum(1) + line.k
    assert torch.allclose(-ByValue().keys(found, torch.full((1,), -math.inf, dtype=torch.float64), 0.0), largest)
    for _ in range(20):
        other = nodes.low + (nodes.high - nodes.low) * torch.rand_like(nodes.low)
        assert ((line.c * other).sum(1) + line.k <= largest + 1e-12).all()


def test_a_level_is_taken_off_the_value_and_not_off_the_zero() -> None:
    tree, _ = case(3, "dense")
    network = tree.frame.network
    x = torch.rand((20, *network.input_shape), dtype=torch.float64)
    assert lowered(network, 0.0) is network
    with torch.no_grad():
        f, g = network.forward(x), lowered(network, 0.75).forward(x)
    assert torch.equal(g[:, 0], f[:, 0] - 0.75)
    assert not g[:, 1].any()


def test_distances_are_ordered_by_the_radius() -> None:
    tree, _ = case(3, "dense")
    order = ByDistance()
    found = tree.bounder.bound(tree.bounder.roots(), 3, 0.1)
    assert order.nothing == 0.0
    assert order.radius(tree.frame, 0.1) == 0.1
    assert torch.equal(order.keys(found, found.nodes.radius, 0.1), found.nodes.radius)
    assert torch.equal(order.point(found), found.point)
    assert ByValue().radius(tree.frame, 0.1) == EPS * BEYOND
