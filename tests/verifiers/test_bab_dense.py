"""The search on folded networks as a few matrices: bounds and intervals against points, both ways of loops, other engines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator
from onnxsub.ops.dense import Dense
from onnxsub.verifiers.bab.dense import intervals, search
from onnxsub.verifiers.bab.dense.ball import Ball
from onnxsub.verifiers.bab.dense.bound import Nodes, attained, certified, evaluate, improve
from onnxsub.verifiers.bab.dense.intervals import least_above, narrowed, slopes_of
from onnxsub.verifiers.bab.dense.pool import Pool
from onnxsub.verifiers.bab.dense.tree import DenseTree
from onnxsub.verifiers.bab.relu import kernels
from onnxsub.verifiers.bab.wide import small
from onnxsub.verifiers.bab.wide.blocks import Blocks
from onnxsub.verifiers.bab.wide.tree import WideTree
from onnxsub.verifiers.options import BabOptions
from tests.verifiers.nets import far_anchor, measured, random_dense

INPUTS, WIDTH = 30, 6
UNITS = 3 * WIDTH


def random_blocks(seed: int, shift: float = 0.0, radius: float = 0.3) -> Blocks:
    """Three layers, of which the third reads the input too; plain intervals; two rows, negative at the anchor.

    Args:
        shift: of pre-activations, cancelled by inputs that hardly move: sums of large numbers.
    """
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((UNITS, INPUTS)) / math.sqrt(INPUTS)
    A[WIDTH : 2 * WIDTH] = 0
    B = np.zeros((UNITS, UNITS))
    for k in (1, 2):
        B[k * WIDTH : (k + 1) * WIDTH, : k * WIDTH] = rng.standard_normal((WIDTH, k * WIDTH)) / math.sqrt(WIDTH)
    b = 0.1 * rng.standard_normal(UNITS)
    low, high = -np.minimum(radius, rng.uniform(0, 1, INPUTS)), np.minimum(radius, rng.uniform(0, 1, INPUTS))
    A[:, 0], low[0], high[0] = shift, 0.9, 1.1
    b -= shift
    rows, reads = rng.standard_normal((2, INPUTS)) / math.sqrt(INPUTS), rng.standard_normal((2, UNITS))
    h = np.zeros(UNITS)
    lower, upper = np.zeros(UNITS), np.zeros(UNITS)
    for k in range(3):
        s = slice(k * WIDTH, (k + 1) * WIDTH)
        h[s] = np.maximum(b[s] + A[s, 0] + B[s] @ h, 0)
        below, above = np.maximum(lower, 0), np.maximum(upper, 0)
        lower[s] = (A * np.where(A > 0, low, high)).sum(1)[s] + b[s] + np.maximum(B[s], 0) @ below + np.minimum(B[s], 0) @ above
        upper[s] = (A * np.where(A > 0, high, low)).sum(1)[s] + b[s] + np.maximum(B[s], 0) @ above + np.minimum(B[s], 0) @ below
    offsets = -0.3 - reads @ h
    parts = (A, B, b, rows, reads, offsets, lower, upper, low, high)
    return Blocks(*(torch.from_numpy(np.ascontiguousarray(p)) for p in parts))


def run(blocks: Blocks, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pre-activations `(N, m)` and rows `(N, 2)` at offsets `(N, n)`."""
    h = torch.zeros((len(points), blocks.units), dtype=torch.float64)
    z = h
    for _ in range(3):
        z = points @ blocks.A.T + h @ blocks.B.T + blocks.b
        h = z.clamp(min=0)
    return z, points @ blocks.rows.T + h @ blocks.reads.T + blocks.offsets


