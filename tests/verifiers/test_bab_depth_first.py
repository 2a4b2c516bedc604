"""Linear programs of nodes: lines that hold, cuts that cut off nothing, and a search that agrees with the MILP."""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.optimize import linprog

import onnxsub.verifiers.bab.lp.depth_first as module
from onnxsub.budget import Budget
from onnxsub.ops.clip import Clip
from onnxsub.ops.relu import Relu, relu_rows
from onnxsub.verifiers.bab.lp.cutting import Cutting
from onnxsub.verifiers.bab.lp.depth_first import DepthFirst
from onnxsub.verifiers.bab.lp.hull import Cut, units_of, violated
from onnxsub.verifiers.bab.lp.long_step import Columns, long_steps
from onnxsub.verifiers.bab.lp.relaxation import Relaxation
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.options import BabOptions
from onnxsub.verifiers.programs.encode import MilpModel
from onnxsub.verifiers.programs.solvers import Problem
from tests.verifiers.bab_tools import Sample, frame_of, target_models
from tests.verifiers.nets import anchor, bracket_of, logits, measured, random_dense, random_network
from tests.verifiers.windowed import hidden_relus

TOL = 1e-6


def bracket(network: Any, x0: Any, label: int, dive: int, **options: Any) -> Bracket:
    return bracket_of(network, x0, label, BabOptions(dive=dive), threads=1, tol=TOL, **options)


def case(seed: int, *sizes: int) -> tuple[Any, Any, int, float]:
    """A network, an anchor, its label and the distance by the MILP."""
    network = random_dense(seed, *(sizes or (8, 16, 12, 3)))
    x0, label = anchor(network, seed)
    true = measured(network, x0, label, threads=1, tol=TOL, replay=logits(network))
    assert true.status == "exact"
    return network, x0, label, true.upper


def models_beyond(seed: int) -> tuple[Any, Any, int, float, list[ClauseModel]]:
    """The targets on a ball that reaches well beyond the boundary."""
    network, x0, label, distance = case(seed)
    radius = min(1.6 * distance, 0.9)
    return network, x0, label, radius, target_models(network, x0, label, radius, tight=False)


@pytest.mark.parametrize("seed", range(6))
def test_the_line_of_any_multipliers_is_above_the_margin(seed: int) -> None:
    network, x0, label, radius, models = models_beyond(seed)
    frame = frame_of(network, x0, label, radius, tight=False)
    assert frame is not None
    sample = Sample.of(frame, seed)
    seen = 0
    for model in models:
        linear = Relaxation(model, Budget())
        Cutting(linear, Budget()).root(radius)
        for solved in (linear.solve({}, radius), linear.solve({}, 0.8 * radius)):
            rows = torch.nonzero(sample.margins[:, model.row] >= 0)[:, 0]
            seen += len(rows)
            offsets = sample.offsets[rows].numpy()[:, model_moving(model)] / linear.units
            above = offsets @ solved.slope + solved.constant - sample.margins[rows, model.row].numpy()
            assert above.min(initial=math.inf) >= 0
            reach = linear.reach(solved, radius)
            assert np.abs(sample.offsets[rows].numpy()).max(1, initial=0.0).min(initial=math.inf) >= reach - 1e-9
    assert seen > 50


def model_moving(model: ClauseModel) -> Any:
    return np.flatnonzero(np.asarray(model.upper).reshape(-1) > np.asarray(model.lower).reshape(-1))


def test_long_steps_bound_the_children_from_above() -> None:
    moved = seen = 0
    for radius, model in ((r, m) for *_, r, models in map(models_beyond, range(8)) for m in models):
        linear = Relaxation(model, Budget())
        solved = linear.solve({}, radius)
        assert solved.columns is not None
        part = solved.columns[linear.binaries]
        numbers = np.flatnonzero((part > 1e-6) & (part < 1 - 1e-6))
        whole = linear.value(solved, radius)
        # another program in between must not show
        linear.solve(dict.fromkeys(linear.binaries.tolist(), 0), radius)
        bounds = linear.ahead(solved, {}, radius, numbers)
        assert bounds.shape == (len(numbers), 2)
        for row, k in zip(bounds, numbers, strict=True):
            for value in (0, 1):
                child = linear.solve({int(linear.binaries[k]): value}, radius)
                assert linear.value(child, radius) - 1e-7 <= row[value] <= whole + 1e-7
                moved += row[value] < whole - 1e-6
                seen += 1
    # one step must be worth something, else it chooses nothing
    assert seen > 20
    assert moved > 0.5 * seen


