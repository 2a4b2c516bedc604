"""What becomes of nodes of the tree of squares that are interrupted, empty or decided."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from onnxsub.budget import Budget, OutOfTime
from onnxsub.verifiers.bab.wide import tree as tree_of_squares
from onnxsub.verifiers.bab.wide.blocks import Blocks
from onnxsub.verifiers.bab.wide.decided import nearest_decided
from onnxsub.verifiers.bab.wide.group import Group
from onnxsub.verifiers.bab.wide.nodes import Node
from onnxsub.verifiers.bab.wide.steps import Pace
from onnxsub.verifiers.bab.wide.tree import WideTree

_INPUTS, _UNITS, _RADIUS = 16, 5, 0.5


def network(seed: int) -> Blocks:
    """One layer, a row that is negative at the anchor, plain intervals."""
    rng = np.random.default_rng(seed)
    A, a = rng.standard_normal((_UNITS, _INPUTS)) / 4, rng.standard_normal((1, _INPUTS)) / 4
    b, reads = 0.1 * rng.standard_normal(_UNITS), rng.standard_normal((1, _UNITS))
    half, far = np.abs(A).sum(axis=1) * _RADIUS, np.full(_INPUTS, _RADIUS)
    offset = -0.4 - reads @ np.maximum(b, 0)
    parts = (A, np.zeros((_UNITS, _UNITS)), b, a, reads, offset, b - half, b + half, -far, far)
    return Blocks(*(torch.from_numpy(p) for p in parts))


def distance(blocks: Blocks) -> float:
    """By a linear program per pattern of signs."""
    A, b, reads = blocks.A.numpy(), blocks.b.numpy(), blocks.reads[0].numpy()
    best, ball = math.inf, np.concatenate([np.eye(_INPUTS), -np.eye(_INPUTS)])
    for pattern in range(2**_UNITS):
        on = np.array([pattern >> j & 1 for j in range(_UNITS)], dtype=np.float64)
        w, k = blocks.rows[0].numpy() + (reads * on) @ A, float(blocks.offsets[0]) + float((reads * on) @ b)
        signs = 1 - 2 * on[:, None]
        left = np.concatenate([-w[None], signs * A, ball])
        left = np.concatenate([left, [[0.0]] * (1 + _UNITS) + [[-1.0]] * (2 * _INPUTS)], axis=1)
        right = np.concatenate([[k], -signs[:, 0] * b, np.zeros(2 * _INPUTS)])
        found = linprog(np.eye(_INPUTS + 1)[-1], left, right, bounds=[(-_RADIUS, _RADIUS)] * _INPUTS + [(0, None)])
        best = min(best, float(found.fun)) if found.status == 0 else best
    return best


class _Interrupted(WideTree):
    """Ctrl-C when a node is put for the n-th time, before or after that is done."""

    def __init__(self, *args: object, at: int, after: bool) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._left, self._after = at, after

    def _put(self, node: Node) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise KeyboardInterrupt
        super()._put(node)
        if self._left == 0:
            raise KeyboardInterrupt


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that roots and children stay open."""
    monkeypatch.setattr(tree_of_squares, "_ROOT", (Pace(20, 0.1, 10),))
    monkeypatch.setattr(tree_of_squares, "_LATER", (Pace(10, 0.05, 10),))
    monkeypatch.setattr(tree_of_squares, "_CHILD", Pace(5, 0.05))
    monkeypatch.setattr(tree_of_squares, "_LEVELS", 1)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("after", [False, True])