def points_of(blocks: Blocks, seed: int, radius: float = math.inf) -> Tensor:
    rng = np.random.default_rng(seed)
    low, high = blocks.low.clamp(min=-radius), blocks.high.clamp(max=radius)
    directions = rng.standard_normal((1500, UNITS + 2)) @ np.concatenate([blocks.A.numpy(), 3 * blocks.rows.numpy()])
    shares = np.concatenate([rng.uniform(0, 1, (500, INPUTS)), rng.integers(0, 2, (500, INPUTS)), directions > 0])
    return low + torch.from_numpy(shares) * (high - low)


def random_nodes(ball: Ball, seed: int, count: int = 12) -> Nodes:
    """With up to four splits each, and any slopes and multipliers."""
    rng = np.random.default_rng(seed)
    lower, upper = (t.expand(count, -1).clone() for t in (ball.lower, ball.upper))
    side = torch.zeros_like(lower)
    for i in range(count):
        for j in rng.choice(UNITS, size=rng.integers(0, 5), replace=False):
            if lower[i, j] < 0 < upper[i, j]:
                side[i, j] = rng.choice([-1.0, 1.0])
                (lower if side[i, j] > 0 else upper)[i, j] = 0
    alpha, beta = (torch.from_numpy(rng.uniform(0, 1, side.shape)).float() for _ in range(2))
    cuts = torch.from_numpy(rng.choice([0.0, 1e-3, 1.0, 1e3], (count, 2 * UNITS))).float()
    return Nodes(torch.from_numpy(rng.integers(0, 2, count)), lower, upper, side, alpha, beta, cuts)


