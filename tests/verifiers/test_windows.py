"""Windows in searches: cuts that cut off nothing true, Relus in their place, and distances that agree with the MILP."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import onnxsub.verifiers.bab.wide.search as wide
from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.ops.windows import encode_windows, switches
from onnxsub.verifiers.bab.lp.cutting import Cutting
from onnxsub.verifiers.bab.lp.hull_windows import Hulls, windows_of
from onnxsub.verifiers.bab.lp.pattern import Pattern
from onnxsub.verifiers.bab.lp.relaxation import Relaxation
from onnxsub.verifiers.bab.wide.blocks import blocks_of
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.unpool import with_relus
from onnxsub.verifiers.options import BabOptions
from onnxsub.verifiers.programs.encode import MilpModel
from onnxsub.verifiers.programs.solvers import Problem
from tests.verifiers.bab_tools import Sample, frame_of, target_models
from tests.verifiers.nets import anchor, balanced, box_model, bracket_of, decided, logits, measured
from tests.verifiers.windowed import random_windowed, table

TOL = 1e-6


def program_of(seed: int) -> tuple[Problem, Array, Array, Array, Array]:
    """Windows over rows of a box as a program; its table, the rows' weights and constants, and the inputs' columns."""
    rng = np.random.default_rng(seed)
    n, rows = int(rng.integers(2, 6)), int(rng.integers(5, 10))
    w, b = rng.normal(size=(rows, n)), 0.3 * rng.normal(size=rows)
    w[rng.random((rows, n)) < 0.3] = 0.0
    windows = table(rng, rows, 4, 4)
    reach = np.abs(w).sum(1)
    model = MilpModel({"y": (b - reach, b + reach)})
    t = model.continuous(-np.ones(n), np.ones(n))
    y = encode_windows(model, t.apply(sp.csr_array(w)).shift(b), windows, b - reach, b + reach)
    return model.problem(-y.take(np.array([0]))), windows, w, b, t.matrix.indices


@pytest.mark.parametrize("seed", range(20))
def test_cuts_hold_at_every_point_and_are_found(seed: int) -> None:
    problem, windows, w, b, columns = program_of(seed)
    rng = np.random.default_rng(seed + 1)
    found = windows_of(problem)
    reach = np.abs(w).sum(1)
    open_ = np.unique(switches(windows, b - reach, b + reach)[0])
    assert len(found) == len(open_)
    cuts = [
        c for v in rng.uniform(np.maximum(problem.col_lower, -9), np.minimum(problem.col_upper, 9), (60, problem.columns))
        for c in Hulls([], found).at(problem, v)
    ]  # fmt: skip
    corners = rng.choice([-1.0, 1.0], (40, len(columns)))
    for x in (*rng.uniform(-1, 1, (40, len(columns))), *corners):
        z = w @ x + b
        v = np.zeros(problem.columns)
        v[columns] = x
        for one, number in zip(found, open_, strict=True):
            assert set(one.inputs) <= set(columns.tolist())
            own = one.w @ v[one.inputs] + one.b
            v[one.y] = own.max()
            v[one.z[own.argmax()]] = 1.0
            assert v[one.y] == pytest.approx(z[windows[number][windows[number] >= 0]].max(), abs=1e-7)
        assert all(c.over(v) <= 1e-9 for c in cuts)
    assert len(cuts) > 5 or len(open_) == 0


def test_no_other_cut_is_violated_more() -> None:
    """The slopes of a cut are the best ones: against random slopes."""
    tried = 0
    for seed in range(20):
        problem, *_ = program_of(seed)
        rng = np.random.default_rng(seed)
        for one in windows_of(problem):
            low, high = problem.col_lower[one.inputs], problem.col_upper[one.inputs]
            v = np.zeros(problem.columns)
            v[one.inputs] = rng.uniform(low, high)
            v[one.z] = rng.dirichlet(np.ones(len(one.z)))
            v[one.y] = 9.0
            cut = one.violated(problem, v, 0.0)
            assert cut is not None
            for _ in range(50):
                slope = one.w[rng.integers(len(one.w))] if rng.random() < 0.3 else rng.normal(size=len(one.inputs))
                steep = one.w - slope
                height = one.b + np.maximum(steep * low, steep * high).sum(1)
                assert cut.over(v) >= v[one.y] - slope @ v[one.inputs] - height @ v[one.z] - 1e-6
                tried += 1
    assert tried > 500


def question(seed: int) -> tuple[Any, Any, int, Any]:
    """A network with windows, an anchor, its label and the answer of the MILP."""
    network = balanced(random_windowed(seed))
    x0, label = anchor(network, seed)
    return network, x0, label, measured(network, x0, label, threads=1, tol=TOL, replay=logits(network))


def models_beyond(seed: int) -> tuple[Any, Any, int, float, list[ClauseModel]]:
    """The targets on a ball that reaches well beyond the boundary."""
    network, x0, label, true = question(seed)
    radius = min(1.6 * true.upper, 0.9)
    return network, x0, label, radius, target_models(network, x0, label, radius, tight=False)


def test_lines_behind_cuts_are_above_the_margin() -> None:
    seen = cut = 0
    for seed in range(8):
        network, x0, label, radius, models = models_beyond(seed)
        frame = frame_of(network, x0, label, radius, tight=False)
        if frame is None:
            continue
        sample = Sample.of(frame, seed)
        for model in models:
            linear = Relaxation(model, Budget())
            before = linear.value(linear.solve({}, radius), radius)
            Cutting(linear, Budget()).root(radius)
            solved = linear.solve({}, radius)
            cut += linear.value(solved, radius) < before - 1e-3
            rows = torch.nonzero(sample.margins[:, model.row] >= 0)[:, 0]
            moving = np.flatnonzero(np.asarray(model.upper).reshape(-1) > np.asarray(model.lower).reshape(-1))
            offsets = sample.offsets[rows].numpy()[:, moving] / linear.units
            above = offsets @ solved.slope + solved.constant - sample.margins[rows, model.row].numpy()
            assert above.min(initial=math.inf) >= 0
            seen += len(rows)
    assert seen > 100
    assert cut > 3


def test_patterns_are_those_of_the_point() -> None:
    """With the binaries of a point fixed the program holds the point itself."""
    checked = 0
    for seed in range(6):
        network, x0, label, radius, models = models_beyond(seed)
        frame = frame_of(network, x0, label, radius, tight=False)
        if frame is None:
            continue
        sample = Sample.of(frame, seed)
        for model in models:
            linear = Relaxation(model, Budget())
            pattern = Pattern.of(model, len(linear.binaries))
            assert pattern is not None
            rows = torch.nonzero(sample.margins[:, model.row] >= 0)[:20, 0]
            for row in rows.tolist():
                x = (x0.reshape(-1) + sample.offsets[row].numpy()).reshape(x0.shape)
                fixed = dict(zip(linear.binaries.tolist(), pattern.at(x).tolist(), strict=True))
                solved = linear.solve(fixed, radius)
                assert linear.value(solved, radius) >= float(sample.margins[row, model.row]) - 1e-9
                checked += 1
    assert checked > 50


@pytest.mark.parametrize("fold", ["auto", "never"])
def test_relus_in_the_place_of_windows_are_the_same_function(fold: str) -> None:
    replaced = 0
    for seed in range(6):
        network, x0, label, true = question(seed)
        local = box_model(network, x0, label, min(1.3 * true.upper, 0.9), fold=fold)
        if not local.open:
            continue
        replaced += local.network.windows
        other = with_relus(local)
        assert other.network.windows == 0
        assert other.folds_further == local.folds_further
        x = np.random.default_rng(seed).uniform(local.box.lower, local.box.upper, (300, *x0.shape))
        before, after = (m.network.forward(torch.as_tensor(x)).numpy() for m in (local, other))
        assert np.abs(before - after).max() <= 1e-9 * (1 + np.abs(before).max())
        assert (other.highest >= after.max(0) - 1e-9)[[t for t in range(len(after[0])) if t != label]].all()
        assert (other.highest <= local.highest).all()
    assert replaced > 5


def test_the_search_over_many_inputs_takes_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its matrices know Relus only: windows are Relus by then, and its lower ends hold."""
    monkeypatch.setattr(wide, "_INPUTS", 1)
    monkeypatch.setattr(wide, "_PER_UNIT", 1e-3)
    monkeypatch.setattr(wide, "_UNITS", 10_000)
    trees = []
    monkeypatch.setattr(wide, "blocks_of", lambda local: trees.append(blocks := blocks_of(local)) or blocks)
    for seed in range(4):
        network, x0, label, true = question(seed)
        search = bracket_of(network, x0, label, threads=1, tol=TOL, timeout=5)
        search.find_start(None)
        wide.search_wide(search)
        assert search.lower <= true.upper + 2e-6
        assert true.lower <= search.upper + 2e-6
    assert len(trees) >= 4
    assert all(b is not None for b in trees)


@pytest.mark.parametrize("seed", range(10))
def test_the_distance_is_that_of_the_milp(seed: int) -> None:
    network, x0, label, true = question(seed)
    assert true.status in ("exact", "none")
    # by linear programs over windows; by the tree alone, which splits Relus; by the tree over what is not folded
    for bab, fold in ((BabOptions(), "auto"), (BabOptions(dive=0, leaf=0), "auto"), (BabOptions(dive=0, dense=0), "never")):
        found = measured(
            network, x0, label, verifier="bab", bab=bab, fold=fold, threads=1, tol=TOL, timeout=20, replay=logits(network)
        )
        assert found.lower <= true.upper + 2e-6
        assert true.lower <= found.upper + 2e-6
        assert found.status == true.status or (bab.leaf == 0 and found.status == "bracket")


@pytest.mark.parametrize("seed", range(6))
def test_balls_are_decided_rightly(seed: int) -> None:
    network, x0, label, true = question(seed)
    for share, status in ((0.9, "proved"), (1.1, "violated")):
        if true.status != "exact" or share * true.upper > 1:
            continue
        found = decided(
            network, x0, label, share * true.upper, verifier="bab", threads=1, timeout=20, attack=share < 1, replay=logits(network)
        )
        assert found.status == status
