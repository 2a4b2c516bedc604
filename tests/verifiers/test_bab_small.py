"""Squares on small networks: steps against finite differences, nodes that programs end, distances against the MILP."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.dense import Dense
from onnxsub.ops.relu import Relu
from onnxsub.verifiers.bab import distance as by_bab
from onnxsub.verifiers.bab.lp.depth_first import DepthFirst
from onnxsub.verifiers.bab.wide import small, steps
from onnxsub.verifiers.bab.wide.bound import _condition, evaluate, first_multipliers
from onnxsub.verifiers.bab.wide.parts import Multipliers, Part, Squares, squares_for
from onnxsub.verifiers.bab.wide.search import RowSearch, network_as_blocks
from onnxsub.verifiers.bab.wide.steps import Pace
from onnxsub.verifiers.bab.wide.tree import Effort, WideTree
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.result import DistanceResult
from tests.verifiers.nets import bracket_of, measured
from tests.verifiers.test_bab_wide import UNITS, points_of, random_blocks, random_multipliers, run


def deep(seed: int, inputs: int = 48, units: int = 8) -> Network:
    """Two hidden layers, three classes."""
    rng = np.random.default_rng(seed)
    sizes, ops, name = [inputs, units, units, 3], [], "x"
    for k, (n, m) in enumerate(pairwise(sizes)):
        weight, bias = rng.standard_normal((m, n)) / math.sqrt(n), 0.1 * rng.standard_normal(m)
        ops.append(Dense(
            op_type="Gemm", node=f"d{k}", inputs=(name,), output=f"z{k}", in_shapes=((n,),), out_shape=(m,),
            weight=weight, bias=bias,
        ))  # fmt: skip
        name = f"z{k}"
        if k < 2:
            ops.append(Relu(op_type="Relu", node=f"r{k}", inputs=(name,), output=f"h{k}", in_shapes=((m,),), out_shape=(m,)))
            name = f"h{k}"
    return Network("x", (inputs,), name, tuple(ops))


def about(part: Part, given: Multipliers, lower: Tensor, upper: Tensor, squares: Squares) -> Tensor:
    """The bounds that steps lower: with `tr(M^17)^(1/17)` in place of the largest eigenvalue."""
    power = torch.linalg.matrix_power(_condition(part, given, squares), 17)
    scale = power.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) ** (1 / 17)
    return evaluate(part, given, lower, upper, squares, held=given.kappa.exp() / scale).value


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_those_of_finite_differences(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = random_blocks(seed)
    part, given = Part.of(blocks, 0), random_multipliers(seed)
    lower, upper = blocks.lower.expand(5, -1) - 1, blocks.upper.expand(5, -1) + 1  # none is off
    # of other parameters: with their own many inputs' points would be just at their ends
    squares, noted = squares_for(part, random_multipliers(seed + 50).take(torch.tensor([0]))), []

    class Noting:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def step(self, gradients: list[Tensor]) -> None:
            noted.extend(g.clone() for g in gradients)

    monkeypatch.setattr(steps, "Adam", Noting)
    steps.improve(part, given, (lower, upper), Pace(1, 0.1), squares)
    assert len(noted) == 4
    for name, mine in zip(("nu", "reach", "kappa", "mu"), noted, strict=True):
        theirs = torch.zeros_like(mine)
        for j in range(UNITS):
            ends = []
            for sign in (1, -1):
                moved = getattr(given, name).clone()
                moved[:, j] += sign * 1e-5
                ends.append(about(part, replace(given, **{name: moved}), lower, upper, squares))
            theirs[:, j] = (ends[0] - ends[1]) / 2e-5
        assert float((mine - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


@pytest.mark.parametrize("every", [1, 3])
def test_steps_lower_the_bound_and_it_holds(every: int) -> None:
    blocks = random_blocks(3)
    part, ends = Part.of(blocks, 0), (blocks.lower[None], blocks.upper[None])
    start = first_multipliers(part, blocks.lower, blocks.upper)
    better = steps.improve(part.single(), start, ends, Pace(100, 0.05, 10, every))
    before, after = (float(evaluate(part, given, *ends).value) for given in (start, better))
    z, values = run(blocks, points_of(blocks, 3))
    assert after < before - 0.1 * abs(before)
    assert after >= float(values.max())
    # units that are off take no part in the squares
    off = z[:, 0] <= 0
    upper = blocks.upper.clone()
    upper[0] = 0.0
    without = steps.without_decided(better, ends[0], upper[None])
    found = evaluate(part, without, ends[0], upper[None])
    assert bool(off.any())
    assert math.isfinite(float(found.proved))
    assert float(found.proved) >= float(values[off].max())


@pytest.mark.parametrize("proved", [math.inf, 0.1])
def test_programs_end_nodes_or_leave_them_open(proved: float) -> None:
    blocks = random_blocks(0, 0.3)
    asked: list[int] = []

    def program(lower: Tensor, upper: Tensor, budget: Budget) -> tuple[float, float]:
        asked.append(int(((lower < 0) & (upper > 0)).sum()))
        return proved, 0.3

    tree = WideTree(blocks, 0, 0.3, lambda offsets: 0.3, program)
    tree.run(Budget(), 60)
    if proved == math.inf:
        assert tree.settled
        assert len(asked) == 1
    else:
        # what it does not settle is split, and it is asked again where far fewer units are open
        assert not tree.settled
        assert tree.lower >= proved
        assert all(later <= 0.67 * asked[0] or later == 0 for later in asked[1:])


@cache
def by_programs(seed: int) -> tuple[Network, Array, int, DistanceResult]:
    """A network, an anchor, its label and the distance by the MILP."""
    network = deep(seed)
    x0 = np.random.default_rng(seed).uniform(0.3, 0.7, network.input_shape)
    with torch.no_grad():
        label = int(network.forward(torch.tensor(x0[None])).argmax())
    return network, x0, label, measured(network, x0, label, verifier="milp", timeout=30.0)


@pytest.mark.parametrize("few", [False, True])
def test_distances_are_those_of_the_milp(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, bool]] = []
    search, narrow_down = small.search_small, by_bab._narrow_down

    def seen(bracket: Bracket, *, few: bool) -> bool:
        done = search(bracket, few=few)
        asked.append((bracket.lower, few))
        return done

    monkeypatch.setattr(by_bab, "search_small", seen)
    monkeypatch.setattr(by_bab, "_narrow_down", lambda bracket, few: narrow_down(bracket, few=few and few_asked))
    monkeypatch.setattr(small, "_PER_UNIT", 2)
    for name in ("_LINES", "_PROGRAMS", "_SQUARES", "_ENOUGH", "_OPEN"):
        monkeypatch.setattr(by_bab, name, 0.0)
    monkeypatch.setattr(by_bab, "_NEARLY", float("inf"))  # squares at once, however far the bracket is from closed
    few_asked = few
    for seed in range(6):
        network, x0, label, reference = by_programs(seed)
        before = len(asked)
        found = measured(network, x0, label, verifier="bab", timeout=30.0)
        assert max((lower for lower, _ in asked[before:]), default=0.0) <= reference.upper + 1e-6
        assert found.lower <= reference.upper + 1e-6
        assert reference.lower <= found.upper + 1e-6
        assert found.status == "exact"
    assert len(asked) >= 5
    assert {kind for _, kind in asked} == {few}


def question(seed: int) -> tuple[Bracket, ClauseModel]:
    """A small network and the target of its nearest point, on a ball that hardly reaches beyond it."""
    network = deep(seed, units=20)
    x0 = np.random.default_rng(seed).uniform(0.3, 0.7, network.input_shape)
    with torch.no_grad():
        label = int(network.forward(torch.tensor(x0[None])).argmax())
    bracket = bracket_of(network, x0, label)
    nearest = measured(network, x0, label, verifier="milp")
    other = min(nearest.targets, key=lambda target: nearest.targets[target].upper)
    radius = 1.01 * nearest.upper
    found = network_as_blocks(bracket, bracket.local(radius, branching=True), radius)
    assert found is not None
    model = bracket.target(found[0], other)
    assert model is not None
    return bracket, model


def test_a_program_goes_on_where_its_time_ended_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bracket, model = question(2)
    made, made_of = [], DepthFirst.of

    def counted(*args: Any, **kwargs: Any) -> DepthFirst | None:
        made.append(made_of(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(DepthFirst, "of", counted)
    sides = zip(*(model.intervals[op.output] for op in model.local.network.activations), strict=True)
    lower, upper = (torch.cat([torch.as_tensor(np.asarray(e)).reshape(-1) for e in side]) for side in sides)
    radius = model.local.box.radius
    program = small.NodeProgram(bracket, model)
    first = program(lower, upper, radius, Budget(1e-9))
    assert first < radius  # it had no time
    nodes = made[0].nodes
    assert nodes == 0
    whole = program(lower, upper, radius, Budget())
    assert len(made) == 1
    assert made[0].nodes > 0
    assert whole > first
    # what is known is not searched again; other intervals are another node
    nodes = made[0].nodes
    assert program(lower, upper, radius, Budget()) == whole
    assert made[0].nodes == nodes
    moved = upper.clone()
    moved[int((upper > 0).nonzero()[0])] /= 2
    program(lower, moved, radius, Budget())
    assert len(made) == 2


def test_turns_end_where_a_point_has_come_much_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    bracket, model = question(2)
    radius = model.local.box.radius
    found = network_as_blocks(bracket, model.local, radius)
    assert found is not None
    asked = []

    def program(lower: Tensor, upper: Tensor, close: float, budget: Budget) -> float:
        asked.append(close)
        monkeypatch.setattr(Bracket, "upper", 0.9 * radius)  # as if it had found a point there
        return 0.0

    search = RowSearch(bracket, found[1], model.key, radius, lambda: program, Effort(1000, (Pace(1, 0.1),)))
    assert not search.shrunk
    search.run(Budget(), 1)
    search.run(Budget())
    assert search.shrunk
    assert len(asked) == 1
    assert not search.finished
    search.run(Budget())
    assert len(asked) == 1


def test_all_is_bounded_anew_where_a_point_has_come_much_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    bracket, model = question(2)
    monkeypatch.setattr(Bracket, "upper", model.local.box.radius)
    rounds: list[list[int]] = []

    class Stub:
        """The first search of the first round is told of a point."""

        finished = True

        def __init__(self, bracket: Bracket, blocks: object, row: int, *_: object) -> None:
            if not rounds or row in rounds[-1]:
                rounds.append([])
            rounds[-1].append(row)
            self.shrunk = len(rounds) == 1

        def run(self, *_: object) -> None:
            pass

    monkeypatch.setattr(small, "RowSearch", Stub)
    assert small.search_small(bracket, few=True)
    assert len(rounds) == 2
    assert len(rounds[0]) == 1  # the others' roots would be for nothing
    assert rounds[0][0] in rounds[1]


@pytest.mark.parametrize(("wide", "few"), [(False, True), (True, False)])
def test_programs_that_are_switched_off_get_no_intervals(wide: bool, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(by_bab, "search_wide", lambda _: wide)
    monkeypatch.setattr(by_bab, "_narrow_down", lambda _, few: asked.append(few))
    network = deep(0, inputs=2100)
    x0 = np.full(network.input_shape, 0.5)
    with torch.no_grad():
        label = int(network.forward(torch.tensor(x0[None])).argmax())
    by_bab.search_distance(bracket_of(network, x0, label), None)
    assert asked == [few]