def inside(nodes: Nodes, i: int, z: Tensor) -> Tensor:
    """Which points lie in a node."""
    return (nodes.side[i] * z >= 0).all(1)


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_at_the_points_of_a_node(seed: int, shift: float) -> None:
    blocks = random_blocks(seed, shift)
    ball = Ball.of(blocks, [0, 1], math.inf)
    nodes, scale = random_nodes(ball, seed), torch.ones((2, UNITS))
    proved = certified(ball, nodes, scale)
    z, values = run(blocks, points_of(blocks, seed))
    met = 0
    for i in range(len(nodes)):
        here = values[inside(nodes, i, z), int(nodes.row[i])]
        met += len(here)
        assert not len(here) or float(proved[i]) >= float(here.max())
    assert met


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("shift", [0.0, 1e3])
@pytest.mark.parametrize("seed", range(4))
def test_intervals_hold_where_the_row_is_not_negative(
    seed: int, shift: float, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_PAYS", 0 if loops else math.inf)
    monkeypatch.setattr(intervals, "compiled", kernels.compiled if loops else lambda *_: None)
    blocks = random_blocks(seed, shift)
    z, values = run(blocks, points_of(blocks, seed))
    # so that many points are of interest
    blocks.offsets.sub_(values.quantile(0.7, dim=0))
    values = values - values.quantile(0.7, dim=0)
    ball = Ball.of(blocks, [0, 1], math.inf)
    slopes, lower, upper = slopes_of(ball, 10)
    assert (lower.double() <= z.amin(0)).all()
    assert (upper.double() >= z.amax(0)).all()
    nodes, scale = random_nodes(ball, seed), torch.ones((2, UNITS))
    nodes, found = improve(ball, nodes, scale, 10)
    better = narrowed(ball, nodes, found, slopes)
    met = 0
    for i in range(len(nodes)):
        here = inside(nodes, i, z) & (values[:, int(nodes.row[i])] >= 0)
        met += int(here.sum())
        assert not here.any() or bool((better.lower[i].double() <= z[here].amin(0)).all())
        assert not here.any() or bool((better.upper[i].double() >= z[here].amax(0)).all())
    assert met
    assert float((better.upper - better.lower).sum()) < float((nodes.upper - nodes.lower).sum())


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("power", [-126, -116, -106, -101, -90, 90, 110, 126])
def test_units_may_be_as_small_as_numbers_are(power: int, loops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_PAYS", 0 if loops else math.inf)
    monkeypatch.setattr(intervals, "compiled", kernels.compiled if loops else lambda *_: None)
    met = 0
    for seed in range(4):
        plain, factor = random_blocks(seed), 2.0**power
        plain.offsets.sub_(run(plain, points_of(plain, seed))[1].quantile(0.95, dim=0))
        blocks = replace(
            plain, A=factor * plain.A, b=factor * plain.b, reads=plain.reads / factor, lower=factor * plain.lower,
            upper=factor * plain.upper,
        )  # fmt: skip
        z, values = run(blocks, points_of(blocks, seed))
        ball, scale = Ball.of(blocks, [0, 1], math.inf), torch.full((2, UNITS), 1 / factor)
        nodes, found = improve(ball, random_nodes(ball, seed), scale, 10)
        first = certified(ball, nodes, scale)
        nodes = narrowed(ball, nodes, found, slopes_of(ball, 10)[0])
        second = certified(ball, nodes, scale)
        for i in range(len(nodes)):
            own = values[:, int(nodes.row[i])]
            here = inside(nodes, i, z)
            assert not here.any() or float(first[i]) >= float(own[here].max())
            here &= own >= 0
            met += int(here.sum())
            assert not here.any() or float(second[i]) >= float(own[here].max())
            assert not here.any() or bool((nodes.lower[i].double() <= z[here].amin(0)).all())
            assert not here.any() or bool((nodes.upper[i].double() >= z[here].amax(0)).all())
    assert met


@pytest.mark.parametrize("loops", [True, False])
def test_the_multiplier_of_the_half_space_is_nearly_the_best(loops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_PAYS", 0 if loops else math.inf)
    monkeypatch.setattr(intervals, "compiled", kernels.compiled if loops else lambda *_: None)
    rng = np.random.default_rng(0)
    v, w = (torch.from_numpy(rng.standard_normal((40, 200))).float() for _ in range(2))
    k = -torch.from_numpy(rng.uniform(0, 1.2, 40)).float() * w.abs().sum(1)
    t, which = torch.zeros(40), torch.arange(40)
    found, near = least_above((v, which, t), (w, k, which), torch.zeros(40))
    # from multipliers that are half or twice as large, as a node's children have
    again = least_above((v, which, t), (w, k, which), near * torch.tensor([0.5, 1.0, 1.2, 2.0]).repeat(10))[0]
    scan = torch.linspace(0, 20, 4001)[:, None]
    best = torch.stack([(g * k + (v + g * w).abs().sum(1)) for g in scan]).amin(0)
    held = k.abs() < w.abs().sum(1)  # else there is no such point, and the bound falls for ever
    norm = v.abs().sum(1)
    assert (found >= best - 2e-3 * norm)[held].all()
    assert (found <= best + 0.05 * norm)[held].all()
    assert (found < -norm)[~held].any()
    assert (again <= best + 0.05 * norm)[held].all()
    assert (again >= best - 2e-3 * norm)[held].all()
    # values that are no numbers, and multipliers that are none, give no end
    broken = least_above((v * math.nan, which, t), (w, k, which), near)[0]
    assert (broken == math.inf).all()
    odd = least_above((v, which, t), (w, k, which), near * torch.tensor([math.nan, math.inf]).repeat(20))[0]
    assert (odd >= best - 2e-3 * norm)[held].all()


def test_gradients_are_those_of_differences() -> None:
    blocks = random_blocks(5)
    ball = Ball.of(blocks, [0, 1], math.inf)
    nodes, scale = random_nodes(ball, 3, 1), torch.ones((2, UNITS))
    found = evaluate(ball, nodes, scale, double=True)
    z = attained(ball.double, ball.layers, found.lines, found.q, found.w)
    by_alpha = found.q.clamp(max=0) * z * found.lines.open
    for j in range(UNITS):
        moved = nodes.alpha.clone()
        moved[0, j] += 1e-4
        after = evaluate(ball, Nodes(*nodes.parts[:4], moved, *nodes.parts[5:]), scale, double=True)
        assert float(after.value - found.value) == pytest.approx(1e-4 * float(by_alpha[0, j]), abs=2e-6)
        moved = nodes.beta.clone()
        moved[0, j] += 1e-4
        after = evaluate(ball, Nodes(*nodes.parts[:5], moved, nodes.cuts), scale, double=True)
        assert float(after.value - found.value) == pytest.approx(1e-4 * float(nodes.side[0, j] * z[0, j]), abs=2e-6)


def test_what_is_no_number_closes_nothing() -> None:
    ball = Ball.of(random_blocks(0), [0, 1], math.inf)
    nodes = random_nodes(ball, 0)
    broken = Nodes(*nodes.parts[:5], nodes.beta * math.nan, nodes.cuts)
    assert (certified(ball, broken, torch.ones((2, UNITS)))[(nodes.side != 0).any(1)] == math.inf).all()


def test_the_pool_loses_nothing() -> None:
    pool, rng, kept = Pool(1, 2**30), np.random.default_rng(0), []
    for step in range(40):
        new = rng.permutation(60)[: int(rng.integers(0, 60))] + 100.0 * step
        column = torch.from_numpy(new).float()[:, None]
        taken, values = pool.take(int(rng.integers(0, 50)))
        assert torch.equal(taken.lower[:, 0], values)
        before = len(pool)
        cuts = torch.cat([column, column], 1)
        pool.put(Nodes(torch.zeros(len(new), dtype=torch.int64), column, column, column * 0, column, column, cuts), column[:, 0])
        assert len(pool) == before + len(new)  # nothing is gone before it is replaced
        if step % 5:
            pool.done()
            kept = [v for v in kept if v not in set(values.tolist())]
        kept += new.tolist()
        assert len(pool) == len(kept)
    assert sorted(pool.take(10**6)[1].tolist()) == sorted(kept)


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_closes_no_row_that_is_reached(seed: int) -> None:
    blocks = random_blocks(seed)
    shares = torch.linspace(0, 1, 20, dtype=torch.float64)[:, None, None]
    many = (points_of(blocks, seed) * shares).reshape(-1, INPUTS)
    many = many[(many[:, 0] >= 0.9)]
    _, values = run(blocks, many)
    for radius in (1.0, 1.05):
        near = many.abs().amax(1) <= radius
        reached = (values[near] >= 0).any(0) if bool(near.any()) else torch.zeros(2, dtype=torch.bool)

        def found(offsets: Array, hit: bool, radius: float = radius) -> float:
            if hit:
                assert float(run(blocks, torch.from_numpy(offsets[:1]))[1].max()) >= -1e-5
            return radius

        def program(*_: object, radius: float = radius) -> tuple[bool, float]:
            return False, radius

        tree = DenseTree(blocks, [0, 1], radius, found, program, 2**30)
        tree.run(Budget(1.0))
        assert not any(bool(reached[r]) for r in tree.closed)


@pytest.mark.parametrize(
    ("seed", "sizes"), [(0, (20, 12, 12, 3)), (1, (12, 10, 10, 10, 4)), (2, (30, 30, 30, 5)), (3, (8, 16, 16, 3)), (4, (40, 30, 4))]
)
def test_the_distance_is_that_of_other_engines(seed: int, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_dense(seed, *sizes)
    x0, label = far_anchor(network, seed)
    nodes: list[int] = []
    plain = DenseTree.run

    def seen(tree: DenseTree, budget: Budget) -> None:
        plain(tree, budget)
        nodes.append(tree.nodes)

    monkeypatch.setattr(DenseTree, "run", seen)
    by_trees = measured(network, x0, label, verifier="bab", timeout=60.0, bab=BabOptions(dive=4, inputs=0))
    assert nodes
    monkeypatch.setattr(search, "_UNITS", -1)
    for verifier in ("bab", "milp"):
        other = measured(network, x0, label, verifier=verifier, timeout=60.0)
        assert by_trees.lower <= other.upper + 1e-6
        assert other.lower <= by_trees.upper + 1e-6
        assert other.status == "exact"
    assert by_trees.status == "exact"


def scaled(network: Network, factor: float) -> Network:
    """The same classes with hidden layers of another size: the first layer times a factor, the last one divided by it."""
    linear = [op for op in network.ops if isinstance(op, Dense)]
    ops: list[Operator] = []
    for op in network.ops:
        if op is linear[0]:
            assert isinstance(op, Dense)
            op = replace(op, weight=factor * op.weight, bias=factor * op.bias)
        elif isinstance(op, Dense) and op in linear[1:-2]:
            op = replace(op, bias=factor * op.bias)
        elif isinstance(op, Dense) and op is linear[-2]:
            op = replace(op, weight=op.weight / factor)
        ops.append(op)
    return Network(network.input, network.input_shape, network.output, tuple(ops))


@pytest.mark.parametrize("power", [0, pytest.param(-40, marks=pytest.mark.slow), pytest.param(40, marks=pytest.mark.slow)])
def test_squares_help_where_lines_are_slow_and_agree_with_programs(power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    roots: list[bool] = []
    given: list[bool] = []
    plain, begun = WideTree.run, DenseTree.__init__

    def seen(tree: WideTree, budget: Budget, most: float, done: Callable[[], bool]) -> None:
        plain(tree, budget, most, done)
        roots.append(tree.settled)

    def told(tree: DenseTree, *args: object) -> None:
        begun(tree, *args)  # type: ignore[arg-type]
        given.append(len(args) > 6 and args[6] is not None)

    monkeypatch.setattr(WideTree, "run", seen)
    monkeypatch.setattr(DenseTree, "__init__", told)
    monkeypatch.setattr(search, "_SQUARES", 0.0)
    monkeypatch.setattr(search, "_HARD", -1)
    monkeypatch.setattr(search, "_HARDER", 10_000 if power else -1)  # with and without a smaller radius before
    monkeypatch.setattr(small, "_PER_UNIT", 0.1)
    for seed, sizes in enumerate([(20, 12, 12, 3), (30, 16, 16, 5), (40, 30, 4)]):
        network = scaled(random_dense(seed, *sizes), 2.0**power)
        x0, label = far_anchor(network, seed)
        found = measured(network, x0, label, verifier="bab", timeout=60.0, bab=BabOptions(dive=4, inputs=0))
        other = measured(network, x0, label, verifier="milp", timeout=60.0)
        assert found.status == other.status == "exact"
        assert found.lower <= other.upper + 1e-6
        assert other.lower <= found.upper + 1e-6
    assert roots
    assert any(given)  # and what they leave is searched by lines


@pytest.mark.parametrize("seed", range(4))
def test_intervals_of_squares_hold_and_a_tree_that_begins_with_them_closes_no_row_that_is_reached(seed: int) -> None:
    blocks = random_blocks(seed)
    z, values = run(blocks, points_of(blocks, seed))
    level = values.quantile(0.98, dim=0)
    blocks.offsets.sub_(level)
    values = values - level
    ends = []
    for row in (0, 1):
        tree = WideTree(blocks, row, 1.1, lambda _: 1.1)
        tree.run(Budget(20.0), 1)
        here = values[:, row] >= 0
        assert here.any()
        assert bool((tree.ends[0] <= z[here].amin(0)).all() & (tree.ends[1] >= z[here].amax(0)).all())
        assert float((tree.ends[1] - tree.ends[0]).sum()) < 0.95 * float((blocks.upper - blocks.lower).sum())
        ends.append(tree.ends)
    low, high = (torch.stack(e) for e in zip(*ends, strict=True))
    dense = DenseTree(blocks, [0, 1], 1.1, lambda *_: 1.1, lambda *_: (False, 1.1), 2**30, (low, high))
    dense.run(Budget(1.0))
    assert dense.closed == []