def test_a_long_step_is_the_best_of_its_ray() -> None:
    """Against the value of the dual function at many points of the ray, on small random programs."""
    rng = np.random.default_rng(4)
    better = 0
    for _ in range(200):
        n = int(rng.integers(3, 9))
        value = np.where(rng.random(n) < 0.3, 0.0, rng.normal(size=n))
        low, high = -rng.random(n), rng.random(n)
        ray = np.where(rng.random(n) < 0.3, 0.0, rng.normal(size=n))
        # the candidate itself is basic, between 0 and 1
        value[0], ray[0], low[0], high[0] = 0.0, 1.0, 0.0, 1.0
        found = long_steps(Columns(value, low, high), ray[None], np.array([0]), 2.0)
        for side in (0, 1):
            fixed_low, fixed_high = low.copy(), high.copy()
            fixed_low[0] = fixed_high[0] = side

            def dual(step: float, low: Any = fixed_low, high: Any = fixed_high) -> float:
                d = value - step * ray  # noqa: B023 - called in this turn of the loop only
                return float(np.where(d > 0, d * low, d * high).sum())

            step = float(found.step[0, side])
            assert step * (1 - 2 * side) >= 0
            assert dual(step) - dual(0.0) == pytest.approx(found.gain[0, side], abs=1e-9)
            furthest = max([3 * abs(step), *np.abs(value[ray != 0] / ray[ray != 0])], default=1.0)
            best = max(dual(t * (1 - 2 * side)) for t in np.linspace(0, furthest, 400))
            assert dual(step) >= min(best, dual(0.0) + 4.0) - 1e-9
            better += found.gain[0, side] > 1e-6
    assert better > 50


def test_wrong_multipliers_give_a_weak_line_not_a_wrong_one() -> None:
    network, x0, label, radius, models = models_beyond(3)
    frame = frame_of(network, x0, label, radius, tight=False)
    assert frame is not None
    sample = Sample.of(frame, 3)
    rng = np.random.default_rng(0)
    for model in models:
        linear = Relaxation(model, Budget())
        linear.solve({}, radius)
        rows = torch.nonzero(sample.margins[:, model.row] >= 0)[:, 0]
        assert len(rows) > 0
        offsets = sample.offsets[rows].numpy()[:, model_moving(model)] / linear.units
        problem = model.relaxed()[0]
        for _ in range(30):
            a, k = linear._line(problem.c, rng.normal(size=problem.rows) * rng.choice([0.01, 1.0]))
            assert (offsets @ a + k - problem.offset - sample.margins[rows, model.row].numpy()).min() >= 0


def test_cuts_hold_at_every_point_and_cut_something_off() -> None:
    cut_off = 0
    for seed, radius, model in ((s, m[3], t) for s in range(8) for m in [models_beyond(s)] for t in m[4]):
        model.__dict__["pulled"] = {}  # with all binaries: points of the program are made up from them
        problem = model.relaxed()[0]
        units = units_of(problem)
        linear = Relaxation(model, Budget())
        solved = linear.solve({}, radius)
        assert solved.columns is not None
        if linear.value(solved, radius) < 0:
            continue
        cuts = [c for u in units if (c := violated(problem, u, solved.columns, 1e-9)) is not None]
        cut_off += len(cuts)
        points = points_of(model, seed) if cuts else []
        for cut in cuts:
            assert cut.coefficients @ solved.columns[cut.columns] > cut.upper
            for v in points:
                assert cut.coefficients @ v[cut.columns] <= cut.upper + 1e-9
    assert cut_off > 0


def points_of(model: ClauseModel, seed: int) -> list[Any]:
    """Columns of true points of the program: random inputs, everything else as the network makes it."""
    problem, steps, _ = model.relaxed()
    rng = np.random.default_rng(seed)
    found = []
    rows = sp.csr_array(problem.A)
    units = {u.a: u for u in units_of(problem)}
    assert len(units) > 0
    for _ in range(30):
        v = np.full(problem.columns, np.nan)
        low, high = problem.col_lower[steps], problem.col_upper[steps]
        v[steps] = rng.uniform(low, high) if rng.random() < 0.5 else np.where(rng.random(len(low)) < 0.5, low, high)
        for _ in range(len(units) + 1):
            for u in units.values():
                if np.isnan(v[u.y]) and not np.isnan(v[u.inputs]).any():
                    z = float(u.w @ v[u.inputs]) + u.b
                    v[u.y], v[u.a] = max(z, 0.0), float(z > 0)
            for i in range(rows.shape[0]):
                at = slice(rows.indptr[i], rows.indptr[i + 1])
                open_ = np.isnan(v[rows.indices[at]])
                if open_.sum() == 1 and problem.row_upper[i] - problem.row_lower[i] < 1e-9:
                    index, data = rows.indices[at], rows.data[at]
                    v[index[open_][0]] = ((problem.row_lower[i] - data[~open_] @ v[index[~open_]]) / data[open_])[0]
        assert not np.isnan(v).any()
        # intervals hold on the whole ball here, so every point is one of the program
        values = rows @ v
        assert (values >= problem.row_lower - 1e-7).all()
        assert (values <= problem.row_upper + 1e-7).all()
        found.append(v)
    return found


