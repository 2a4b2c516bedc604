"""The tree of squares on small random networks, against their distances by linear programs over patterns of signs."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.wide import group
from onnxsub.verifiers.bab.wide import tree as tree_of_squares
from onnxsub.verifiers.bab.wide.blocks import Blocks
from onnxsub.verifiers.bab.wide.steps import Pace
from onnxsub.verifiers.bab.wide.tree import WideTree

_TINY = 1e-6  # relative: what a program may be off by


@dataclass(frozen=True)
class Shape:
    """Of a random network.

    Attributes:
        powers: of ten, by which the sizes of units may differ.
        decided: units that are on, or off, on all of the box. twice: units that are there once more.
        radius: of the box. skip: whether later layers read the input, too.
    """

    inputs: int
    layers: tuple[int, ...]
    powers: float = 0.0
    decided: int = 0
    twice: bool = False
    radius: float = 0.4
    skip: bool = True


def network(seed: int, shape: Shape) -> Blocks:
    """A row that is negative at the anchor, on a box that the domain `[0, 1]^n` clips; plain intervals."""
    rng = np.random.default_rng(seed)
    units, n, at = sum(shape.layers), shape.inputs, 0
    A, B, b = np.zeros((units, n)), np.zeros((units, units)), np.zeros(units)
    for k, width in enumerate(shape.layers):
        s, before = slice(at, at + width), slice(at - shape.layers[k - 1] if k else 0, at)
        if k == 0 or shape.skip:
            A[s] = rng.standard_normal((width, n)) / math.sqrt(n)
        B[s, before] = rng.standard_normal((width, at - before.start)) / math.sqrt(max(at, 1))
        b[s] = 0.15 * rng.standard_normal(width)
        at += width
    if shape.twice:
        A[1], b[1] = A[0], b[0]  # both of the first layer
        A[-1], B[-1], b[-1] = 2 * A[-2], 2 * B[-2], 2 * b[-2]
    for j in rng.permutation(units)[: shape.decided]:
        b[j] += 20.0 * rng.choice([-1, 1])
    size = 10.0 ** rng.uniform(-shape.powers, shape.powers, units)
    A, B, b = A * size[:, None], B * size[:, None] / size, b * size
    rows, reads = rng.standard_normal((1, n)) / math.sqrt(n), rng.standard_normal((1, units)) / size
    x0 = rng.uniform(0, 1, n)
    low, high = np.maximum(-shape.radius, -x0), np.minimum(shape.radius, 1 - x0)
    lower, upper, h = np.zeros(units), np.zeros(units), np.zeros(units)
    for j in range(units):
        h[j] = max(b[j] + B[j] @ h, 0)
        on = np.maximum(lower, 0), np.maximum(upper, 0)
        lower[j] = (A[j] * np.where(A[j] > 0, low, high)).sum() + b[j] + np.minimum(B[j], 0) @ on[1] + np.maximum(B[j], 0) @ on[0]
        upper[j] = (A[j] * np.where(A[j] > 0, high, low)).sum() + b[j] + np.minimum(B[j], 0) @ on[0] + np.maximum(B[j], 0) @ on[1]
    offsets = -0.8 - reads @ h
    return Blocks(*(torch.from_numpy(p) for p in (A, B, b, rows, reads, offsets, lower, upper, low, high)))


def row_at(blocks: Blocks, point: Array) -> float:
    h = np.zeros(blocks.units)
    for j in range(blocks.units):
        h[j] = max(float(blocks.A[j].numpy() @ point + blocks.B[j].numpy() @ h + blocks.b[j]), 0)
    return float(blocks.rows[0].numpy() @ point + blocks.reads[0].numpy() @ h + blocks.offsets[0])


def distance(blocks: Blocks, lower: Tensor | None = None, upper: Tensor | None = None) -> tuple[float, Array | None]:
    """How far the nearest point is where the row is not negative, and the point: patterns of signs one by one.

    Those that linear programs with triangles in place of the open units exclude are left out.

    Args:
        lower, upper: intervals of units that it must lie in; their signs only are looked at.
    """
    n, m = blocks.A.shape[1], blocks.units
    size = torch.maximum(blocks.lower.abs(), blocks.upper.abs()).numpy()
    A, b, l, u = (t.numpy() / size.reshape(-1, *[1] * (t.dim() - 1)) for t in (blocks.A, blocks.b, blocks.lower, blocks.upper))
    B, reads, none = blocks.B.numpy() * size / size[:, None], blocks.reads[0].numpy() * size, np.zeros((m, 1))
    z, h = np.concatenate([A, B, none], axis=1), np.concatenate([np.zeros((m, n)), np.eye(m), none], axis=1)
    row = np.concatenate([blocks.rows[0].numpy(), reads, [0.0]])
    ball = [np.concatenate([s * np.eye(n), np.zeros((n, m)), -np.ones((n, 1))], axis=1) for s in (1, -1)]
    box = [*zip(blocks.low.tolist(), blocks.high.tolist(), strict=True), *[(0.0, None)] * (m + 1)]

    def nearest(on: Array, off: Array) -> tuple[float, Array]:
        open_ = ~on & ~off
        slope = (u / np.where(open_, u - l, 1.0))[open_, None]
        above = h[open_] - slope * z[open_], slope[:, 0] * (b - l)[open_]  # h <= slope (z - l)
        left = np.concatenate([*ball, -row[None], (z - h)[open_], above[0], -z[on], z[off]])
        right = np.concatenate([np.zeros(2 * n), blocks.offsets.numpy(), -b[open_], above[1], b[on], -b[off]])
        same, at = np.concatenate([(h - z)[on], h[off]]), np.concatenate([b[on], np.zeros(int(off.sum()))])
        found = linprog(np.eye(n + m + 1)[-1], left, right, same, at, bounds=box)
        return (float(found.fun), found.x) if found.status == 0 else (math.inf, np.zeros(n + m + 1))

    least, most = (blocks.lower if lower is None else lower).numpy(), (blocks.upper if upper is None else upper).numpy()
    best: tuple[float, Array | None] = (math.inf, None)
    waiting = [((least >= 0) & (most > 0), most <= 0)]
    while waiting:
        on, off = waiting.pop()
        value, x = nearest(on, off)
        if value >= best[0]:
            continue
        wrong = np.where(on | off, 0.0, np.abs(h @ x - np.maximum(z @ x + b, 0)))
        j = int(wrong.argmax())
        if wrong[j] <= 1e-10:
            best = value, x[:n]
        else:
            unit = np.arange(m) == j
            waiting += [(on | unit, off), (on, off | unit)]
    return best


SHAPES = {
    "one layer": Shape(20, (6,)),
    "few inputs": Shape(4, (5,), radius=0.9),
    "many inputs": Shape(40, (8,), radius=0.2),
    "three units": Shape(6, (3,), radius=0.8),
    "two layers": Shape(16, (4, 4)),
    "no skips": Shape(16, (4, 4), skip=False, radius=0.9),
    "three layers": Shape(12, (3, 3, 2), radius=0.5),
    "more units": Shape(10, (6, 4, 2), radius=0.3, decided=4),
    "decided": Shape(16, (4, 4), decided=3),
    "all decided": Shape(8, (2, 2), decided=4),
    "twice": Shape(16, (4, 4), twice=True),
    "scales": Shape(16, (4, 4), powers=6.0),
    "scales and three layers": Shape(10, (3, 3, 2), powers=6.0, decided=2, radius=0.5),
}
_QUICK = "one layer", "few inputs", "two layers", "decided", "scales"  # the others take as long again, twice
CASES = [
    pytest.param(name, seed, id=name, marks=[] if name in _QUICK else [pytest.mark.slow]) for seed, name in enumerate(SHAPES)
]


@functools.cache
def exactly(name: str, seed: int) -> float:
    return distance(network(seed, SHAPES[name]))[0]


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_of_squares, "_ROOT", (Pace(150, 0.2, 10), Pace(60, 0.05, 10), Pace(60, 0.05, 10)))


def run(tree: WideTree, most: int, seconds: float = 60.0) -> None:
    """Until there are so many nodes, which takes far less than that time."""
    with contextlib.suppress(OutOfTime):
        tree.run(Budget(seconds), most)


def none(_: Array) -> float:
    raise AssertionError


def solved(blocks: Blocks, close: float) -> Callable[[Tensor, Tensor, Budget], tuple[float, float]]:
    """The program of a node: all of its patterns."""
    return lambda lower, upper, budget: (min(distance(blocks, lower, upper)[0], 10 * close), close)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_no_more_is_proved_than_there_is(name: str, seed: int) -> None:
    blocks, exact = network(seed, SHAPES[name]), exactly(name, seed)
    told: list[float] = []

    def found(offsets: Array) -> float:
        assert row_at(blocks, offsets) >= -1e-9
        assert bool((offsets >= blocks.low.numpy() - 1e-12).all() and (offsets <= blocks.high.numpy() + 1e-12).all())
        told.append(float(np.abs(offsets).max()))
        assert told[-1] >= exact * (1 - _TINY)
        return close  # what is found is not used: bounds must stop at the distance by themselves

    close = min(1.2 * exact, SHAPES[name].radius)
    tree = WideTree(blocks, 0, close, found)
    for most in (1, 8, 24):
        run(tree, most)
        assert tree.lower <= exact * (1 + _TINY)
    if close > exact * (1 + 1e-3):
        assert not tree.settled


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_what_is_nearer_than_the_distance_is_proved(name: str, seed: int) -> None:
    blocks, exact = network(seed, SHAPES[name]), exactly(name, seed)
    close = min(0.9 * exact, SHAPES[name].radius)
    tree = WideTree(blocks, 0, close, none)
    run(tree, 400)
    assert tree.settled


_FEW = [*CASES[:2], *(pytest.param(*c.values, id=c.id, marks=[pytest.mark.slow]) for c in CASES[2:])]


@pytest.mark.parametrize(("name", "seed"), _FEW)
def test_with_programs_the_distance_is_reached(name: str, seed: int) -> None:
    blocks, exact = network(seed, SHAPES[name]), exactly(name, seed)
    close = min(1.1 * exact, SHAPES[name].radius)
    tree = WideTree(blocks, 0, close, lambda _: close, solved(blocks, close))
    run(tree, 400)
    assert min(exact, close) * 0.99 <= tree.lower <= exact * (1 + _TINY)


@pytest.mark.parametrize("seed", range(4))
def test_intervals_of_a_root_hold_where_the_row_is_reached(seed: int) -> None:
    blocks = network(seed, SHAPES["two layers"])
    exact, point = distance(blocks)
    if point is None:
        pytest.skip("the row is negative on all of the box")
    tree = WideTree(blocks, 0, 1.01 * exact, lambda _: 1.01 * exact)
    run(tree, 1)
    h = np.zeros(blocks.units)
    for j in range(blocks.units):
        z = float(blocks.A[j].numpy() @ point + blocks.B[j].numpy() @ h + blocks.b[j])
        h[j] = max(z, 0)
        assert float(tree.ends[0][j]) - 1e-7 <= z <= float(tree.ends[1][j]) + 1e-7


@pytest.mark.parametrize("seed", range(4))
def test_with_some_inputs_for_all_no_more_is_proved(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "_ROUGH", 12)
    monkeypatch.setattr(group, "_SAMPLE", 20)
    blocks = network(seed, Shape(40, (4, 3), radius=0.2, powers=3.0 * (seed % 2)))
    exact, _ = distance(blocks)
    close = min(1.1 * exact, 0.2)
    tree = WideTree(blocks, 0, close, lambda _: close)
    for most in (1, 20):
        run(tree, most)
        assert tree.lower <= exact * (1 + _TINY)
