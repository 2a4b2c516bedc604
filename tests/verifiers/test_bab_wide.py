"""The bound that takes few units over many inputs together, and the tree on it, against points, and against the usual search."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.dense import Dense
from onnxsub.ops.relu import Relu
from onnxsub.verifiers import bracket
from onnxsub.verifiers.bab.wide import search
from onnxsub.verifiers.bab.wide.blocks import Blocks
from onnxsub.verifiers.bab.wide.bound import _term, _terms, evaluate, first_multipliers
from onnxsub.verifiers.bab.wide.parts import Multipliers, Part, squares_for
from onnxsub.verifiers.bab.wide.steps import Pace, improve
from onnxsub.verifiers.bab.wide.tree import WideTree
from tests.verifiers.nets import measured

INPUTS, UNITS = 400, 8


def random_blocks(seed: int, radius: float = 0.05) -> Blocks:
    """Two layers of half the units each; plain intervals on the box."""
    rng = np.random.default_rng(seed)
    half = UNITS // 2
    A = rng.standard_normal((UNITS, INPUTS)) / math.sqrt(INPUTS)
    B = np.zeros((UNITS, UNITS))
    B[half:, :half] = rng.standard_normal((half, half))
    b = 0.2 * rng.standard_normal(UNITS)
    rows, reads = rng.standard_normal((1, INPUTS)) / math.sqrt(INPUTS), rng.standard_normal((1, UNITS))
    low, high = -np.minimum(radius, rng.uniform(0, 1, INPUTS)), np.minimum(radius, rng.uniform(0, 1, INPUTS))
    lower, upper = (A * np.where(A > 0, low, high)).sum(1) + b, (A * np.where(A > 0, high, low)).sum(1) + b
    h = np.maximum(upper, 0)
    lower += np.minimum(B, 0) @ h
    upper += np.maximum(B, 0) @ h
    z = np.maximum(b[:half], 0)
    z = np.concatenate([z, np.maximum(b[half:] + B[half:, :half] @ z, 0)])
    offsets = -0.3 - reads @ z  # -0.3 at the anchor
    parts = (A, B, b, rows, reads, offsets, lower, upper, low, high)
    return Blocks(*(torch.from_numpy(p) for p in parts))


def run(blocks: Blocks, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pre-activations and the row at offsets `(N, n)`."""
    h = torch.zeros((len(points), blocks.units), dtype=torch.float64)
    for _ in range(2):
        z = points @ blocks.A.T + h @ blocks.B.T + blocks.b
        h = z.clamp(min=0)
    return z, points @ blocks.rows[0] + h @ blocks.reads[0] + blocks.offsets[0]


def points_of(blocks: Blocks, seed: int) -> Tensor:
    """Points of the box: corners, corners along random rows, and inner ones."""
    rng = np.random.default_rng(seed)
    span = (blocks.high - blocks.low).numpy()
    directions = rng.standard_normal((200, UNITS + 1)) @ np.concatenate([blocks.A.numpy(), 3 * blocks.rows.numpy()])
    shares = np.concatenate([rng.uniform(0, 1, (100, INPUTS)), rng.integers(0, 2, (100, INPUTS)), directions > 0])
    return blocks.low + torch.from_numpy(shares * span)


def random_multipliers(seed: int) -> Multipliers:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape))

    shape = 5, UNITS
    kappa, mu = 2 * normal(*shape), 2 * normal(*shape)
    root = normal(*shape, UNITS) * (2 * normal(5)).exp()[:, None, None] / UNITS
    return Multipliers(normal(*shape), kappa, mu, normal(*shape), root @ root.transpose(1, 2), normal(UNITS).abs() + 0.1)


@pytest.mark.parametrize("seed", range(10))
def test_any_multipliers_bound_the_row(seed: int) -> None:
    blocks = random_blocks(seed)
    part, points = Part.of(blocks, 0), points_of(blocks, seed)
    z, values = run(blocks, points)
    given = random_multipliers(seed)
    ends = blocks.lower.expand(5, -1), blocks.upper.expand(5, -1)
    more = torch.from_numpy(np.random.default_rng(seed).standard_normal((5, UNITS)))
    for squares in (None, squares_for(part, random_multipliers(seed + 50).take(torch.tensor([0])))):
        assert (evaluate(part, given, *ends, squares).proved >= values.max()).all()
        moved = evaluate(part, given, *ends, squares, more)
        assert (moved.proved >= (values[:, None] + z @ more.T).amax(0)).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_of_half_a_box_holds_at_its_points(seed: int) -> None:
    blocks = random_blocks(seed)
    points = points_of(blocks, seed).clamp(-0.02, 0.02)
    z, values = run(blocks, points)
    lower, upper = blocks.lower.clone(), blocks.upper.clone()
    lower[0] = z[:, 0].median()
    inside = z[:, 0] >= lower[0]
    part = Part.of(blocks, 0).within(0.02)
    found = evaluate(part, random_multipliers(seed), lower.expand(5, -1), upper.expand(5, -1))
    assert bool(inside.any())
    assert (found.proved >= values[inside].max()).all()