@pytest.mark.parametrize("kind", ["relu", "clip at 0", "clip above 0", "clip below 0", "shifted"])
def test_cuts_hold_for_whatever_wrote_the_rows(kind: str) -> None:
    rng = np.random.default_rng(0)
    w = np.array([[0.7, -0.4, 0.9], [-1.0, 0.5, 0.3]])
    shape = {"node": "op", "inputs": ("z",), "output": "y", "in_shapes": ((2,),), "out_shape": (2,)}
    limits = {"clip at 0": (0.0, 0.8), "clip above 0": (0.3, 5.0), "clip below 0": (-0.2, 5.0)}.get(kind)
    op = Relu(op_type="Relu", **shape) if limits is None else Clip(op_type="Clip", lo=limits[0], hi=limits[1], **shape)  # type: ignore[arg-type]
    reach = np.abs(w).sum(1)
    model = MilpModel({"y": (-reach, reach)})
    t = model.continuous(-np.ones(3), np.ones(3))
    z = t.apply(sp.csr_array(w))
    y = op.encode(model, z)
    lines = [(z, y)]
    if kind == "shifted":
        # z is a column with a constant, and a row of another unit has -1 at that column
        first = t.take(np.array([0])).shift(np.array([0.4]))
        lines.append((first, relu_rows(model, first, np.array([-0.6]), np.array([1.4]))))
    problem = model.problem(y.take(np.array([0])))
    units = units_of(problem)
    assert (kind == "clip below 0") or len(units) > 0
    fixed = sp.csr_array(problem.A)
    cuts = [
        c for u in units for v in rng.uniform(problem.col_lower, problem.col_upper, (300, problem.columns))
        if (c := violated(problem, u, v, 1e-9)) is not None
    ]  # fmt: skip
    points = 0
    for _ in range(12):
        x = rng.uniform(-1, 1, 3)
        for bits in itertools.product((0.0, 1.0), repeat=int(problem.integer.sum())):
            v = full(problem, fixed, x, bits)
            if v is None:
                continue
            points += 1
            assert all(c.coefficients @ v[c.columns] <= c.upper + 1e-9 for c in cuts)
    assert points >= 12


def full(problem: Problem, rows: Any, x: Any, bits: tuple[float, ...]) -> Any:
    """The point of a program with these inputs and binaries at which its other columns are as large as they can be, if any."""
    low, high = problem.col_lower.copy(), problem.col_upper.copy()
    low[:3] = high[:3] = x
    low[problem.integer] = high[problem.integer] = bits
    ends = sp.vstack([rows, -rows]), np.concatenate([problem.row_upper, -problem.row_lower])
    some = np.isfinite(ends[1])
    found = linprog(
        -np.ones(problem.columns), A_ub=sp.csr_array(ends[0])[np.flatnonzero(some)], b_ub=ends[1][some],
        bounds=np.stack([low, high], 1),
    )  # fmt: skip
    return found.x if found.status == 0 else None


def test_a_cut_makes_the_bound_tighter() -> None:
    better = 0
    for seed in range(8):
        _, _, _, radius, models = models_beyond(seed)
        for model in models:
            linear = Relaxation(model, Budget())
            before = linear.value(linear.solve({}, radius), radius)
            Cutting(linear, Budget()).root(radius)
            after = linear.value(linear.solve({}, radius), radius)
            assert after <= before + 1e-6 * (1 + abs(before))
            better += after < before - 1e-3
    assert better > 2