def test_an_interruption_loses_no_node(after: bool) -> None:
    blocks = network(0)
    exact = distance(blocks)
    close, reached = min(1.3 * exact, _RADIUS), 0
    for at in range(1, 13):
        tree = _Interrupted(blocks, 0, close, lambda _: close, at=at, after=after)
        try:
            tree.run(Budget(60), 200)
        except KeyboardInterrupt:
            reached += 1
        assert tree.lower <= exact * (1 + 1e-6)
    assert reached > 5


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("at", [1, 2, 3, 5, 8])
def test_what_runs_out_of_time_goes_on_with_its_own_group(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes are scaled as their group is: another group must not bound them."""
    blocks = network(0)
    exact = distance(blocks)
    close, calls, plain = min(1.3 * exact, _RADIUS), [0], WideTree._judged

    def late(tree: WideTree, nodes: list[Node], *rest: object) -> list[Node]:
        calls[0] += nodes[0].level > 0
        if nodes[0].level and calls[0] == at:
            raise OutOfTime
        return plain(tree, nodes, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(WideTree, "_judged", late)
    tree = WideTree(blocks, 0, close, lambda _: close)
    with pytest.raises(OutOfTime):
        tree.run(Budget(60), 200)
    assert tree._busy
    held = tree._group
    with contextlib.suppress(OutOfTime):
        tree.run(Budget(60), tree.nodes + 1)
    assert tree._group is held  # the nodes that were at hand come first
    tree.run(Budget(60), 200)
    assert tree.lower <= exact * (1 + 1e-6)


def test_an_empty_node_without_open_units_is_closed() -> None:
    # d0 + d1 is at least 0.3 and at most -0.2
    A, none = torch.ones((2, 2), dtype=torch.float64), torch.zeros((2, 2), dtype=torch.float64)
    ends = torch.tensor([0.3, -2.0]).double(), torch.tensor([1.0, 0.0]).double()
    far = torch.ones(2, dtype=torch.float64)
    row = torch.tensor([[1.0, 0.0]]).double()
    blocks = Blocks(A, none, torch.tensor([0.0, 0.2]).double(), 0 * row, row, torch.tensor([-0.1]).double(), *ends, -far, far)
    assert nearest_decided(Group.of(blocks, 0, *ends), 0.9, Budget(60))[0] == math.inf
    tree = WideTree(blocks, 0, 0.9, lambda _: 0.9)
    tree.run(Budget(60), 100)
    assert tree.settled


@pytest.mark.parametrize("seed", range(4))
def test_a_decided_node_has_its_nearest_point(seed: int) -> None:
    blocks = network(seed)
    rng = np.random.default_rng(seed)
    point = rng.uniform(-0.2, 0.2, _INPUTS)
    on = torch.from_numpy(blocks.A.numpy() @ point + blocks.b.numpy() > 0)
    lower, upper = blocks.lower.where(~on, torch.zeros(1).double()), blocks.upper.where(on, torch.zeros(1).double())
    group = Group.of(blocks, 0, lower, upper)
    w, k = group.whole.a.numpy(), float(group.whole.k)
    signs = np.where(on.numpy(), -1.0, 1.0)[:, None]
    left = np.concatenate([-w[None], signs * blocks.A.numpy(), np.eye(_INPUTS), -np.eye(_INPUTS)])
    left = np.concatenate([left, [[0.0]] * (1 + _UNITS) + [[-1.0]] * (2 * _INPUTS)], axis=1)
    right = np.concatenate([[k], -signs[:, 0] * blocks.b.numpy(), np.zeros(2 * _INPUTS)])
    found = linprog(np.eye(_INPUTS + 1)[-1], left, right, bounds=[(-_RADIUS, _RADIUS)] * _INPUTS + [(0, None)])
    radius, at = nearest_decided(group, _RADIUS, Budget(60))
    if found.status != 0:
        assert radius == math.inf
        return
    assert found.fun * (1 - 1e-5) <= radius <= found.fun * (1 + 1e-7)
    assert at is not None
    assert float(at.abs().amax()) <= found.fun * (1 + 1e-4)


def test_a_decided_node_in_a_box_that_is_cut_off_is_nearest_where_it_is() -> None:
    """At the box's own radius one of two inputs has met its end: the slope there says little of nearer radii."""
    z, one = torch.zeros((1, 1), dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    low, high = torch.tensor([-1.0, -1.0], dtype=torch.float64), torch.tensor([0.2, 1.0], dtype=torch.float64)
    A, rows = torch.ones((1, 2), dtype=torch.float64), torch.tensor([[5.0, 0.1]], dtype=torch.float64)
    blocks = Blocks(A, z, 3 * one, rows, z, -0.5 * one, one, 4.2 * one, low, high)
    exact = 0.5 / 5.1
    for close in (1.0, 0.15, 0.099):
        radius, at = nearest_decided(Group.of(blocks, 0, blocks.lower, blocks.upper), close, Budget(60))
        assert exact * (1 - 1e-6) <= radius <= exact
        assert at is not None
        assert exact <= float(at.abs().amax()) <= exact * (1 + 1e-4)


@pytest.mark.parametrize("width", [0.0, 1e-13, 1e-9, 1e-4, 1e-2])
def test_a_unit_that_hardly_moves_does_not_switch_the_bound_off(width: float) -> None:
    plain = network(2)
    exact = distance(plain)
    row = torch.full((1, _INPUTS), width / _INPUTS, dtype=torch.float64)
    ends = [torch.cat([t, t.new_tensor([0.3 + s * width])]) for t, s in ((plain.lower, -1), (plain.upper, 1))]
    A, none = torch.cat([plain.A, row]), torch.zeros((_UNITS + 1, _UNITS + 1), dtype=torch.float64)
    b, reads = torch.cat([plain.b, plain.b.new_tensor([0.3])]), torch.cat([plain.reads, plain.reads.new_tensor([[0.2]])], dim=1)
    blocks = Blocks(A, none, b, plain.rows, reads, plain.offsets - 0.2 * 0.3, *ends, plain.low, plain.high)
    close = 0.9 * min(exact, _RADIUS)
    trees = [WideTree(of, 0, close, lambda _: close) for of in (plain, blocks)]
    for tree in trees:
        tree.run(Budget(60), 60)
    assert [tree.lower for tree in trees] == [close, close]
    assert trees[1].nodes <= trees[0].nodes + 2