@pytest.mark.parametrize("size", [1e-60, 1.0, 1e14, 1e18, 1e60])
def test_the_terms_of_units_of_any_size_are_largest_where_it_says(size: float) -> None:
    rng = np.random.default_rng(0)

    def drawn(low: float, high: float, unit: float) -> torch.Tensor:
        return torch.from_numpy(unit * rng.uniform(low, high, 1000))

    lower, upper = drawn(-1, 0, size), drawn(0, 1, size)
    rest = (
        drawn(-0.3, 0.7, 1 / size), drawn(-0.5, 0.5, 1 / size), drawn(0, 1, 1 / size**2), drawn(0, 0.9, 1 / size**2),
        drawn(-0.5, 0.5, size), drawn(0, 1, size),
    )  # fmt: skip
    z = lower + (upper - lower) * torch.linspace(0, 1, 401, dtype=torch.float64)[:, None]
    assert bool((_term(z, *rest).amax(0) <= _terms(lower, upper, *rest) + 1e-12).all())


def test_steps_lower_the_bound() -> None:
    blocks = random_blocks(3)
    part, ends = Part.of(blocks, 0), (blocks.lower[None], blocks.upper[None])
    start = first_multipliers(part, blocks.lower, blocks.upper)
    better = improve(part.single(), start, ends, Pace(100, 0.05, 10))
    before, after = (float(evaluate(part, given, *ends).value) for given in (start, better))
    _, values = run(blocks, points_of(blocks, 3))
    assert after < before - 0.1 * abs(before)
    assert after >= float(values.max())


def test_what_is_no_number_proves_nothing() -> None:
    blocks = random_blocks(1)
    given = random_multipliers(1)
    broken = replace(given, nu=given.nu * math.nan)
    found = evaluate(Part.of(blocks, 0), broken, blocks.lower.expand(5, -1), blocks.upper.expand(5, -1))
    assert bool((found.proved == math.inf).all())


@pytest.mark.parametrize("seed", range(3))
def test_a_tree_proves_no_more_than_there_is(seed: int) -> None:
    blocks = random_blocks(seed, 0.3)
    shares = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None, None]
    many = (points_of(blocks, seed) * shares).reshape(-1, INPUTS)
    _, values = run(blocks, many)
    nearest = float(many[values >= 0].abs().amax(1).min()) if bool((values >= 0).any()) else 0.3
    told: list[float] = []

    def found(offsets: Array) -> float:
        told.append(float(np.abs(offsets).max()))
        _, value = run(blocks, torch.from_numpy(offsets)[None])
        assert float(value[0]) >= -1e-9
        return told[-1]

    tree = WideTree(blocks, 0, nearest, found)
    tree.run(Budget(), 40)
    top = min([nearest, *told])
    assert 0.5 * top < tree.lower <= top


def dense(seed: int, inputs: int = 1200, units: int = 10) -> Network:
    """A network of one hidden layer over many inputs, three classes."""
    rng = np.random.default_rng(seed)
    first = Dense(
        op_type="Gemm", node="first", inputs=("x",), output="z", in_shapes=((inputs,),), out_shape=(units,),
        weight=rng.standard_normal((units, inputs)) / math.sqrt(inputs), bias=0.1 * rng.standard_normal(units),
    )  # fmt: skip
    relu = Relu(op_type="Relu", node="relu", inputs=("z",), output="h", in_shapes=((units,),), out_shape=(units,))
    last = Dense(
        op_type="Gemm", node="last", inputs=("h",), output="f", in_shapes=((units,),), out_shape=(3,),
        weight=rng.standard_normal((3, units)), bias=0.1 * rng.standard_normal(3),
    )  # fmt: skip
    return Network("x", (inputs,), "f", (first, relu, last))


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_is_that_of_the_usual_search(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = dense(seed)
    x0 = np.random.default_rng(seed).uniform(0.3, 0.7, network.input_shape)
    with torch.no_grad():
        label = int(network.forward(torch.tensor(x0[None])).argmax())
    asked: list[float] = []
    run = search.RowSearch.run

    def seen(row: search.RowSearch, budget: Budget, most: float) -> None:
        run(row, budget, most)
        asked.append(row._bracket.lower)

    monkeypatch.setattr(search.RowSearch, "run", seen)
    by_trees = measured(network, x0, label, verifier="bab", timeout=20.0)
    monkeypatch.setattr(search, "_INPUTS", 10**9)
    usual = measured(network, x0, label, verifier="bab", timeout=20.0)
    assert asked
    assert asked[-1] <= usual.upper + 1e-9
    assert by_trees.lower <= usual.upper + 1e-6
    assert usual.lower <= by_trees.upper + 1e-6
    assert by_trees.status == usual.status == "exact"


def test_plain_bounds_have_their_say_before_anything_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    network = dense(0)
    x0 = np.random.default_rng(0).uniform(0.3, 0.7, network.input_shape)
    with torch.no_grad():
        label = int(network.forward(torch.tensor(x0[None])).argmax())
    asked, certified_radius = list[int](), bracket.certified_radius

    def counted(*args: Any, **options: Any) -> float:
        asked.append(1)
        return certified_radius(*args, **options)

    def too_long(*_: object, **__: object) -> None:
        raise OutOfTime

    monkeypatch.setattr(bracket, "certified_radius", counted)
    monkeypatch.setattr(bracket.BoxModel, "over", too_long)
    found = measured(network, x0, label, verifier="bab", threads=1, timeout=60.0)
    assert len(asked) == 1
    assert found.lower > 0
    assert found.status == "bracket"