@pytest.mark.parametrize("seed", range(12))
def test_alone_it_finds_the_distance_of_the_milp(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x0, label, distance = case(seed, 10, 14, 14, 14, 4)
    monkeypatch.setattr(module, "_SHRUNK", 0.0)  # no new ball: one search per target must do
    search = bracket(network, x0, label, 100)
    search.find_start(None)
    radius = search.upper - TOL / 2
    for model in target_models(network, x0, label, radius):
        dive = DepthFirst.of(search, model, radius)
        assert dive is not None
        assert dive.run(Budget())
        assert dive.lower == dive.close
        assert search.claims.lowers[model.key] <= distance + 1e-6 or model.key != search.best.label  # type: ignore[union-attr]
    assert abs(search.upper - distance) <= 2e-6


@pytest.mark.parametrize("seed", range(10))
def test_with_and_without_it_the_distance_is_the_same(seed: int) -> None:
    network = random_network(seed) if seed % 2 else random_dense(seed, 9, 15, 15, 4)
    x0, label = anchor(network, seed)
    if np.abs(logits(network)(x0[None])).max() < 1e-9:
        pytest.skip("the random network is constant")
    found = [
        measured(network, x0, label, verifier="bab", bab=BabOptions(dive=units), threads=1, tol=TOL, replay=logits(network))
        for units in (64, 0)
    ]
    for result in found:
        assert result.status in ("exact", "none")
    if found[0].status == "exact":
        assert abs(found[0].upper - found[1].upper) <= 2e-6
        assert found[0].lower <= found[1].upper + 1e-9
        assert found[1].lower <= found[0].upper + 1e-9


def test_lower_ends_hold_when_it_is_stopped_anywhere() -> None:
    network, x0, label, distance = case(5, 8, 20, 20, 3)
    radius = min(2 * distance, 0.9)
    for limit in range(1, 25, 3):
        search = bracket(network, x0, label, 100, attack=False)
        for model in target_models(network, x0, label, radius, tight=False):
            dive = DepthFirst.of(search, model, radius)
            assert dive is not None
            calls = iter(range(limit))
            solve = dive._linear.solve

            def counted(fixed: dict[int, int], within: float, solve: Any = solve, calls: Any = calls) -> Any:
                if next(calls, None) is None:
                    raise KeyboardInterrupt
                return solve(fixed, within)

            dive._linear.solve = counted  # type: ignore[method-assign]
            with contextlib.suppress(KeyboardInterrupt):
                dive.run(Budget())
        assert search.lower <= distance + 1e-9


def test_nothing_is_claimed_beyond_the_ball_on_which_nodes_were_refuted() -> None:
    network, x0, label, radius, models = models_beyond(3)
    search = bracket(network, x0, label, 100)
    dive = DepthFirst.of(search, models[0], radius)
    assert dive is not None
    # another node was refuted on the ball of a nearer point that was found while this one waited
    dive._stack = [module._Open({}, 0.9 * radius, None)]
    dive.close = 0.8 * radius
    assert dive.lower == dive.close


def test_zero_units_means_that_nothing_is_searched() -> None:
    network, x0, label, radius, models = models_beyond(3)
    search = bracket(network, x0, label, 0)
    stable = [replace(m, intervals={k: (np.abs(u), np.abs(u) + 1) for k, (_, u) in m.intervals.items()}) for m in models]
    assert all(m.binaries == 0 for m in stable)
    assert all(DepthFirst.of(search, m, radius) is None for m in stable)


def test_targets_with_many_units_are_left_to_the_tree() -> None:
    network, x0, label, radius, models = models_beyond(3)
    most = max(m.binaries for m in models)
    search = bracket(network, x0, label, most - 1)
    assert most > 3
    assert all(DepthFirst.of(search, m, radius) is None for m in models if m.binaries == most)


def test_a_cut_that_names_a_column_twice_is_one_row() -> None:
    """Cuts of several windows that read one another do; HiGHS refused all cuts that came with it, and the search broke off."""
    network, x0, label = hidden_relus(127)
    (model, *_) = target_models(network, x0, label, 0.2)
    values = []
    for columns, coefficients in (([0, 0, 1], [0.25, 0.75, 2.0]), ([0, 1], [1.0, 2.0])):
        linear = Relaxation(model, Budget())
        free = linear.solve({}, 0.2)
        assert free.columns is not None
        end = float(free.columns[0] + 2 * free.columns[1]) - 0.05
        linear.add([Cut(np.array(columns), np.array(coefficients), end)])
        values.append(linear.value(linear.solve({}, 0.2), 0.2))
        assert linear.problem.rows == linear._h.getNumRow()
        assert values[-1] < linear.value(free, 0.2)
    assert values[0] == pytest.approx(values[1], abs=1e-9)
